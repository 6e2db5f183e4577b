"""Turns a problem into the token ids to think from."""

from collections.abc import Sequence
from typing import Any, Protocol

from falcon_h1r.errors import RequestError

Message = dict[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]
"""A problem as text, token ids, or chat messages."""

END_OF_THOUGHT = "</think>"


class ChatTokenizer(Protocol):
    """The part of `Tokenizer` that prompts need."""

    @property
    def chat_template(self) -> str | None:
        """Return the chat template, when the checkpoint has one."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return token ids."""

    def encode_segments(self, segments: list[tuple[str, bool]]) -> list[int]:
        """Return token ids of texts in a row; True lets control tokens be read in one."""

    def apply_chat_template(
        self, messages: list[Message], add_generation_prompt: bool = True
    ) -> str:
        """Return the text of a conversation."""


def encode_prompt(
    tokenizer: ChatTokenizer | None, prompt: Prompt, system_prompt: str | None = None
) -> list[int]:
    """Return the token ids of a problem, asked as a user's turn where there is a chat template.

    `system_prompt` comes first, unless the messages bring their own. Token ids are taken as they
    are. Raises RequestError for text without a tokenizer.
    """
    if not isinstance(prompt, str) and not any(isinstance(item, dict) for item in prompt):
        return [int(token_id) for token_id in prompt]  # type: ignore[arg-type]
    if tokenizer is None:
        raise RequestError("this checkpoint has no tokenizer; give the prompt as token ids")
    if isinstance(prompt, str) and tokenizer.chat_template is None:
        return tokenizer.encode(prompt, add_special_tokens=True)
    messages = _messages(prompt)
    if system_prompt is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system_prompt})
    if any(_has_control_tokens(tokenizer, message["content"]) for message in messages):
        return _encode_apart(tokenizer, messages)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    return tokenizer.encode(text)


def without_earlier_thoughts(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with what an assistant thought before its answers left out."""
    return [
        message | {"content": message["content"].rpartition(END_OF_THOUGHT)[2].lstrip("\n")}
        if message["role"] == "assistant"
        else message
        for message in messages
    ]


def _has_control_tokens(tokenizer: ChatTokenizer, content: str) -> bool:
    """Return whether a content spells a control token, which it must not become."""
    return tokenizer.encode_segments([(content, True)]) != tokenizer.encode_segments(
        [(content, False)]
    )


def _encode_apart(tokenizer: ChatTokenizer, messages: list[Message]) -> list[int]:
    """Encode a conversation whose contents spell control tokens: those are read as plain text.

    Each content is rendered as a mark of private-use characters and put in its place afterwards.
    """
    marks = [f"\ue000{index}\ue001" for index in range(len(messages))]
    marked = [m | {"content": mark} for m, mark in zip(messages, marks, strict=True)]
    text = tokenizer.apply_chat_template(marked, add_generation_prompt=True)
    segments: list[tuple[str, bool]] = []
    for message, mark in zip(messages, marks, strict=True):
        before, found, text = text.partition(mark)
        if not found:
            raise RequestError(
                f"the {message['role']} message spells a control token, and the chat template does "
                "not show it as it is: reword it"
            )
        segments += [(before, True), (message["content"], False)]
    return tokenizer.encode_segments([*segments, (text, True)])


def _messages(prompt: Prompt) -> list[Message]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    messages: list[Message] = list(prompt)  # type: ignore[arg-type]
    for message in messages:
        texts = [message.get(k) for k in ("role", "content")] if isinstance(message, dict) else []
        if not texts or not all(isinstance(text, str) for text in texts):
            raise RequestError(
                f"a message is {message!r:.80}; it needs a role and content, as text"
            )
    return without_earlier_thoughts(messages)
