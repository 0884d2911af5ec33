"""ghostexp: study, reproduce and extend GhostNet (arXiv 1911.11907).

From Python, with the overrides of the command line: `compose`, `fit`, `load`, `results`, `create_model`; and the parts
`ghostify` and `GhostModule`. All are imported when they are first used, so that `import ghostexp` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghostexp.api import Result, compose, create_model, fit, load, results
    from ghostexp.errors import ConfigError, RunError
    from ghostexp.models.ghost_module import GhostModule
    from ghostexp.models.ghostify import ghostify

_PLACES: dict[str, str] = dict.fromkeys(("Result", "compose", "create_model", "fit", "load", "results"), "ghostexp.api")
_PLACES |= {"ConfigError": "ghostexp.errors", "RunError": "ghostexp.errors"}
_PLACES |= {"GhostModule": "ghostexp.models.ghost_module", "ghostify": "ghostexp.models.ghostify"}

__all__ = [
    "ConfigError",
    "GhostModule",
    "Result",
    "RunError",
    "compose",
    "create_model",
    "fit",
    "ghostify",
    "load",
    "results",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'ghostexp' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
