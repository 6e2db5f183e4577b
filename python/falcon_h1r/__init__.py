"""Efficient test-time scaling with Falcon-H1 hybrid models.

Public names are lazy (PEP 562): `Tokenizer` and `ConfidenceTracker` never import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falcon_h1r import ops as ops
    from falcon_h1r._rust import ConfidenceTracker as ConfidenceTracker
    from falcon_h1r.engine.params import SamplingParams as SamplingParams
    from falcon_h1r.llm import LLM as LLM
    from falcon_h1r.model.config import FalconH1Config as FalconH1Config
    from falcon_h1r.model.model import FalconH1ForCausalLM as FalconH1ForCausalLM
    from falcon_h1r.reference_model import reference_model_path as reference_model_path
    from falcon_h1r.thinking.deepconf import DeepConf as DeepConf
    from falcon_h1r.tokenizer import Tokenizer as Tokenizer

__version__ = "0.1.0"

_HOME = {
    "ConfidenceTracker": "falcon_h1r._rust",
    "DeepConf": "falcon_h1r.thinking.deepconf",
    "FalconH1Config": "falcon_h1r.model.config",
    "FalconH1ForCausalLM": "falcon_h1r.model.model",
    "LLM": "falcon_h1r.llm",
    "SamplingParams": "falcon_h1r.engine.params",
    "Tokenizer": "falcon_h1r.tokenizer",
    "reference_model_path": "falcon_h1r.reference_model",
}

__all__ = [*_HOME, "ops"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "ops":
        return import_module("falcon_h1r.ops")
    raise AttributeError(f"module 'falcon_h1r' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
