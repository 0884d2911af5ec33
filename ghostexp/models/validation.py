"""The knobs that people turn, and what each may be: a bad value is an error of one line that names its key."""

import math
from collections.abc import Callable, Sequence


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _several(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _boolean(value: object) -> bool:
    return isinstance(value, bool)


RULES: dict[str, tuple[str, Callable]] = {
    "num_classes": ("a whole number >= 1", _whole),
    "in_chans": ("a whole number >= 1", _whole),
    "ratio": ("a whole number >= 1", _whole),
    "dw_size": ("an odd whole number >= 1", lambda value: _whole(value) and value % 2 == 1),
    "width": ("a number > 0", lambda value: _number(value) and value > 0),
    "se_ratio": ("a number >= 0 (0: no squeeze-and-excitation)", lambda value: _number(value) and value >= 0),
    "num_branches": ("a whole number >= 1", _whole),
    "image_size": ("a whole number >= 1, or null,", lambda value: value is None or _whole(value)),
    "fpn_channels": ("a whole number >= 1", _whole),
    "head_channels": ("a whole number >= 1", _whole),
    "p6": ("true or false", _boolean),
    "head_norm": ("true or false", _boolean),
    "freeze_batchnorm": ("true or false", _boolean),
    "rpn_pre_nms_top_n": ("a whole number >= 1", _whole),
    "rpn_post_nms_top_n": ("a whole number >= 1", _whole),
    "box_batch_size_per_image": ("a whole number >= 1", _whole),
    "box_detections_per_img": ("a whole number >= 1", _whole),
    "box_score_thresh": ("a number from 0 to 1", lambda value: _number(value) and 0 <= value <= 1),
    "box_nms_thresh": ("a number from 0 to 1", lambda value: _number(value) and 0 <= value <= 1),
    "anchor_scale": ("a number > 0", lambda value: _number(value) and value > 0),
    "anchor_ratios": (
        "numbers > 0, in brackets,",
        lambda value: _several(value) and all(_number(one) and one > 0 for one in value),
    ),
    "drop_rate": ("a number from 0 to below 1", lambda value: _number(value) and 0 <= value < 1),
}


def check_args(**values: object) -> None:
    """Raise ValueError, naming the configuration's key, for the first value that its rule does not allow."""
    for key, value in values.items():
        needed, allowed = RULES[key]
        if not allowed(value):
            raise ValueError(f"model.{key}={value}: {needed} is needed")


def check_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError, naming the configuration's key, when a word is none of those known."""
    if value not in choices:
        raise ValueError(f"model.{key}={value}: one of {', '.join(choices)} is needed")
