"""Where a model's files are: a folder, or the Hugging Face hub's copy of one. Imports no torch."""

from pathlib import Path

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
        reason = " ".join(str(problem).split())[:300]
        raise error(f"no such folder: {text!r}, and the hub says: {reason}") from problem
