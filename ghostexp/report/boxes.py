"""Draw images with their ground-truth boxes beside the detections."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import ImageDraw, ImageFont
from PIL.Image import Image

from ghostexp.report.plot_style import literal_text, save

SIDE = 480  # pixels: smaller images are enlarged to this shorter side, so that labels are readable
TEXT = 16  # pixels: height of a label
LONGEST = 4096  # pixels: the longer side up to which they are; JPEG ends at 65,500
COLORS = ("#ffe100", "#56c8ff", "#ff9d2e", "#ff8fd0", "#9dff6e", "#ffffff")  # bright, on a dark rim: by class
HEIGHT = 3.2  # inches of an image in a figure


class Box(NamedTuple):
    """Left, top, right and bottom in pixels; score: None for ground truth."""

    left: float
    top: float
    right: float
    bottom: float
    label: int
    name: str
    score: float | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with its ground truth and its detections."""

    title: str
    picture: Image
    ground_truth: Sequence[Box]
    detections: Sequence[Box]


def draw_bounding_boxes(picture: Image, boxes: Sequence[Box]) -> Image:
    """Draw boxes and their labels on an image, which is enlarged if small; later boxes lie on top."""
    scale = max(1.0, min(SIDE / min(picture.size), LONGEST / max(picture.size)))
    drawn = picture.convert("RGB").resize((round(picture.width * scale), round(picture.height * scale)))
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(TEXT)
    for box in boxes:
        color = COLORS[box.label % len(COLORS)]
        left, top, right, bottom = (scale * side for side in box[:4])
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=5)
        pen.rectangle((left, top, right, bottom), outline=color, width=3)
        text = box.name if box.score is None else f"{box.name} {box.score:.2f}"
        corner = max(0.0, left), max(0.0, top - TEXT - 4)
        pen.rectangle(pen.textbbox(corner, text, font=font), fill="black")
        pen.text(corner, text, fill=color, font=font)
    return drawn


@literal_text
def plot_boxes(images: Sequence[AnnotatedImage], title: str, path: Path) -> Path:
    """Draw images, a row each: ground truth beside detections."""
    widest = max(image.picture.width / image.picture.height for image in images)
    width, height = 2 * HEIGHT * min(widest, 2.0), 0.6 + (HEIGHT + 0.25) * len(images)
    figure = Figure(figsize=(width, height))  # an automatic layout would take as long as the rest of the figure
    for row, image in enumerate(images):
        bottom = height - 0.6 - (HEIGHT + 0.25) * (row + 1)
        for column, (what, boxes) in enumerate(
            (("ground truth", image.ground_truth), ("detections", image.detections))
        ):
            axes = figure.add_axes((column / 2 + 0.005, bottom / height, 0.49, HEIGHT / height), xticks=(), yticks=())
            axes.imshow(draw_bounding_boxes(image.picture, boxes))
            axes.set_anchor("N")  # below its title
            axes.set_axis_off()
            middle, top = column / 2 + 0.25, (bottom + HEIGHT + 0.04) / height
            figure.text(middle, top, f"{image.title}: {what}", ha="center", fontsize=9)
    return save(figure, title, path)
