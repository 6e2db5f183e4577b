"""`falcon-h1r generate`: streaming, chat over several turns, ids, refusals, Ctrl-C."""

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest

from falcon_h1r.engine.outputs import EngineEvent
from falcon_h1r.errors import RequestError
from falcon_h1r.thinking.deepconf import ThinkingDefaults


class Template:
    """A tokenizer with a chat template that opens a thought; its markers are plain text."""

    chat_template = "yes"

    def token_to_id(self, token: str) -> int | None:
        return None

    def decode(self, ids: list[int]) -> str:
        return "assistant<think>"


class Echo:
    """An LLM that thinks, then answers with the number of the call; ids 1, 2 without tokenizer."""

    def __init__(self) -> None:
        self.tokenizer: Any = Template()
        self.thinking_defaults = ThinkingDefaults(temperature=0.3)
        self.prompts: list[Any] = []
        self.params: Any = None
        self.interrupt_call = -1

    def encode(self, prompt: Any) -> tuple[None, list[int]]:
        return None, [7]

    def stream(self, prompt: Any, params: Any) -> Iterator[EngineEvent]:
        self.prompts.append(copy.deepcopy(prompt))
        self.params = params
        call = len(self.prompts)
        yield EngineEvent("tokens", 0, 0, (1,), "hm\x1b[2J\n</think>\n")
        if call == self.interrupt_call:
            raise KeyboardInterrupt
        yield EngineEvent("tokens", 0, 0, (2,), f"answer {call}")
        yield EngineEvent("finished", 0, 0, (), "!", "stop")


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Echo:
    llm = Echo()
    monkeypatch.setattr("falcon_h1r.cli.generate.load_llm", lambda args: llm)
    return llm


def feed(monkeypatch: pytest.MonkeyPatch, data: str | bytes) -> None:
    data = data.encode() if isinstance(data, str) else data
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_prompt_streams(echo: Echo, status_of: Any, capsys: Any) -> None:
    argv = ["generate", "Once", "--max-tokens", "9", "--top-k", "4", "--seed", "5", "--stop", "x"]
    assert status_of(argv) == 0
    assert capsys.readouterr().out == "hm\\x1b[2J\n</think>\nanswer 1!\n"
    assert echo.prompts == ["Once"]
    params = echo.params
    assert (params.max_tokens, params.top_k, params.seed, params.stop) == (9, 4, 5, ("x",))
    assert (params.temperature, params.top_p) == (0.3, 0.95)


def test_a_pipe_is_the_prompt(
    echo: Echo, status_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    feed(monkeypatch, "two\nlines\n")
    assert status_of(["generate"]) == 0
    assert echo.prompts == ["two\nlines\n"]


def test_a_chat_leaves_earlier_thoughts_out(
    echo: Echo, status_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    feed(monkeypatch, "second\n\nthird\n")
    assert status_of(["generate", "first", "--chat", "--system", "Be brief."]) == 0
    assert echo.prompts[-1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer 1!"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "answer 2!"},
        {"role": "user", "content": "third"},
    ]
    assert capsys.readouterr().out.count("hm") == 3


def test_a_thought_that_was_cut_off_is_left_out_too(
    echo: Echo, status_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(prompt: Any, params: Any) -> Iterator[EngineEvent]:
        echo.prompts.append(copy.deepcopy(prompt))
        yield EngineEvent("tokens", 0, 0, (1,), "I wonder, the answer is 5 or")
        yield EngineEvent("finished", 0, 0, (), "", "length")

    monkeypatch.setattr(echo, "stream", cut)
    feed(monkeypatch, "one\ntwo\n")
    assert status_of(["generate", "--chat"]) == 0
    assert echo.prompts[1][1] == {"role": "assistant", "content": ""}


def test_ctrl_c_ends_an_answer_not_the_chat(
    echo: Echo, status_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo.interrupt_call = 1
    feed(monkeypatch, "one\ntwo\n")
    assert status_of(["generate", "--chat"]) == 0
    assert echo.prompts[1] == [{"role": "user", "content": "two"}]
    echo.interrupt_call = 3
    assert status_of(["generate", "x"]) == 130


def test_a_checkpoint_without_tokenizer(echo: Echo, status_of: Any, capsys: Any) -> None:
    echo.tokenizer = None
    assert status_of(["generate", "--token-ids", "3, 4,5"]) == 0
    assert echo.prompts == [[3, 4, 5]] and capsys.readouterr().out == "1 2 \n"
    assert status_of(["generate", "--chat"]) == 2


@pytest.mark.parametrize(
    "argv",
    [
        ["x", "--token-ids", "1"],
        ["--chat", "--token-ids", "1"],
        ["--token-ids", "1,b"],
        [""],
        ["a\ud800"],
        ["a\ud800", "--chat"],
        ["x", "--temperature", "nan"],
        ["x", "--top-p", "1.5"],
        ["x", "--max-tokens", "0"],
        ["x", "--stop", ""],
        ["x", "--top-k", "-1"],
    ],
    ids=" ".join,
)
def test_refused(argv: list[str], echo: Echo, status_of: Any, capsys: Any) -> None:
    assert status_of(["generate", *argv]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and echo.prompts == []


@pytest.mark.parametrize("argv", [["generate"], ["generate", "--chat"]], ids=" ".join)
def test_standard_input_that_is_no_text_is_refused(
    argv: list[str], echo: Echo, status_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    feed(monkeypatch, b"caf\xe9\n")
    assert status_of(argv) == 2
    assert "not UTF-8 at byte 3" in capsys.readouterr().err and echo.prompts == []


def test_a_refused_prompt_writes_nothing(
    echo: Echo, status_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refuse(prompt: Any, params: Any) -> Iterator[EngineEvent]:
        raise RequestError("the prompt has 2000 tokens")
        yield

    monkeypatch.setattr(echo, "stream", refuse)
    assert status_of(["generate", "x"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
