r"""Records of known formats: chains of thought as JSON, GSM8K's own, MATH's own.

GSM8K (Cobbe and others, 2021): {"question", "answer"}; the answer is a solution with calculator
marks `<<48/2=24>>` and a last line `#### 72`. MATH (Hendrycks and others, 2021): {"problem",
"solution", "level": "Level 5", "type"}; the answer stands in the solution's last `\boxed{}`.
"""

import re
from collections.abc import Mapping
from typing import Any

from falcon_h1r.thinking.answers import canonical, equal, extract
from falcon_h1r.train.curation.drafts import Broken, Draft, Record

MARK = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_NAMES = {
    "problem": ("problem", "question", "prompt", "instruction", "input"),
    "thought": ("thought", "reasoning_content", "reasoning", "thinking", "cot", "rationale"),
    "answer": ("answer", "final_answer", "expected_answer", "reference_answer", "target", "gold"),
    "response": ("response", "solution", "output", "completion", "generation"),
    "level": ("level", "difficulty"),
    "family": ("family", "task", "subject", "type"),
    "style": ("style",),
}
"""Column -> names it is known by, the first that is there."""
_ANSWER_LINE = re.compile(
    r"\n[^\n]*(?:\banswer(?:\s+is|\s*:)[^\n]*|####[ \t]*[^\n]*)\s*$", re.IGNORECASE
)
_LEVELS = {"easy": 1, "medium": 2, "middle": 2, "hard": 3}


def chain(
    row: Any, where: str, source: str, family: str, style: str, fields: Mapping[str, str]
) -> Record:
    """A record of a chain-of-thought set: problem, thought, answer; or problem and response.

    A response holds the thought before `</think>`, or is all thought, and ends on its answer.
    Chat `messages` count as prompt and response: one question and one answer, behind a system
    message or not, which is left out. Where answer and response are both there, they
    must agree, and a filter sees to that. Rows of GSM8K and MATH are known by their marks.
    """
    if not isinstance(row, dict):
        return Broken(where=where, reason="broken line", message="not an object")
    if "question" in row and "\n####" in str(row.get("answer")):
        return gsm8k(row, where, source, family, style)
    if str(row.get("level")).startswith("Level ") and "\\boxed" in str(row.get("solution")):
        return math(row, where, source, style)
    values = {column: _value(row, names, fields.get(column)) for column, names in _NAMES.items()}
    if isinstance(row.get("messages"), list):
        turns = _turns(row["messages"])
        if turns is None:
            roles = ", ".join(str(_role(m)) for m in row["messages"][:6])
            message = f"messages has the turns {roles}; one of user and one of assistant is needed"
            return Broken(where=where, reason="broken line", message=message)
        values |= turns
    problem = values["problem"]
    if "instruction" in row and problem == row["instruction"] and _is_text(row.get("input")):
        problem = f"{problem}\n{row['input']}"  # Alpaca's form
    if not isinstance(problem, str) or not problem.strip():
        return Broken(where=where, reason="broken line", message="no problem")
    thought, final, is_cut = values["thought"], None, row.get("finish_reason") == "length"
    if isinstance(values["response"], str):
        said, final, cut = _split(values["response"])
        thought, is_cut = (said if thought is None else thought), is_cut or cut
    answer = values["answer"]
    answer = str(answer) if isinstance(answer, int | float) else answer
    has_reference = isinstance(answer, str) and bool(answer.strip())
    if not has_reference:
        answer = final
    if answer is None and is_cut:
        answer = ""  # the cut is what is wrong with it
    if answer is None:
        return Broken(where=where, reason="no answer", message="no answer")
    return Draft(
        where=where,
        problem=problem.strip(),
        thought=thought.strip() if isinstance(thought, str) else "",
        answer=canonical(answer),
        family=_word(values["family"], family),
        level=_level(values["level"]),
        source=source,
        style=_word(values["style"], style),
        final=final,
        is_cut=is_cut,
        has_reference=has_reference,
    )


