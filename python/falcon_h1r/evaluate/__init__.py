"""Tasks, graders and the speed x tokens x accuracy report.

`load_items` reads local files of the original formats, `evaluate` measures a model on them.
Names are lazy: reading items and statistics import no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falcon_h1r.evaluate.items import Item as Item
    from falcon_h1r.evaluate.load import load_items as load_items
    from falcon_h1r.evaluate.results import EvalResult as EvalResult
    from falcon_h1r.evaluate.run import EvalConfig as EvalConfig
    from falcon_h1r.evaluate.run import evaluate as evaluate

_HOME = {
    "EvalConfig": "falcon_h1r.evaluate.run",
    "EvalResult": "falcon_h1r.evaluate.results",
    "Item": "falcon_h1r.evaluate.items",
    "evaluate": "falcon_h1r.evaluate.run",
    "load_items": "falcon_h1r.evaluate.load",
}

__all__ = ["EvalConfig", "EvalResult", "Item", "evaluate", "load_items"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'falcon_h1r.evaluate' has no attribute {name!r}")
