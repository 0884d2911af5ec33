"""Pictures with boxes: those that are there beside those that a detector found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import ImageDraw, ImageFont
from PIL.Image import Image

from ghostexp.report.plot_style import literal_text, new_figure, save

SIDE = 480  # pixels that the shorter side of a picture is enlarged to, so that words can be read
TEXT = 16  # pixels of a word's height
COLOURS = ("#ffe100", "#56c8ff", "#ff9d2e", "#ff8fd0", "#9dff6e", "#ffffff")  # bright, on a dark rim: by class
HEIGHT = 3.2  # inches of a picture in a figure


class Box(NamedTuple):
    """Left, top, right and bottom in pixels of the picture; score: None of what is there."""

    left: float
    top: float
    right: float
    bottom: float
    label: int
    name: str
    score: float | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """A picture with what is in it, and what was found."""

    title: str
    picture: Image
    truth: Sequence[Box]
    found: Sequence[Box]


def draw_bounding_boxes(picture: Image, boxes: Sequence[Box]) -> Image:
    """A picture, enlarged where it is small, with boxes and their names; the last of them lie on top."""
    scale = max(1.0, SIDE / min(picture.size))
    drawn = picture.convert("RGB").resize((round(picture.width * scale), round(picture.height * scale)))
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(TEXT)
    for box in boxes:
        colour = COLOURS[box.label % len(COLOURS)]
        left, top, right, bottom = (scale * side for side in box[:4])
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=5)
        pen.rectangle((left, top, right, bottom), outline=colour, width=3)
        text = box.name if box.score is None else f"{box.name} {box.score:.2f}"
        place = max(0.0, left), max(0.0, top - TEXT - 4)
        pen.rectangle(pen.textbbox(place, text, font=font), fill="black")
        pen.text(place, text, fill=colour, font=font)
    return drawn


@literal_text
def plot_boxes(scenes: Sequence[AnnotatedImage], title: str, path: Path) -> Path:
    """Draw scenes, a row each: what is there beside what was found."""
    max_processes_per_job = max(scene.picture.width / scene.picture.height for scene in scenes)
    figure = new_figure(2 * HEIGHT * min(max_processes_per_job, 2.0), 0.6 + (HEIGHT + 0.25) * len(scenes))
    for row, scene in zip(figure.subplots(len(scenes), 2, squeeze=False), scenes, strict=True):
        for axes, boxes, what in zip(row, (scene.truth, scene.found), ("annotated", "found"), strict=True):
            axes.imshow(draw_bounding_boxes(scene.picture, boxes))
            axes.set_title(f"{scene.title}: {what}", fontsize=9)
            axes.set_axis_off()
    return save(figure, title, path)
