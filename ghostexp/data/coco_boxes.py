"""Check the boxes of COCO annotation files, and recognise files in another box format or unit."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

OVERHANG = 1.0  # pixels that a box may reach outside its image without a warning: COCO's own do so by fractions of one
CLIPPED = 10.0  # pixels that it may reach outside and be clipped
CLIPPED_FRACTION = 0.1  # of the image's side: the limit, if smaller than CLIPPED
LARGEST_FRACTION = 1.01  # of relative coordinates, which may be rounded

NameOf = Callable[[int], str]  # of an annotation, by its position


def check_boxes(path: Path, name_of: NameOf, xywh: np.ndarray, sizes: np.ndarray) -> None:
    """Check boxes (n, 4) as left, top, width and height; sizes (n, 2) are height and width of each box's image.

    Warns once of boxes that reach a few pixels outside their image, which training clips, and once of boxes without
    width or height, which training drops. Raises ValueError: other boxes that are not inside their image.
    """
    _check_unit(path, name_of, xywh)
    with np.errstate(invalid="ignore"):  # infinite numbers
        # Pixels beyond the left, top, right and bottom of the image.
        beyond = np.concatenate([-xywh[:, :2], xywh[:, :2] + xywh[:, 2:] - sizes[:, ::-1]], 1)
    limits = np.clip(CLIPPED_FRACTION * sizes[:, ::-1], OVERHANG, CLIPPED)
    is_valid = (xywh[:, 2:] >= 0).all(1) & (beyond <= np.tile(limits, 2)).all(1)  # and no NaN
    is_outside = np.asarray((beyond > OVERHANG).any(1))
    if not is_valid.all():
        _check_format(path, xywh, sizes, is_outside)
        first = int((~is_valid).argmax())
        height, width = sizes[first]
        raise ValueError(
            f"{path}: {name_of(first)}: bbox must be [x, y, width, height] inside its image of {width} x {height}, got "
            f"{xywh[first].tolist()} ({(~is_valid).sum()} of {len(xywh)} boxes are wrong; up to {CLIPPED:g} pixels "
            "outside are clipped)"
        )
    _warn(path, name_of, is_outside, "that reach outside their images are clipped in training, not in evaluation")
    _warn(path, name_of, np.asarray((xywh[:, 2:] == 0).any(1)), "without width or height are not trained on")


def warn_of_areas(path: Path, name_of: NameOf, xywh: np.ndarray, areas: np.ndarray) -> None:
    """Warn once of areas (n,) that are not > 0, for which torchmetrics, but not pycocotools, uses that of the box."""
    differs = ~(areas > 0) & (areas != xywh[:, 2] * xywh[:, 3])
    what = "have an area that is not a number > 0: metrics here use that of the box, pycocotools' own use it as it is"
    _warn(path, name_of, differs, what)


def _check_unit(path: Path, name_of: NameOf, xywh: np.ndarray) -> None:
    """Raise ValueError if most boxes are in fractions of the image."""
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
    """Raise ValueError if the boxes seem to be corners: many are outside, and inside when read as [x1, y1, x2, y2]."""
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
