"""Readers of the original files of GSM8K, MATH, BIG-Bench-Hard and ARC, and of plain JSONL.

Each returns items in the file's order, or raises ConfigError naming the file to bring or the line
that is broken.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.items import Item
from falcon_h1r.thinking.answers import extract

_OPTION = re.compile(r"^\(([A-Z])\) ?(.*)$", re.MULTILINE)
_PROBLEM_KEYS = ("problem", "question", "input", "prompt")
_ANSWER_KEYS = ("answer", "target", "answerKey")


def read_task(name: str, data: Path | None) -> list[Item]:
    """Return the items of one task name; `data` holds the files."""
    if name.startswith("jsonl:"):
        path = Path(name.removeprefix("jsonl:"))
        return read_jsonl(path, path.stem)
    group, _, part = name.partition("/")
    if group not in _READERS:
        raise ConfigError(
            f"no task is named {name!r}; there are {', '.join(_READERS)} (also a part of one, as "
            "bbh/navigate or gsm8k/train), jsonl:FILE, and on the command line reference"
        )
    return _READERS[group](data, part)


def read_gsm8k(data: Path | None, part: str) -> list[Item]:
    """GSM8K: {"question", "answer"} a line, the number behind "####"; part test or train."""
    split = _one_of("gsm8k", part or "test", ("test", "train"))
    places = (f"gsm8k/{split}.jsonl", f"{split}.jsonl")
    path = _find(data, places, f"gsm8k/{split}", f"{split}.jsonl of GSM8K")
    items = []
    for where, row in _rows(path):
        question, answer = _texts(row, ("question", "answer"), where)
        number = answer.rpartition("####")[2].strip().replace(",", "")
        if "####" not in answer or not number:
            raise ConfigError(f"{where} has no number behind '####'; bring GSM8K's own file")
        task = "gsm8k" if split == "test" else "gsm8k/train"
        items.append(Item(problem=question, answer=number, task=task))
    return items


def read_math(data: Path | None, part: str) -> list[Item]:
    r"""MATH: a folder test/SUBJECT/N.json of {"problem", "level", "solution"} with a \boxed."""
    folder = _find(
        data, ("MATH/test", "math/test", "test"), "math", "the folder MATH with test/SUBJECT/*.json"
    )
    subjects = sorted(path.name for path in folder.iterdir() if any(path.glob("*.json")))
    if not subjects:
        raise ConfigError(f"{folder} holds no SUBJECT/*.json; bring the folder test of MATH")
    wanted = [_one_of("math", part, tuple(subjects))] if part else subjects
    items = []
    for subject in wanted:
        paths = sorted((folder / subject).glob("*.json"), key=lambda p: (len(p.stem), p.stem))
        for path in paths:
            row = _json(path)
            problem, solution = _texts(row, ("problem", "solution"), str(path))
            answer = extract(solution, final_line=False)
            if answer is None:
                raise ConfigError(f"the solution of {path} has no \\boxed answer")
            level = re.search(r"\d", str(row.get("level", "")))
            items.append(
                Item(
                    problem=problem,
                    answer=answer,
                    task=f"math/{subject}",
                    level=int(level[0]) if level else None,
                )
            )
    return items


def read_bbh(data: Path | None, part: str) -> list[Item]:
    """BIG-Bench-Hard: TASK.json of {"examples": [{"input", "target"}]}; part: one TASK."""
    paths: list[Path] = []
    for place in ("bbh", "BIG-Bench-Hard/bbh", "bbh/bbh", "."):
        if data is not None and not paths:
            paths = sorted((data / place).glob(f"{part or '*'}.json"))
    if not paths:
        what = f"{part}.json" if part else "the folder bbh with its TASK.json files"
        place = f"bbh/{part}.json" if part else "bbh"
        raise _missing(data, place, f"bbh/{part}" if part else "bbh", f"{what} of BIG-Bench-Hard")
    items = []
    for path in paths:
        examples = _json(path).get("examples")
        if not isinstance(examples, list) or not examples:
            raise ConfigError(f"{path} has no list of examples; bring BIG-Bench-Hard's own file")
        for number, row in enumerate(examples):
            where = f"example {number} of {path}"
            problem, answer = _texts(row, ("input", "target"), where)
            items.append(
                Item(
                    problem=problem,
                    answer=answer,
                    task=f"bbh/{path.stem}",
                    choices=lettered_choices(problem),
                )
            )
    return items


def read_arc(data: Path | None, part: str, name: str) -> list[Item]:
    """ARC: {"question": {"stem", "choices"}, "answerKey"} a line; part Test, Dev or Train."""
    split = _one_of(f"arc_{name.lower()}", (part or "test").lower(), ("test", "dev", "train"))
    file = f"ARC-{name}-{split.capitalize()}.jsonl"
    places = [f"{folder}{file}" for folder in (f"ARC-{name}/", f"arc/ARC-{name}/", "arc/", "")]
    places += [f"ARC-V1-Feb2018-2/ARC-{name}/{file}", f"ARC-V1-Feb2018/ARC-{name}/{file}"]
    task = f"arc_{name.lower()}" + ("" if split == "test" else f"/{split}")
    path = _find(data, places, task, f"{file} of ARC (ARC-V1-Feb2018)")
    items = []
    for where, row in _rows(path):
        question = row.get("question")
        choices = question.get("choices") if isinstance(question, dict) else None
        if not isinstance(question, dict) or not isinstance(choices, list) or not choices:
            raise ConfigError(f"{where} has no question with choices; bring ARC's own file")
        stem, key = *_texts(question, ("stem",), where), *_texts(row, ("answerKey",), where)
        pairs = [_texts(choice, ("label", "text"), where) for choice in choices]
        labels = [label for label, _ in pairs]
        if key not in labels:
            raise ConfigError(f"{where} has the answer {key!r}, which is none of {labels}")
        texts = [text for _, text in pairs]
        answer = f"({chr(ord('A') + labels.index(key))})"
        problem = with_choices(stem, texts)
        items.append(Item(problem=problem, answer=answer, task=task, choices=tuple(texts)))
    return items


def read_jsonl(path: Path, task: str) -> list[Item]:
    """Plain JSONL: a problem (or question, input), an answer (or target), task and level if any."""
    if not path.is_file():
        raise ConfigError(f"no such file: {str(path)!r}; write jsonl:FILE")
    items = []
    for where, row in _rows(path):
        problem_key = next((k for k in _PROBLEM_KEYS if k in row), _PROBLEM_KEYS[0])
        answer_key = next((k for k in _ANSWER_KEYS if k in row), _ANSWER_KEYS[0])
        problem, answer = _texts(row, (problem_key, answer_key), where)
        level = row.get("level")
        items.append(
            Item(
                problem=problem,
                answer=answer,
                task=str(row.get("task") or row.get("family") or task),
                level=level if isinstance(level, int) else None,
                choices=lettered_choices(problem),
            )
        )
    return items


def lettered_choices(problem: str) -> tuple[str, ...]:
    """Return the texts of choices "(A) ..." that stand one a line from (A) on."""
    found = _OPTION.findall(problem)
    letters = [letter for letter, _ in found]
    expected = [chr(ord("A") + i) for i in range(len(letters))]
    return tuple(text.strip() for _, text in found) if letters == expected else ()


def with_choices(question: str, choices: list[str]) -> str:
    """Return a question with lettered choices, as BIG-Bench-Hard writes them."""
    lines = [f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(choices)]
    return "\n".join([question, "Options:", *lines])


_READERS: dict[str, Callable[[Path | None, str], list[Item]]] = {
    "gsm8k": read_gsm8k,
    "math": read_math,
    "bbh": read_bbh,
    "arc_easy": lambda data, part: read_arc(data, part, "Easy"),
    "arc_challenge": lambda data, part: read_arc(data, part, "Challenge"),
}


def _find(data: Path | None, places: tuple[str, ...] | list[str], task: str, what: str) -> Path:
    """Return the first of `places` under `data` that exists."""
    if data is not None:
        for place in places:
            if (data / place).exists():
                return data / place
    raise _missing(data, places[0], task, what)


def _missing(data: Path | None, place: str, task: str, what: str) -> ConfigError:
    if data is None:
        return ConfigError(
            f"{task} needs {what}: put it at DIR/{place} and give DIR as data (--data DIR); "
            "nothing is downloaded"
        )
    return ConfigError(
        f"{task} needs {what}, which is not in {str(data)!r}: bring it to {data / place}"
    )


def _one_of(task: str, part: str, allowed: tuple[str, ...]) -> str:
    if part not in allowed:
        raise ConfigError(f"{task} has no part {part!r}; it has {', '.join(allowed)}")
    return part


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("line N of FILE", object) of every line; empty lines are skipped."""
    count = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"line {number} of {path}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = str(error).partition(":")[0]
                raise ConfigError(f"{where} is not JSON ({reason}); mend the file") from None
            if not isinstance(row, dict):
                raise ConfigError(f"{where} is not an object; mend the file")
            count += 1
            yield where, row
    if not count:
        raise ConfigError(f"{path} holds no line; bring the whole file")


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error}); bring the original file") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not an object; bring the original file")
    return data


def _texts(row: Any, keys: tuple[str, ...], where: str) -> list[str]:
    """Return the values of `keys`, which must be texts or numbers, none of them empty."""
    values = []
    for key in keys:
        value = row.get(key) if isinstance(row, dict) else None
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ConfigError(f"{where} has no text {key!r}; it has {_names(row)}")
        text = str(value)
        if not text.strip():
            raise ConfigError(f"{where} has an empty {key!r}; mend the file")
        values.append(text)
    return values


def _names(row: Any) -> str:
    return ", ".join(map(repr, list(row)[:8])) if isinstance(row, dict) and row else "nothing"
