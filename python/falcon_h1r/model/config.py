"""FalconH1Config: Hugging Face's fields, read from the files of transformers 4 and 5."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from falcon_h1r.errors import ConfigError

_GENERIC = {"rope_parameters", "rope_theta", "rope_scaling", "dtype", "torch_dtype", "head_dim"}
_UNLIMITED = (0.0, math.inf)


@dataclass(frozen=True, kw_only=True, slots=True)
class FalconH1Config:
    """Sizes and multipliers of a Falcon-H1 model; names and defaults as in transformers.

    Raises ConfigError for a value that no Falcon-H1 can have.
    """

    vocab_size: int = 128000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int | None = None
    """Width of an attention head; None is hidden_size / num_attention_heads."""
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 8192
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    projectors_bias: bool = False
    mamba_d_ssm: int | None = 1024
    """Channels of the SSM; None is mamba_expand * hidden_size."""
    mamba_n_heads: int = 128
    mamba_d_head: int | str | None = "auto"
    mamba_n_groups: int = 1
    mamba_d_state: int = 256
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_chunk_size: int = 256
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = False
    mamba_norm_before_gate: bool = True
    mamba_rms_norm: bool = False
    time_step_limit: tuple[float, float] = _UNLIMITED
    """Clamp of dt after softplus."""
    embedding_multiplier: float = 1.0
    lm_head_multiplier: float = 1.0
    key_multiplier: float = 1.0
    attention_in_multiplier: float = 1.0
    attention_out_multiplier: float = 1.0
    ssm_in_multiplier: float = 1.0
    ssm_out_multiplier: float = 1.0
    ssm_multipliers: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """Scales of the parts z, x, B, C, dt of the SSM projection."""
    mlp_multipliers: tuple[float, ...] = (1.0, 1.0)
    """Scales of the gate and of the down projection."""
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | tuple[int, ...] | None = 2
    dtype: str = "float32"
    """The dtype the weights are stored in."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be an integer of at least 1")
        for name in _FINITE:
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            for v in values:
                if not isinstance(v, (int, float)) or not math.isfinite(v):
                    raise ConfigError(f"{name} is {value!r}; it must be finite")
        if len(self.ssm_multipliers) != 5 or len(self.mlp_multipliers) != 2:
            raise ConfigError(
                f"ssm_multipliers has {len(self.ssm_multipliers)} and mlp_multipliers "
                f"{len(self.mlp_multipliers)} values; they must have 5 and 2"
            )
        if self.hidden_act != "silu":
            raise ConfigError(f"hidden_act is {self.hidden_act!r}; only 'silu' is a Falcon-H1")
        if self.mamba_d_conv < 2:
            raise ConfigError(f"mamba_d_conv is {self.mamba_d_conv}; it must be at least 2")
        for name in ("head_dim", "mamba_d_ssm"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} is {value!r}; it must be an integer of at least 1")
        limit = self.time_step_limit
        if len(limit) != 2 or not 0.0 <= limit[0] <= limit[1]:
            raise ConfigError(f"time_step_limit is {limit}; want two numbers, 0 <= low <= high")
        self._check_divides()

    def _check_divides(self) -> None:
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; give head_dim"
            )
        if self.attention_head_dim % 2:
            raise ConfigError(f"head_dim is {self.attention_head_dim}; it must be even")
        pairs = [
            ("num_attention_heads", "num_key_value_heads"),
            ("d_ssm", "mamba_n_heads"),
            ("mamba_n_heads", "mamba_n_groups"),
            ("d_ssm", "mamba_n_groups"),
        ]
        for whole, part in pairs:
            if getattr(self, whole) % getattr(self, part):
                raise ConfigError(
                    f"{whole} {getattr(self, whole)} is not a multiple of {part} "
                    f"{getattr(self, part)}"
                )
        if self.mamba_d_head not in ("auto", None, self.ssm_head_dim):
            raise ConfigError(
                f"mamba_d_head is {self.mamba_d_head!r}; mamba_d_ssm {self.d_ssm} over "
                f"mamba_n_heads {self.mamba_n_heads} gives {self.ssm_head_dim}"
            )

    @property
    def attention_head_dim(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def d_ssm(self) -> int:
        """Channels of the SSM."""
        return self.mamba_d_ssm or self.mamba_expand * self.hidden_size

    @property
    def ssm_head_dim(self) -> int:
        """Width of one SSM head."""
        return self.d_ssm // self.mamba_n_heads

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: x, B and C."""
        return self.d_ssm + 2 * self.mamba_n_groups * self.mamba_d_state

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a sequence."""
        if self.eos_token_id is None:
            return ()
        return (self.eos_token_id,) if isinstance(self.eos_token_id, int) else self.eos_token_id

    @classmethod
    def from_dict(cls, data: dict[str, Any], origin: str = "config") -> "FalconH1Config":
        """Build from the contents of a config.json; fields that shape no tensor are left aside."""
        model_type = data.get("model_type", "falcon_h1")
        if model_type != "falcon_h1":
            raise ConfigError(f"{origin}: model_type is {model_type!r}; only 'falcon_h1' is served")
        if data.get("attn_layer_indices") is not None:
            raise ConfigError(f"{origin}: attn_layer_indices is set; only null is supported")
        known = {f.name for f in fields(cls)}
        try:
            values = {k: _plain(v) for k, v in data.items() if k in known and k not in _GENERIC}
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{origin}: a field holds no number ({error})") from None
        values = {k: v for k, v in values.items() if v is not None or k in _NULLABLE}
        values["rope_theta"] = _rope_theta(data, origin)
        values["dtype"] = str(data.get("dtype") or data.get("torch_dtype") or "float32")
        if data.get("head_dim") is not None:
            values["head_dim"] = data["head_dim"]
        if "num_key_value_heads" not in values and "num_attention_heads" in values:
            values["num_key_value_heads"] = (
                values["num_attention_heads"] if "num_key_value_heads" in data else 8
            )
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
        except TypeError as error:
            raise ConfigError(f"{origin}: a field has the wrong type ({error})") from None

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "FalconH1Config":
        """Read `folder`/config.json."""
        path = Path(folder) / "config.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            what = "holds no config.json" if Path(folder).is_dir() else "does not exist"
            raise ConfigError(f"{folder} {what}; give the folder of a Falcon-H1 model") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{path} holds a {type(data).__name__}; it must be an object")
        return cls.from_dict(data, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of a config.json that both ages of transformers read."""
        data = asdict(self)
        data = {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}
        data["architectures"] = ["FalconH1ForCausalLM"]
        data["model_type"] = "falcon_h1"
        data["torch_dtype"] = self.dtype
        data["rope_parameters"] = {"rope_theta": self.rope_theta, "rope_type": "default"}
        data["mamba_d_head"] = self.ssm_head_dim
        data["mamba_d_ssm"] = self.d_ssm
        data["head_dim"] = self.attention_head_dim
        if self.time_step_limit == _UNLIMITED:
            del data["time_step_limit"]  # the default of every version; JSON has no infinity
        else:
            data["time_step_limit"] = [
                v if math.isfinite(v) else {"__float__": "Infinity"} for v in self.time_step_limit
            ]
        return data

    def with_dtype(self, dtype: str) -> "FalconH1Config":
        """Return the same config with another storage dtype."""
        return replace(self, dtype=dtype)


_POSITIVE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "mamba_n_heads", "mamba_n_groups",
    "mamba_d_state", "mamba_d_conv", "mamba_expand", "mamba_chunk_size",
)  # fmt: skip
_FINITE = (
    "rms_norm_eps", "rope_theta", "embedding_multiplier", "lm_head_multiplier", "key_multiplier",
    "attention_in_multiplier", "attention_out_multiplier", "ssm_in_multiplier",
    "ssm_out_multiplier", "ssm_multipliers", "mlp_multipliers", "initializer_range",
)  # fmt: skip
_NULLABLE = {"mamba_d_ssm", "pad_token_id", "bos_token_id", "eos_token_id"}


def _plain(value: Any) -> Any:
    """Turn transformers 5's {"__float__": "Infinity"} and JSON lists into Python values."""
    if isinstance(value, dict) and set(value) == {"__float__"}:
        return float(value["__float__"])
    return tuple(_plain(v) for v in value) if isinstance(value, list) else value


def _rope_theta(data: dict[str, Any], origin: str) -> float:
    """Read the RoPE base from either age of config; any scaling is refused."""
    parameters = data.get("rope_parameters") or data.get("rope_scaling") or {}
    if not isinstance(parameters, dict):
        raise ConfigError(f"{origin}: rope_scaling is {parameters!r}; it must be an object or null")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise ConfigError(f"{origin}: rope_type is {kind!r}; only 'default' is supported")
    theta = parameters.get("rope_theta", data.get("rope_theta", 10000.0))
    if not isinstance(theta, (int, float)) or theta <= 0:
        raise ConfigError(f"{origin}: rope_theta is {theta!r}; it must be positive")
    return float(theta)
