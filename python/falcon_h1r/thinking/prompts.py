"""Turns a problem into the token ids to think from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from falcon_h1r.errors import RequestError
from falcon_h1r.tokenizer import TextStream, decode_known

Message = dict[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]
"""A problem as text, token ids, or chat messages."""

THOUGHT, END_OF_THOUGHT = "<think>", "</think>"
WHAT_TO_GIVE = "give a text by itself, token ids as whole numbers, or a list of chat messages"
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

    def decode_stream(self) -> TextStream:
        """Return a decoder that takes ids one by one."""


def encode_prompt(
    tokenizer: ChatTokenizer | None, prompt: Prompt, system_prompt: str | None = None
) -> list[int]:
    """Return the token ids of a problem, asked as a user's turn where there is a chat template.

    `system_prompt` comes first, unless the messages bring their own. Token ids are taken as they
    are. No message can spell a control token. Raises RequestError for text without a tokenizer,
    and for what is neither text nor whole numbers nor messages.
    """
    if not isinstance(prompt, str):
        prompt = items_of(prompt)
        if not any(isinstance(item, dict) for item in prompt):
            return [_token_id(item) for item in prompt]
    if tokenizer is None:
        raise RequestError("this checkpoint has no tokenizer; give the prompt as token ids")
    if isinstance(prompt, str) and tokenizer.chat_template is None:
        return tokenizer.encode(prompt, add_special_tokens=True)
    messages = _messages(prompt)
    if system_prompt is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system_prompt})
    return tokenizer.encode_chat(messages)


def items_of(prompt: Any) -> list[Any]:
    """Return the items of one prompt or several, those of numpy and torch as Python's own.

    Raises RequestError for what has none to give: a text's are characters, a mapping's its names.
    """
    items = _plain(prompt)
    if isinstance(items, (str, bytes, bytearray, Mapping)) or not isinstance(items, Iterable):
        raise RequestError(f"a prompt is {items!r:.80}; {WHAT_TO_GIVE}")
    return [_plain(item) for item in items]


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
    text = decode_known(tokenizer, tail)
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
    return decode_known(tokenizer, list(token_ids[last + 1 :]))


def response_text(tokenizer: ThoughtTokenizer, token_ids: Sequence[int]) -> str:
    """The text of a response with the marks of its thought, also where those are control tokens."""
    marks = {tokenizer.token_to_id(mark): mark for mark in (THOUGHT, END_OF_THOUGHT)}
    hidden = {i: mark for i, mark in marks.items() if i is not None and not tokenizer.decode([i])}
    text, start = "", 0
    for position, token_id in enumerate(token_ids):
        if token_id in hidden:
            text += decode_known(tokenizer, list(token_ids[start:position])) + hidden[token_id]
            start = position + 1
    return text + decode_known(tokenizer, list(token_ids[start:]))


def without_earlier_thoughts(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with what an assistant thought before its answers left out."""
    return [
        message | {"content": message["content"].rpartition(END_OF_THOUGHT)[2].lstrip("\n")}
        if message["role"] == "assistant"
        else message
        for message in messages
    ]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _token_id(item: Any) -> int:
    if isinstance(item, bool) or not isinstance(item, int):
        raise RequestError(f"a prompt holds {item!r:.80}, which is no token id; {WHAT_TO_GIVE}")
    return item


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
