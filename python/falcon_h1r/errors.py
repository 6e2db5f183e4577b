"""The whole error hierarchy. Rust raises these classes too, so `except` works across the border.

A message says what was given, what is allowed and what to do: one line.
"""


class FalconH1RError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(FalconH1RError, ValueError):
    """A configuration (model config, dataclass, YAML, command line) is not usable."""


class TokenizerError(FalconH1RError, ValueError):
    """A tokenizer file is broken or uses a part that is not supported, or an id is unknown."""


class RequestError(FalconH1RError, ValueError):
    """A request was refused before anything was queued or allocated."""


class OutOfMemoryPlanError(FalconH1RError, RuntimeError):
    """The memory given cannot hold the weights and the least state the request needs."""


class WeightsError(FalconH1RError, ValueError):
    """A checkpoint is missing, damaged, mislabelled or of another shape."""


class TrainingError(FalconH1RError, RuntimeError):
    """Training cannot go on (bad data, damaged checkpoint, repeated non-finite loss)."""


class WorkerDied(FalconH1RError, RuntimeError):
    """A worker process ended while work was in flight."""
