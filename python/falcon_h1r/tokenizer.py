"""Tokenizer: byte-level BPE with the ids of Hugging Face `tokenizers`, plus chat templates.

The work is done in Rust (`rust/tokenizer`); this file finds files and adds what a model folder
says beside its `tokenizer.json`. It imports no torch.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from falcon_h1r import _rust
from falcon_h1r.chat import ControlMask, without_thoughts
from falcon_h1r.errors import TokenizerError
from falcon_h1r.hub import model_folder, read_object, token_ids_in

__all__ = ["Tokenizer"]

_CONFIG_FILES = ("tokenizer_config.json", "generation_config.json", "config.json")
_TOKENIZER_FILES = ("tokenizer.json", *_CONFIG_FILES, "chat_template.*")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer(_rust.Tokenizer):
    """A tokenizer that never changes; threads share it freely, and it pickles.

    Build one with `from_pretrained` or `from_file`. `encode` gives the ids that Hugging Face
    `tokenizers` gives for the same file (Unicode 16). Lone surrogates are read as U+FFFD.
    """

    chat_template: str | None
    """The Jinja template of the model folder, if it has one."""
    bos_token_id: int | None
    """Id of the token that begins a text, where the model folder names one."""
    eos_token_ids: tuple[int, ...]
    """Ids that end a text or a turn, as the model folder names them; often several."""
    pad_token_id: int | None
    """Id of the padding token, where the model folder names one."""
    tool_template: str | None
    """The template that is taken where tools are given, if the model folder has one."""
    chat_tokens: Mapping[str, str] | None
    """`bos_token` and its like as templates see them; None: by the ids."""

    def __init__(
        self,
        json: str,
        *,
        chat_template: str | None = None,
        bos_token_id: int | None = None,
        eos_token_ids: Sequence[int] = (),
        pad_token_id: int | None = None,
        tool_template: str | None = None,
        chat_tokens: Mapping[str, str] | None = None,
    ) -> None:
        """Load from the text of a `tokenizer.json`.

        Raises `TokenizerError` when the text is broken or names a part that is not supported.
        """
        self.chat_template = chat_template
        self.bos_token_id = bos_token_id
        self.eos_token_ids = tuple(eos_token_ids)
        self.pad_token_id = pad_token_id
        self.tool_template = tool_template
        self.chat_tokens = chat_tokens

    @property
    def eos_token_id(self) -> int | None:
        """The first of `eos_token_ids`: the tokenizer's own, where it names one."""
        return self.eos_token_ids[0] if self.eos_token_ids else None

    @staticmethod
    def is_in(folder: str | Path) -> bool:
        """Whether a model folder has a tokenizer."""
        return (Path(folder) / "tokenizer.json").is_file()

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        """Load a `tokenizer.json`. Raises `TokenizerError` naming the file."""
        try:
            return cls(_read(Path(path)))
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    @classmethod
    def from_pretrained(cls, folder_or_repo_id: str | Path) -> "Tokenizer":
        """Load from a model folder, or from the Hugging Face hub by its id ("owner/name").

        The hub needs the extra "hub". Raises `TokenizerError` when there is no such folder, no
        `tokenizer.json` in it, or one that cannot be used.
        """
        folder = model_folder(folder_or_repo_id, _TOKENIZER_FILES, TokenizerError)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(f"no tokenizer.json in {folder}: give a folder that has one")
        text = _read(path)
        configs = [read_object(folder / name, TokenizerError) for name in _CONFIG_FILES]
        try:
            tokenizer = cls(text)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None
        tokenizer.chat_template, tokenizer.tool_template = _chat_templates(folder, configs[0])
        tokenizer.bos_token_id = next(iter(_special_ids(tokenizer, "bos", configs)), None)
        tokenizer.eos_token_ids = tuple(_special_ids(tokenizer, "eos", configs))
        tokenizer.pad_token_id = next(iter(_special_ids(tokenizer, "pad", configs)), None)
        if configs[0]:  # what templates see is what the tokenizer's own file names
            names = {name: _special_token(configs[0], name) for name in ("bos", "eos", "pad")}
            tokenizer.chat_tokens = {f"{n}_token": t for n, t in names.items() if t is not None}
        return tokenizer

    def extend_for_reasoning(self, symbols: Sequence[str] | None = None) -> "Tokenizer":
        """Return a tokenizer in which each symbol, bare and after a space, is one token.

        `symbols`: Unicode characters or LaTeX commands; None: those of `reasoning_symbols()`. Base
        ids stay; new ones follow the last, for which the model's embedding must grow. Raises
        `TokenizerError` for ASCII operators (they lengthen text).
        """
        given = None if symbols is None else list(symbols)
        return Tokenizer(self.reasoning_json(given), **self._state())

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        keep_thoughts: bool = False,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str:
        """Return the text of a conversation, as the model's template writes it.

        Thoughts (`<think>...</think>`) of assistant turns before the last user turn are left out
        unless `keep_thoughts`. `variables` are seen by the template. Encode the result with
        `encode`; for messages of strangers take `encode_chat`. Raises `TokenizerError` when there
        is no template, it fails, or a message is not JSON.
        """
        turns = [dict(m) for m in messages]
        shown = turns if keep_thoughts else without_thoughts(turns)
        context = self._chat_context(shown, add_generation_prompt, tools, variables)
        return _rust.render_chat(self._template(chat_template, tools), context)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        keep_thoughts: bool = False,
        chat_template: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """Return the ids of a conversation in which no message can spell a control token.

        As `encode(apply_chat_template(...))`, except that control tokens written inside messages or
        tools are ordinary text; those of the template itself count. The model's own thoughts that
        `keep_thoughts` leaves in are text too.
        """
        turns = [dict(m) for m in messages]
        shown = turns if keep_thoughts else without_thoughts(turns)
        mask = ControlMask([token for token, _ in self.control_tokens()])
        masked = self._chat_context(
            mask.hide(shown), add_generation_prompt, mask.hide(tools), mask.hide(variables)
        )
        text = _rust.render_chat(self._template(chat_template, tools), masked)
        return self.encode_segments(mask.segments(text))

    def _template(self, given: str | None, tools: object) -> str:
        template = given or (self.tool_template if tools else None) or self.chat_template
        if template is None:
            raise TokenizerError("this model has no chat template: give one as chat_template")
        return template

    def _chat_context(self, messages: Any, generate: bool, tools: Any, variables: Any) -> str:
        names = {
            "bos_token": self.bos_token_id,
            "eos_token": self.eos_token_id,
            "pad_token": self.pad_token_id,
        }
        by_id = {
            name: self.id_to_token(token_id)
            for name, token_id in names.items()
            if token_id is not None
        }
        tokens = by_id if self.chat_tokens is None else dict(self.chat_tokens)
        context = {"messages": messages, "tools": tools, "documents": None,
                   "add_generation_prompt": generate}  # fmt: skip
        try:
            text = json.dumps(tokens | context | variables, ensure_ascii=False)
            return _SURROGATE.sub("\ufffd", text)
        except (TypeError, ValueError, RecursionError) as error:
            raise TokenizerError(f"messages, tools or variables are not JSON: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json` that Hugging Face `tokenizers` loads with the same ids.

        The file appears whole or not at all; raises `TokenizerError` when it cannot be written.
        """
        path = Path(path)
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with staged.open("w", encoding="utf-8") as file:
                file.write(self.to_json())
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                staged.unlink()
            raise TokenizerError(f"cannot write {path}: {error.strerror}") from None

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.to_json(), self._state())

    def _state(self) -> dict[str, Any]:
        """What the constructor takes beside the text of the file."""
        return {
            "chat_template": self.chat_template,
            "bos_token_id": self.bos_token_id,
            "eos_token_ids": self.eos_token_ids,
            "pad_token_id": self.pad_token_id,
            "tool_template": self.tool_template,
            "chat_tokens": self.chat_tokens,
        }


class TextStream(Protocol):
    """Decodes one token at a time."""

    def push(self, token_id: int) -> str:
        """Return the text that became complete."""

    def flush(self) -> str:
        """Return what was held back."""


class TextDecoder(Protocol):
    """The part of `Tokenizer` that `decode_known` needs."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids."""

    def decode_stream(self) -> TextStream:
        """Return a fresh streaming decoder."""


def decode_known(tokenizer: TextDecoder, token_ids: list[int]) -> str:
    """Return the text of token ids; those that the tokenizer has no token for say nothing.

    A model may have rows beyond its tokenizer's last token, and draw them.
    """
    try:
        return tokenizer.decode(token_ids)
    except TokenizerError:
        stream = tokenizer.decode_stream()
        pieces = []
        for token_id in token_ids:
            with contextlib.suppress(TokenizerError):
                pieces.append(stream.push(token_id))
        return "".join([*pieces, stream.flush()])


def _rebuild(text: str, state: dict[str, Any]) -> Tokenizer:
    return Tokenizer(text, **state)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot read {path}: {error}") from None


def _chat_templates(folder: Path, config: dict[str, Any]) -> tuple[str | None, str | None]:
    """(the template, the one for tools).

    `chat_template.jinja`, else `chat_template.json`, else what `tokenizer_config.json` says.
    Of a list of named templates those named "default" and "tool_use", as transformers takes them.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        return _read(path), None
    template = read_object(folder / "chat_template.json", TokenizerError).get("chat_template")
    if template is None:
        template = config.get("chat_template")
    if isinstance(template, Sequence) and not isinstance(template, str):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        found = named.get("default"), named.get("tool_use")
    else:
        found = template, None
    plain, tools = (text if isinstance(text, str) else None for text in found)
    return plain, tools


def _special_token(config: dict[str, Any], name: str) -> str | None:
    """The bos, eos or pad token that `tokenizer_config.json` names."""
    token = config.get(f"{name}_token")
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _special_ids(tokenizer: Tokenizer, name: str, configs: Sequence[dict[str, Any]]) -> list[int]:
    """Ids of the bos, eos or pad token by every file that names one, each id once."""
    found: list[int] = []
    if (token := _special_token(configs[0], name)) is not None:
        token_id = tokenizer.token_to_id(token)
        found += [] if token_id is None else [token_id]
    for config in configs[1:]:
        found += [i for i in token_ids_in(config, name) if i not in found]
    return found
