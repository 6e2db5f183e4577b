"""Problems become token ids; earlier thoughts stay out."""

from collections.abc import Sequence
from typing import Any

import pytest

from falcon_h1r.errors import RequestError
from falcon_h1r.thinking.prompts import encode_prompt


class Words:
    """A tokenizer whose ids are the characters; its template shows roles."""

    chat_template: str | None = "yes"

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [1] * add_special_tokens + [ord(c) for c in text]

    def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        lines = [f"{m['role']}: {m['content']}\n" for m in messages]
        return self.encode("".join(lines) + "assistant: ")


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


@pytest.mark.parametrize("messages", [[{"text": "x"}], [{"role": "user", "content": 3}], ["x"]])
def test_a_message_needs_a_role_and_content(messages: Any) -> None:
    with pytest.raises(RequestError, match="role"):
        encode_prompt(Words(), [{"role": "user", "content": "x"}, *messages])


@pytest.mark.parametrize("prompt", ["x", [{"role": "user", "content": "x"}]])
def test_text_needs_a_tokenizer(prompt: Any) -> None:
    with pytest.raises(RequestError, match="token ids"):
        encode_prompt(None, prompt)
