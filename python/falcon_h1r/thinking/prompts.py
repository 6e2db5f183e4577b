"""Turns a problem into the token ids to think from."""

from collections.abc import Sequence
from typing import Any, Protocol

from falcon_h1r.errors import RequestError

Message = dict[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]
"""A problem as text, token ids, or chat messages."""

THOUGHT, END_OF_THOUGHT = "<think>", "</think>"
_TAIL = 16
"""Tokens at a prompt's end in which a template may open a thought."""


class ChatTokenizer(Protocol):
    """The part of `Tokenizer` that prompts need."""

    chat_template: str | None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return token ids."""

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a conversation up to where the assistant speaks next."""


class ThoughtTokenizer(Protocol):
    """The part of `Tokenizer` that finds where a thought begins and ends."""

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids, control tokens left out."""


def encode_prompt(
    tokenizer: ChatTokenizer | None, prompt: Prompt, system_prompt: str | None = None
) -> list[int]:
    """Return the token ids of a problem, asked as a user's turn where there is a chat template.

    `system_prompt` comes first, unless the messages bring their own. Token ids are taken as they
    are. No message can spell a control token. Raises RequestError for text without a tokenizer.
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
    return tokenizer.encode_chat(messages)


def opens_thought(tokenizer: "ThoughtTokenizer | None", prompt: Sequence[int]) -> bool:
    """Whether a prompt ends inside a thought that its chat template has opened."""
    if tokenizer is None:
        return False
    tail = [int(token_id) for token_id in prompt[-_TAIL:]]
    first, last = tokenizer.token_to_id(THOUGHT), tokenizer.token_to_id(END_OF_THOUGHT)
    if first is not None:
        ends = [i for i, token_id in enumerate(tail) if token_id == last]
        begins = [i for i, token_id in enumerate(tail) if token_id == first]
        return bool(begins) and max(begins) > max(ends, default=-1)
    text = tokenizer.decode(tail)
    return text.rfind(THOUGHT) > text.rfind(END_OF_THOUGHT)


def after_thought(
    tokenizer: ThoughtTokenizer | None, text: str, token_ids: Sequence[int], is_open: bool
) -> str | None:
    """What was said after the thought; None where that is still open (`is_open`: the prompt opened
    one, and the text did not end by itself).

    As a control token `</think>` is left out of the text: then it is looked for among the tokens.
    Where it stands in the text, `extract` and chat templates see it.
    """
    if END_OF_THOUGHT in text:
        return text
    end = None if tokenizer is None else tokenizer.token_to_id(END_OF_THOUGHT)
    if tokenizer is None or end is None or end not in token_ids:
        return None if is_open else text
    last = max(i for i, token_id in enumerate(token_ids) if token_id == end)
    return tokenizer.decode(list(token_ids[last + 1 :]))


def without_earlier_thoughts(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with what an assistant thought before its answers left out."""
    return [
        message | {"content": message["content"].rpartition(END_OF_THOUGHT)[2].lstrip("\n")}
        if message["role"] == "assistant"
        else message
        for message in messages
    ]


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
