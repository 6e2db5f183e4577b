"""The small model in the wheel: weights, config, tokenizer, thinking.json, model card."""

from pathlib import Path


def reference_model_path() -> Path:
    """Return the folder of the model in the wheel; `LLM()` without a model uses it."""
    return Path(__file__).parent
