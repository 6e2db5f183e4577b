"""Where a model's files are: a folder, or the Hugging Face hub's copy of one; reading its JSON.

Imports no torch.
"""

import json
from pathlib import Path
from typing import Any

from falcon_h1r.errors import ConfigError, FalconH1RError


def model_folder(
    name: str | Path,
    patterns: tuple[str, ...] = ("*.json", "*.safetensors", "*.jinja"),
    error: type[FalconH1RError] = ConfigError,
) -> Path:
    """Return the folder `name`; of a hub id ("owner/name") the files of `patterns` are fetched.

    The hub needs the extra "hub". Raises `error`, naming what is missing and what to do.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    text = str(name)
    if folder.exists() or text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise error(f"no such folder: {text!r}; give the folder of a model or a hub id")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise error(
            f"no such folder: {text!r}; if it is a hub id, run pip install 'falcon-h1r[hub]'"
        ) from None
    try:
        return Path(snapshot_download(text, allow_patterns=list(patterns)))
    except Exception as problem:
        # The hub client raises a dozen classes of its own and of its HTTP library.
        raise error(f"no such folder: {text!r}; {_remedy(problem)}") from problem


def _remedy(problem: Exception) -> str:
    """What a failure of the hub's client means, and what to do; classes are told by their names,
    so that the client is not imported for them."""
    names = {kind.__name__ for kind in type(problem).__mro__}
    if "GatedRepoError" in names:
        return "on the hub it is gated: accept its terms there, then log in (hf auth login)"
    if "RepositoryNotFoundError" in names:
        return "the hub has no such model, or it is private: check the name, or hf auth login"
    if "LocalEntryNotFoundError" in names:
        return (
            "it is not in the hub's cache and the hub cannot be reached: "
            "check the network, or give a folder"
        )
    return f"the hub says: {' '.join(str(problem).split())[:300]}"


def read_object(path: Path, error: type[FalconH1RError] = ConfigError) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one where there is no file.

    Raises `error`, naming the file, when it cannot be read or holds something else.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"cannot read {path}: {problem}") from None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"broken JSON in {path}: {problem}") from None
    if not isinstance(value, dict):
        raise error(f"{path} is not a JSON object: replace the file")
    return value


def token_ids_in(config: dict[str, Any], name: str) -> list[int]:
    """Return the ids that a config names as `name` ("eos", "bos", "pad"): none, one or several."""
    value = config.get(f"{name}_token_id")
    return [i for i in (value if isinstance(value, list) else [value]) if type(i) is int]
