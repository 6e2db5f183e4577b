"""Checkpoints: Hugging Face's folders in and out, safetensors only, by memory map.

Everything is checked from the headers before any tensor is touched: files present, headers
honest, names, shapes and dtypes right. Writes are whole or absent.
"""

import json
import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from falcon_h1r.errors import WeightsError
from falcon_h1r.model.config import FalconH1Config

if TYPE_CHECKING:
    from falcon_h1r.model.model import FalconH1ForCausalLM

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_MAX_HEADER_BYTES = 100_000_000
INDEX = "model.safetensors.index.json"
"""Says which of several files holds each tensor."""
_SINGLE = "model.safetensors"


def load(model: nn.Module, folder: Path, dtype: torch.dtype | None, device: torch.device) -> None:
    """Fill `model` (built on the meta device) from `folder`.

    Raises WeightsError naming the file and the tensor; nothing is allocated before all checks pass.
    """
    files = tensor_files(folder)
    headers = {path: read_header(path) for path in sorted(set(files.values()))}
    wanted = dict(model.named_parameters())
    tied = "lm_head.weight" not in wanted
    for name, parameter in wanted.items():
        if name not in files:
            raise WeightsError(f"{folder}: tensor {name} is missing; the checkpoint is incomplete")
        entry = _entry(headers[files[name]], files[name], name)
        if entry["dtype"] not in DTYPES:
            raise WeightsError(
                f"{files[name]}: tensor {name} has dtype {entry['dtype']}; "
                f"only {', '.join(DTYPES)} are read"
            )
        if tuple(entry["shape"]) != tuple(parameter.shape):
            raise WeightsError(
                f"{files[name]}: tensor {name} has shape {entry['shape']}; "
                f"config.json says {list(parameter.shape)}"
            )
    extra = set(files) - set(wanted) - ({"lm_head.weight"} if tied else set())
    if extra:
        raise WeightsError(
            f"{folder}: tensor {min(extra)} belongs to no part of the model "
            f"({len(extra)} such); config.json and weights do not match"
        )
    by_file: dict[Path, list[str]] = {}
    for name in wanted:
        by_file.setdefault(files[name], []).append(name)
    for path, names in by_file.items():
        with _open(path) as handle:
            for name in names:
                _assign(model, name, handle.get_tensor(name).to(device=device, dtype=dtype))
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight  # type: ignore[union-attr]


def check_size(config: FalconH1Config, folder: Path) -> None:
    """Raise WeightsError when `folder` lacks the last layer that config.json asks for, or its SSM
    is of another width.

    Even on the meta device a layer costs memory, and so does a multiplier a channel: a config that
    asks for a billion of them must be refused before the model is built.
    """
    files, last = tensor_files(folder), config.num_hidden_layers - 1
    name = f"model.layers.{last}.input_layernorm.weight"
    if name not in files:
        raise WeightsError(
            f"{folder}: tensor {name} is missing; config.json asks for {last + 1} layers"
        )
    name = f"model.layers.{last}.mamba.in_proj.weight"
    width = config.d_ssm + config.conv_dim + config.mamba_n_heads
    if name not in files:
        return  # `load` names it
    found = _entry(read_header(files[name]), files[name], name).get("shape")
    if found is not None and found[:1] != [width]:
        raise WeightsError(
            f"{files[name]}: tensor {name} has shape {found}; config.json asks for {width} rows"
        )


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return which file of `folder` holds each tensor: the single file, else those of the index.

    In this order, as transformers: a model that was saved over shards is the single file.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} does not exist; give the folder of a Falcon-H1 model")
    index, single = folder / INDEX, folder / _SINGLE
    if single.exists():
        return dict.fromkeys(read_header(single), single)
    if not index.exists():
        raise WeightsError(f"{folder} holds neither {_SINGLE} nor {INDEX}")
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): folder / Path(str(file)).name for name, file in weight_map.items()}
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WeightsError(f"{index} is not a safetensors index: {error!r}") from None
    for path in sorted(set(files.values())):
        if not path.exists():
            raise WeightsError(f"{path} is missing; {INDEX} names it as a shard")
    return files


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return the tensors of a safetensors header, after holding it against the file's size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise WeightsError(
                f"{path}: the header claims {length} bytes of a file of {size}; it is truncated or "
                "not a safetensors file"
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            if not 0 <= start <= end <= size - 8 - length:
                raise WeightsError(
                    f"{path}: tensor {name} claims bytes {start} to {end} of "
                    f"{size - 8 - length}; the file is truncated or its header lies"
                )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: the safetensors header is broken: {error!r}") from None
    with _open(path):
        return dict(header)


def _entry(header: dict[str, dict[str, Any]], path: Path, name: str) -> dict[str, Any]:
    if name not in header:
        raise WeightsError(f"{path}: tensor {name} is missing though the index names it")
    return header[name]


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a sound safetensors file: {error}") from None


def _assign(model: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Parameter(value))


def save(model: "FalconH1ForCausalLM", folder: Path) -> None:
    """Write config.json and model.safetensors; each appears whole or not at all.

    Raises WeightsError when they cannot be written.
    """
    tensors = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    dtypes = {str(t.dtype).removeprefix("torch.") for t in tensors.values()}
    config = model.config.with_dtype(dtypes.pop() if len(dtypes) == 1 else "float32")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
            staged = Path(temporary) / _SINGLE
            save_file(tensors, staged, metadata={"format": "pt"})
            config_file = Path(temporary) / "config.json"
            config_file.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
            for path in (staged, config_file):
                _sync(path)
                os.replace(path, folder / path.name)
        _sync(folder)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{folder}: cannot write the model: {error}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
