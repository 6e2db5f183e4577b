"""Chat messages: earlier thoughts left out, and strangers kept from steering the model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ControlMask", "without_thoughts"]

_THOUGHT = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_THOUGHT_END = "</think>"
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")

# The last plane of private use: stand-ins for control tokens while a template runs.
_FIRST_STAND_IN = 0x10_0000
_NUM_STAND_INS = 0xFFFE


def without_thoughts(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with the thoughts of assistant turns before the last user turn left out.

    A thought is `<think>...</think>` and the space behind it, or all before a lone `</think>`
    (templates may open the thought in the prompt), or a field such as `reasoning_content`.
    """
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    last_user = users[-1] if users else -1
    return [
        _without_thought(message)
        if i < last_user and message.get("role") == "assistant"
        else message
        for i, message in enumerate(messages)
    ]


def _without_thought(message: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if key not in _THOUGHT_FIELDS}
    content = kept.get("content")
    if isinstance(content, str):
        content = _THOUGHT.sub("", content)
        kept["content"] = (
            content.rpartition(_THOUGHT_END)[2].lstrip() if (_THOUGHT_END in content) else content
        )
    return kept


class ControlMask:
    """Hides control tokens in what others wrote, and finds them again in the rendered text.

    Each becomes one character of private use, so that the template cannot take it for its own; a
    character of that kind in the text itself is left as it is unless it is a stand-in, and then
    reads as U+FFFD. The texts of a list of parts are looked at as one: a token that begins in one
    part and ends in the next is broken by a stand-in for its last character before the border.
    What a template itself builds out of several other strings is the template's.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        """Take the contents of all control tokens."""
        ordered = sorted(tokens, key=len, reverse=True)[: _NUM_STAND_INS // 2]
        characters = sorted(set().union(*ordered))[: _NUM_STAND_INS // 2]
        hidden = list(dict.fromkeys([*ordered, *characters]))
        self._stand_in = {text: chr(_FIRST_STAND_IN + i) for i, text in enumerate(hidden)}
        self._text = {mark: text for text, mark in self._stand_in.items()}
        self._any_token = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self._any_mark = re.compile("([" + "".join(self._text) + "])" if hidden else r"(?!)")

    def hide(self, value: Any) -> Any:
        """Return the value with control tokens hidden in every string, keys included."""
        if isinstance(value, str):
            clean = self._any_mark.sub("\ufffd", value)
            return self._any_token.sub(lambda found: self._stand_in[found.group()], clean)
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return self._broken([self.hide(item) for item in value])
        return value

    def _broken(self, items: list[Any]) -> list[Any]:
        """The hidden items of a list, where a token crosses from one text to the next broken."""
        parts = [i for i in items if isinstance(i, dict) and isinstance(i.get("text"), str)]
        whole = "".join(part["text"] for part in parts)
        crossing = [found.span() for found in self._any_token.finditer(whole)]
        end = 0
        for part in parts if crossing else ():
            end += len(part["text"])
            if part["text"] and any(first < end < last for first, last in crossing):
                part["text"] = part["text"][:-1] + self._stand_in[part["text"][-1]]
        return items

    def segments(self, text: str) -> list[tuple[str, bool]]:
        """Return the rendered text as (text, may hold control tokens)."""
        parts = self._any_mark.split(text)
        return [
            (self._text[part], False) if part in self._text else (part, True)
            for part in parts
            if part
        ]