def gsm8k(row: Any, where: str, source: str, family: str, style: str) -> Record:
    """A record of GSM8K's own format; the level is by the number of marks (to 2, to 4, more)."""
    if not isinstance(row, dict) or not all(
        isinstance(row.get(key), str) for key in ("question", "answer")
    ):
        message = 'not an object with "question" and "answer"'
        return Broken(where=where, reason="broken line", message=message)
    body, hashes, answer = row["answer"].rpartition("####")
    if not hashes or not answer.strip():
        return Broken(where=where, reason="no answer", message='no "#### answer" at the end')
    steps = tuple((a.strip(), b.strip()) for a, b in MARK.findall(body))
    thought = MARK.sub("", body).strip()
    answer = canonical(answer)
    return Draft(
        where=where,
        problem=row["question"].strip(),
        thought=thought,
        answer=answer,
        family=family,
        level=1 if len(steps) <= 2 else 2 if len(steps) <= 4 else 3,
        source=source,
        style=style,
        final=_arrived_at(thought, steps, answer),
        steps=steps,
    )


def math(row: Any, where: str, source: str, style: str) -> Record:
    """A record of MATH's own format; levels 1-2, 3 and 4-5 become ours."""
    if not isinstance(row, dict) or not all(
        isinstance(row.get(key), str) for key in ("problem", "solution")
    ):
        message = 'not an object with "problem" and "solution"'
        return Broken(where=where, reason="broken line", message=message)
    solution = row["solution"].strip()
    answer = extract(solution, final_line=False)
    if answer is None or ("\\boxed" not in solution and "\\fbox" not in solution):
        return Broken(where=where, reason="no answer", message="no \\boxed answer")
    digits = re.search(r"\d", str(row.get("level", "")))
    level = min(5, int(digits[0])) if digits else 0
    return Draft(
        where=where,
        problem=row["problem"].strip(),
        thought=solution,
        answer=answer,
        family="math_" + re.sub(r"\W+", "_", str(row.get("type", "other"))).lower(),
        level=(0, 1, 1, 2, 3, 3)[level],
        source=source,
        style=style,
    )


def _value(row: Mapping[str, Any], names: tuple[str, ...], given: str | None) -> Any:
    if given is not None:
        return row.get(given)
    return next((row[name] for name in names if row.get(name) is not None), None)


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None


def _turns(messages: list[Any]) -> dict[str, Any] | None:
    """Problem, response, and thought where it stands apart; None unless one asks and one answers.

    A later question is of no use without the turns before it.
    """
    turns = messages[1:] if messages and _role(messages[0]) == "system" else messages
    if [_role(turn) for turn in turns] != ["user", "assistant"]:
        return None
    asked, said = turns
    turn = {"problem": asked.get("content"), "response": said.get("content")}
    thought = _value(said, _NAMES["thought"], None)
    return turn if thought is None else turn | {"thought": thought}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _split(response: str) -> tuple[str, str | None, bool]:
    """(thought, answer it ends on, whether it was cut) of a response."""
    before, closed, _ = response.rpartition("</think>")
    if closed:
        return before.replace("<think>", "", 1), extract(response), False
    if "<think>" in response:
        return response.partition("<think>")[2], None, True
    final = extract(response)
    return _ANSWER_LINE.sub("", response), final, False


def _arrived_at(thought: str, steps: tuple[tuple[str, str], ...], answer: str) -> str | None:
    """What a GSM8K solution arrives at: its last mark, or one of its last three numbers."""
    said = [*NUMBER.findall(thought)[-3:], *(result for _, result in steps[-1:])]
    if not said:
        return None
    return next((number for number in said if equal(number, answer)), canonical(said[-1]))


def _level(value: Any) -> int:
    """1, 2, 3, or a word for one; 0 where it is none of them."""
    if isinstance(value, str):
        value = _LEVELS.get(value.lower(), 0)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 4 else 0


def _word(value: Any, otherwise: str) -> str:
    """A short name from a record, else the one the recipe gives."""
    is_name = isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable()
    return value if is_name else otherwise
