"""Dates in BIG-Bench-Hard's wording (date_understanding): which date is some days off?

The chain quotes the story up to the words that fix the day, writes the date they name and goes to
today (`date_walks`); it quotes the question and goes on to the date asked for; then it copies the
options one by one, each up to the first of month, day and year that is another:

    It is raining. Yesterday was Dec 30, 1929
    yesterday 12/30/1929
    +1:p03+1=p13
    12/1929 13:p13 ok
    today 12/31/1929
    What is the date tomorrow
    +1:p13+1=p23
    12/1929 13:p23-13=p1
    01/1930 13:p1 ok
    date 01/01/1930
    (A) 12 no
    (B) 01/01/1930 yes
"""

from datetime import date, timedelta
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS, read_options, render_options
from falcon_h1r.train.tasks.date_reading import add_months, read_story, today
from falcon_h1r.train.tasks.date_scenes import Scene, draw_scene
from falcon_h1r.train.tasks.date_walks import shift, try_options, us
from falcon_h1r.train.tasks.steps import check_steps

_QUESTIONS: tuple[tuple[str, str, int, int], ...] = (
    ("today", "days", 0, 3),
    ("tomorrow", "days", 1, 4), ("yesterday", "days", -1, 4), ("24 hours later", "days", 1, 2),
    ("one week ago from today", "days", -7, 4), ("one week from today", "days", 7, 4),
    ("10 days ago", "days", -10, 4), ("a month ago", "months", -1, 4),
    ("one year ago from today", "years", -1, 4), ("two weeks from today", "days", 14, 1),
    ("3 days ago", "days", -3, 1), ("5 days from today", "days", 5, 1),
    ("a month from today", "months", 1, 1), ("one year from today", "years", 1, 1),
)  # fmt: skip


def _walk(scene: Scene, words: str, unit: str, step: int) -> tuple[list[str], date]:
    """The lines up to the date asked for, and that date; ValueError when there is none."""
    end = scene.text.index(scene.until) + len(scene.until)
    lines = [scene.text[:end], *filter(None, [scene.aside])]
    lines.append(f"{scene.label} {us(scene.named)}")
    day = scene.named
    if scene.step:
        day = shift(lines, day, scene.unit, scene.step)
        lines.append(f"today {us(day)}")
    lines.append(f"What is the date {words}")
    if step:
        day = shift(lines, day, unit, step)
    lines.append(f"date {us(day)}")
    return lines, day


def _distractors(rng: Random, answer: date, others: list[date]) -> list[str]:
    """Dates that differ in day, month or year, and dates the text itself names."""
    found: list[str] = []
    count = rng.choice((4, 5, 5, 5))
    pool = [us(d) for d in others]
    while len(found) < count:
        kind = rng.random()
        if pool and kind < 0.2:
            text = pool.pop()
        elif kind < 0.55:
            text = us(answer + timedelta(days=rng.choice((-1, 1, 1, -1, 2, -2, 6, -8, 10, -30))))
        elif kind < 0.75:
            text = us(answer.replace(year=answer.year + rng.choice((-1, 1, -10, 10, 60, -20))))
        elif kind < 0.9 and answer.day < 13:
            text = us(answer.replace(month=answer.day, day=answer.month))
        else:
            text = us(answer.replace(month=rng.randint(1, 12), day=rng.randint(1, 28)))
        if text != us(answer) and text not in found:
            found.append(text)
    return found


def generate(rng: Random, level: int) -> Problem:
    """Today is named directly (1), by a story (2), or by a story of many days (3)."""
    while True:
        scene = draw_scene(rng, level)
        words, unit, step, _ = rng.choices(_QUESTIONS, [q[3] for q in _QUESTIONS])[0]
        try:
            lines, answer = _walk(scene, words, unit, step)
            others = _distractors(rng, answer, [scene.named])
            break
        except ValueError:  # February 29 a year on, or the 31st of a month of 30 days
            continue
    options = [*others, us(answer)]
    rng.shuffle(options)
    letter = LETTERS[options.index(us(answer))]
    try_options(lines, options, us(answer))
    text = f"{scene.text} What is the date {words} in MM/DD/YYYY?"
    return Problem(
        problem=f"{text}\n{render_options(options)}",
        thought="\n".join(lines),
        answer=f"({letter})",
        family="date_understanding",
        level=level,
        keys=(f"date {scene.label} {scene.named} {scene.step} {scene.unit} {step} {unit}",),
    )


def _read(text: str) -> tuple[Scene, str, str, int]:
    """The story, the words that ask, and the unit and step they stand for."""
    story, question = text.split("\nOptions:")[0].split(" What is the date ")
    words = question.removesuffix(" in MM/DD/YYYY?")
    unit, step = next((u, s) for w, u, s, _ in _QUESTIONS if w == words)
    return read_story(story), words, unit, step


def solve(text: str) -> str:
    """The date asked for, by calendar arithmetic on the text."""
    scene, _, unit, step = _read(text)
    if unit == "days":
        return us(today(scene) + timedelta(days=step))
    return us(add_months(today(scene), step * (12 if unit == "years" else 1)))


def think(text: str) -> str:
    """The chain of a problem's text; ValueError for a story or a question of another kind."""
    lines, answer = _walk(*_read(text))
    try_options(lines, read_options(text), us(answer))
    return "\n".join(lines)


def verify(problem: Problem) -> bool:
    """Read the story by patterns and use the calendar; the walk is written once more."""
    value = solve(problem.problem)
    options = read_options(problem.problem)
    if options.count(value) != 1:
        return False
    letter = LETTERS[options.index(value)]
    return (
        problem.answer == f"({letter})"
        and problem.thought == think(problem.problem)
        and problem.thought.endswith(f"({letter}) {value} yes")
        and check_steps(problem.thought)
    )
