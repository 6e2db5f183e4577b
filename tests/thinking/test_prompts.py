"""Problems become token ids; earlier thoughts stay out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from falcon_h1r.errors import RequestError, TokenizerError
from falcon_h1r.thinking.prompts import after_thought, encode_prompt, opens_thought


class Words:
    """A tokenizer whose ids are the characters; its template shows roles."""

    chat_template: str | None = "yes"

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [1] * add_special_tokens + [ord(c) for c in text]

    def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        lines = [f"{m['role']}: {m['content']}\n" for m in messages]
        return self.encode("".join(lines) + "assistant: ")


class Narrow:
    """Knows the characters below 128; `</think>` is the one token "|", if `end` says so."""

    def __init__(self, end: int | None = None) -> None:
        self.end = end

    def token_to_id(self, token: str) -> int | None:
        return self.end if token == "</think>" else None

    def decode(self, ids: list[int]) -> str:
        if max(ids, default=0) >= 128:
            raise TokenizerError("unknown id")
        return "".join(map(chr, ids))

    def decode_stream(self) -> "Narrow":
        return self

    def push(self, token_id: int) -> str:
        return self.decode([token_id])

    def flush(self) -> str:
        return ""


def text_of(prompt: Any, system_prompt: str | None = None) -> str:
    return "".join(map(chr, encode_prompt(Words(), prompt, system_prompt)))


def test_a_text_is_a_users_turn() -> None:
    assert text_of("2+2?") == "user: 2+2?\nassistant: "
    assert text_of("2+2?", "Think.") == "system: Think.\nuser: 2+2?\nassistant: "


def test_messages_bring_their_own_system_prompt() -> None:
    messages = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi"}]
    assert text_of(messages, "Think.") == "system: Short.\nuser: Hi\nassistant: "
    assert messages[0]["content"] == "Short." and len(messages) == 2


def test_earlier_thoughts_are_left_out() -> None:
    messages = [
        {"role": "user", "content": "</think> what is that?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\nA tag."},
        {"role": "user", "content": "Thanks"},
    ]
    assert text_of(messages) == (
        "user: </think> what is that?\nassistant: A tag.\nuser: Thanks\nassistant: "
    )


def test_without_a_template_the_text_is_the_prompt() -> None:
    tokenizer = Words()
    tokenizer.chat_template = None
    assert encode_prompt(tokenizer, "ab") == [1, 97, 98]


def test_token_ids_pass() -> None:
    assert encode_prompt(None, [3, 4]) == [3, 4]
    assert encode_prompt(None, []) == []


@pytest.mark.parametrize(
    "prompt", [np.array([3, 4]), [np.int64(3), np.int32(4)], (3, 4), iter([3, 4])]
)
def test_token_ids_may_be_numpys(prompt: Any) -> None:
    token_ids = encode_prompt(None, prompt)
    assert token_ids == [3, 4] and {type(i) for i in token_ids} == {int}


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ([10.9, 11.2], "10.9"),
        (["12", "13"], "'12'"),
        (["What is 1 + 1?"], "'What is 1 [+] 1[?]'"),
        ([3, True], "True"),
        ([np.float32(0.5)], "0.5"),
        (np.array([1.5]), "1.5"),
        ([[3, 4]], r"\[3, 4\]"),
        ([None], "None"),
        (None, "None"),
        (5, "5"),
        (b"ab", "b'ab'"),
        ({"role": "user", "content": "x"}, "'role'"),
    ],
    ids=repr,
)
def test_what_is_no_prompt_is_refused(prompt: Any, named: str) -> None:
    with pytest.raises(RequestError, match=rf"{named}.*; give a text") as caught:
        encode_prompt(Words(), prompt)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("messages", [[{"text": "x"}], [{"role": "user", "content": 3}], ["x"]])
def test_a_message_needs_a_role_and_content(messages: Any) -> None:
    with pytest.raises(RequestError, match="role"):
        encode_prompt(Words(), [{"role": "user", "content": "x"}, *messages])


@pytest.mark.parametrize("prompt", ["x", [{"role": "user", "content": "x"}]])
def test_text_needs_a_tokenizer(prompt: Any) -> None:
    with pytest.raises(RequestError, match="token ids"):
        encode_prompt(None, prompt)


def test_ids_that_the_tokenizer_lacks_say_nothing() -> None:
    said = [500, ord("3"), ord("|"), ord("4"), 500, ord("2")]
    assert after_thought(Narrow(ord("|")), "3|42", said, is_open=True) == "42"
    opened = [500, *map(ord, "<think>"), 500]
    assert opens_thought(Narrow(), opened)
    assert not opens_thought(Narrow(), [*opened, *map(ord, "</think>")])
