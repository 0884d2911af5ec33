"""Check the arguments of networks: a bad value is an error of one line that names its config key."""

import math
from collections.abc import Callable, Sequence


def _positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _non_empty_list(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _boolean(value: object) -> bool:
    return isinstance(value, bool)


RULES: dict[str, tuple[str, Callable]] = {
    "num_classes": ("an integer >= 1", _positive_int),
    "in_chans": ("an integer >= 1", _positive_int),
    "ratio": ("an integer >= 1", _positive_int),
    "dw_size": ("an odd integer >= 1", lambda value: _positive_int(value) and value % 2 == 1),
    "width": ("a number > 0", lambda value: _number(value) and value > 0),
    "se_ratio": ("a number >= 0 (0: no squeeze-and-excitation)", lambda value: _number(value) and value >= 0),
    "num_branches": ("an integer >= 1", _positive_int),
    "image_size": ("an integer >= 1 or null", lambda value: value is None or _positive_int(value)),
    "fpn_channels": ("an integer >= 1", _positive_int),
    "head_channels": ("an integer >= 1", _positive_int),
    "p6": ("true or false", _boolean),
    "head_norm": ("true or false", _boolean),
    "freeze_batchnorm": ("true or false", _boolean),
    "rpn_pre_nms_top_n": ("an integer >= 1", _positive_int),
    "rpn_post_nms_top_n": ("an integer >= 1", _positive_int),
    "box_batch_size_per_image": ("an integer >= 1", _positive_int),
    "box_detections_per_img": ("an integer >= 1", _positive_int),
    "box_score_thresh": ("a number in [0, 1]", lambda value: _number(value) and 0 <= value <= 1),
    "box_nms_thresh": ("a number in [0, 1]", lambda value: _number(value) and 0 <= value <= 1),
    "anchor_scale": ("a number >= 1", lambda value: _number(value) and value >= 1),
    "anchor_ratios": (
        "a list of numbers > 0",
        lambda value: _non_empty_list(value) and all(_number(one) and one > 0 for one in value),
    ),
    "drop_rate": ("a number in [0, 1)", lambda value: _number(value) and 0 <= value < 1),
}


def check_args(**values: object) -> None:
    """Raise ValueError, which names the config key, for the first value that its rule does not allow."""
    for key, value in values.items():
        needed, allowed = RULES[key]
        if not allowed(value):
            raise ValueError(f"model.{key}={value}: must be {needed}")


def check_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError, which names the config key, unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"model.{key}={value}: must be one of {', '.join(choices)}")
