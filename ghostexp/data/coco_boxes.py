"""Check the boxes in COCO's annotation files, and recognise the mistakes that whole files have."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

OVERHANG = 1.0  # pixels that a box may reach outside its image unmentioned: COCO's own do so by fractions of one
CLIPPED = 10.0  # pixels that it may reach outside and be clipped,
CLIPPED_FRACTION = 0.1  # or this fraction of the image's side, if that is less
LARGEST_FRACTION = 1.01  # of numbers in 0 ... 1, which may be rounded

NameOf = Callable[[int], str]  # of an annotation, by its position


def check_boxes(path: Path, name_of: NameOf, xywh: np.ndarray, sizes: np.ndarray) -> None:
    """Check boxes (n, 4) as left, top, width and height; sizes (n, 2) are height and width of each box's image.

    One line warns of those that reach a few pixels outside their image, which training clips, and one of those without
    width or height, which it leaves out. Raises ValueError: others.
    """
    _check_unit(path, name_of, xywh)
    with np.errstate(invalid="ignore"):  # infinite numbers
        # Pixels beyond the left, top, right and bottom of the image.
        beyond = np.concatenate([-xywh[:, :2], xywh[:, :2] + xywh[:, 2:] - sizes[:, ::-1]], 1)
    limits = np.clip(CLIPPED_FRACTION * sizes[:, ::-1], OVERHANG, CLIPPED)
    is_right = (xywh[:, 2:] >= 0).all(1) & (beyond <= np.tile(limits, 2)).all(1)  # and no NaN
    is_outside = np.asarray((beyond > OVERHANG).any(1))
    if not is_right.all():
        _check_format(path, xywh, sizes, is_outside)
        first = int((~is_right).argmax())
        height, width = sizes[first]
        raise ValueError(
            f"{path}: {name_of(first)} has the box {xywh[first].tolist()}; [x, y, width, height] inside its image of "
            f"{width} x {height} is needed ({(~is_right).sum()} of {len(xywh)} boxes are wrong; up to {CLIPPED:g} "
            "pixels outside are clipped)"
        )
    _warn(path, name_of, is_outside, "that reach outside their images are clipped in training, not in evaluation")
    _warn(path, name_of, np.asarray((xywh[:, 2:] == 0).any(1)), "without width or height are not trained on")


def _check_unit(path: Path, name_of: NameOf, xywh: np.ndarray) -> None:
    """Raise ValueError for boxes in fractions of the image."""
    has_size = (xywh[:, 2:] > 0).all(1)
    is_fraction = has_size & ((xywh >= 0) & (xywh <= LARGEST_FRACTION)).all(1)
    if 2 * is_fraction.sum() > has_size.sum():
        first = int(is_fraction.argmax())
        raise ValueError(
            f"{path}: boxes must be in pixels, got fractions of the image in {is_fraction.sum()} of {len(xywh)}, as "
            f"{xywh[first].tolist()} of {name_of(first)}; multiply x and width by the image's width, y and "
            "height by its height"
        )


def _check_format(path: Path, xywh: np.ndarray, sizes: np.ndarray, is_outside: np.ndarray) -> None:
    """Raise ValueError for boxes that are corners: many are outside, and inside when read as such."""
    is_inside = (xywh[:, :2] >= -OVERHANG) & (xywh[:, 2:] >= xywh[:, :2]) & (xywh[:, 2:] <= sizes[:, ::-1] + OVERHANG)
    if is_outside.mean() >= 0.1 and is_inside.all(1).mean() >= 0.9:
        raise ValueError(
            f"{path}: boxes must be [x, y, width, height], got what seems to be [x1, y1, x2, y2]: {is_outside.sum()} "
            f"of {len(xywh)} reach outside their images, read as corners {is_inside.all(1).sum()} are inside; write "
            "[x1, y1, x2 - x1, y2 - y1]"
        )


def _warn(path: Path, name_of: NameOf, which: np.ndarray, what: str) -> None:
    if which.any():
        log.warning("%s: %d boxes %s (%s)", path, which.sum(), what, name_of(int(which.argmax())))
