"""Sentences that tell today's date in a roundabout way, in BIG-Bench-Hard's manner."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from random import Random

from falcon_h1r.train.tasks.choices import NUMBER_WORDS
from falcon_h1r.train.tasks.names import draw_names
from falcon_h1r.train.tasks.steps import reverse

_MONTHS = "January February March April May June July August September October November December"
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
MONTHS, WEEKDAYS, ORDINALS = _MONTHS.split(), _WEEKDAYS.split(), _ORDINALS.split()
HOLIDAYS = {
    "New Year's Day": (1, 1), "Valentine's Day": (2, 14), "April Fools' Day": (4, 1),
    "Labour Day in Europe": (5, 1), "Halloween": (10, 31), "Christmas Eve": (12, 24),
    "Christmas Day": (12, 25), "Boxing Day": (12, 26), "New Year's Eve": (12, 31),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A sentence, the date it names (and as whose day), and how far from there today is."""

    text: str
    until: str
    """The last words of the text that are needed: the chain quotes the text up to them."""
    named: date
    label: str = "today"
    unit: str = "days"
    """What `step` counts: days, months, years, or weekdays from the one that `named` is."""
    step: int = 0
    aside: str = ""
    """A line of the chain between the quote and the date it names."""


def year_before(year: int) -> str:
    """The line that goes a year back."""
    return f"-1:p{reverse(year)}-1=p{reverse(year - 1)}"


def ordinal(number: int) -> str:
    """ "1st", "22nd", "13th"."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def spell_date(rng: Random, day: date) -> str:
    """A date as a writer in the US would put it, in one of six ways."""
    month = MONTHS[day.month - 1]
    return rng.choice((
        f"{day:%m/%d/%Y}", f"{day.month}/{day.day}/{day.year}",
        f"{month[:3]} {day.day}, {day.year}",
        f"{month[:3]} {day.day}, {day.year}", f"{month} {day.day}, {day.year}",
        f"{month} {ordinal(day.day)}, {day.year}",
    ))  # fmt: skip


def draw_date(rng: Random) -> date:
    """A date of the last hundred and some years, the ends of months a little more often."""
    year = rng.randint(1896, 2040) if rng.random() < 0.5 else rng.randint(1985, 2026)
    month = rng.randint(1, 12)
    day = rng.randint(1, 28)
    if rng.random() < 0.15:
        day = rng.choice((1, 2, 28))
    if rng.random() < 0.1 and month != 2:
        day = rng.choice((29, 30))
    return date(year, month, day)


def _plain(rng: Random, big: bool) -> Scene:
    day = draw_date(rng)
    shown, name = spell_date(rng, day), draw_names(rng, 1)[0]
    time = f"{rng.randint(1, 12)}:{rng.randint(0, 59):02d} {rng.choice(('am', 'pm'))}"
    text = rng.choice((
        f"Today is {shown}.", f"It is {shown} today.", f"Today, {shown}, is {name}'s day off.",
        f"The current local time is {time} of {shown}.",
        f"Today is {shown}. {name}'s appointment will be {rng.randint(2, 6)} days later.",
        f"{name} looks at the calendar and sees that today is {shown}.",
    ))  # fmt: skip
    return Scene(text=text, until=shown, named=day)


def _neighbour(rng: Random, big: bool) -> Scene:
    day = draw_date(rng)
    shown, name = spell_date(rng, day), draw_names(rng, 1)[0]
    if rng.random() < 0.45:
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        text = rng.choice((
            f"Yesterday was {shown}.", f"Yesterday, {shown}, {name} ate {a} pancakes and {b} figs.",
            f"Yesterday was {shown}. {name} forgot to write that down.",
            f"Yesterday, {shown}, {name} read {a} books.",
        ))  # fmt: skip
        if day.day >= 30 and rng.random() < 0.5 and day.month in (4, 6, 9, 11):
            month = MONTHS[day.month - 1]
            shown = f"{day:%m/%d/%Y}"
            text = (f"Yesterday was {shown}. Today could not be {day:%m}/31/{day.year} "
                    f"because {month} has only 30 days.")  # fmt: skip
        return Scene(text=text, until=shown, named=day, label="yesterday", step=1)
    a, b, weekday = rng.randint(2, 9), rng.randint(2, 9), WEEKDAYS[day.weekday()][:3]
    text = rng.choice((
        f"Tomorrow is {shown}.", f"{name} booked a room for tomorrow, {shown}.",
        f"{name} planned {a} calls with {b} people for tomorrow ({weekday}, {shown}).",
        f"Today's game is moved to {rng.randint(1, 11)} pm tomorrow, {shown}.",
    ))  # fmt: skip
    return Scene(text=text, until=shown, named=day, label="tomorrow", step=-1)


def _span(rng: Random, big: bool) -> Scene:
    day = draw_date(rng)
    shown, name = spell_date(rng, day), draw_names(rng, 1)[0]
    count = rng.randint(2, 9) if rng.random() < 0.5 else rng.randint(2, 60)
    if big:
        count = rng.randint(30, 240)
    kind = rng.random()
    if kind < 0.3:
        count = rng.randint(2, 9)
        until = f"which is {count} days"
        return Scene(text=f"The deadline is {shown}, {until} away from now.", until=until,
                     named=day, label="deadline", step=-count)  # fmt: skip
    if kind < 0.5:
        days = rng.choice((1, 1, 2, 3))
        words = "one day" if days == 1 else f"{NUMBER_WORDS[days]} days"
        text = f"The show was planned for {shown}, but was delayed by {words} to today."
        return Scene(text=text, until=words, named=day, label="plan", step=days)
    if kind < 0.6:
        text, until = f"It was {shown} a week ago.", "a week ago"
        return Scene(text=text, until=until, named=day, label="then", step=7)
    text, until = rng.choice((
        (f"{name} left school on {shown}. {count} days have passed since then.", f"{count} days"),
        (f"On {shown} {name} bought {count} apples. {name} ate one per day. "
         f"Today {name} ran out of apples.", f"bought {count}"),
    ))  # fmt: skip
    return Scene(text=text, until=until, named=day, label="then", step=count)


def _years(rng: Random, big: bool) -> Scene:
    day = draw_date(rng)
    shown, (name, other) = spell_date(rng, day), draw_names(rng, 2)
    count = rng.randint(2, 16)
    since = f"{count}-year"
    text, until = rng.choice((
        (f"{name} and {other} married on {shown}. It is their {since} anniversary today.", since),
        (f"{name} was born on {shown}. Today is {name}'s {since}-old birthday.", since),
        (f"{shown} is like yesterday to {name}, but that is actually {NUMBER_WORDS[count]} years "
         "ago.", f"{NUMBER_WORDS[count]} years"),
    ))  # fmt: skip
    return Scene(text=text, until=until, named=day, label="then", unit="years", step=count)


def _months(rng: Random, big: bool) -> Scene:
    day, name = draw_date(rng), draw_names(rng, 1)[0]
    count = rng.randint(2, 6)
    text = (
        f"{name} visits the library on the {ordinal(day.day)} of each month starting from the "
        f"{MONTHS[day.month - 1]} of {day.year}. It is the {ordinal(count)} visit to the library "
        "today."
    )
    visit = f"{ordinal(count)} visit"
    return Scene(text=text, until=visit, named=day, label="start", unit="months", step=count - 1)


def _disputed(rng: Random, big: bool) -> Scene:
    one, two = draw_date(rng), draw_date(rng)
    if rng.random() < 0.7:
        two = date.fromordinal(one.toordinal() + rng.choice((-2, -1, 1, 2)))
    names = draw_names(rng, 2)
    right = rng.randrange(2)
    said = [
        f"{name} thinks today is {day.month}/{day.day}/{day.year}"
        for name, day in zip(names, (one, two), strict=True)
    ]
    until = f"{names[right]} is correct"
    return Scene(text=f"{said[0]}, but {said[1]}. {until}.", until=until, aside=said[right],
                 named=(one, two)[right])  # fmt: skip


def _abroad(rng: Random, big: bool) -> Scene:
    day = draw_date(rng)
    day = day.replace(day=rng.randint(1, 12))
    where = rng.choice(("France", "the UK", "the UK", "Spain", "Italy"))
    habit = rng.choice(("write the day before the month",
                        "put the day before the month when formatting the date"))  # fmt: skip
    text = f"In {where}, people usually {habit}. Therefore, today is {day:%d/%m/%Y} to them."
    return Scene(text=text, until="to them", named=day)


def _holiday(rng: Random, big: bool) -> Scene:
    day = draw_date(rng)
    name, month_day = rng.choice(list(HOLIDAYS.items()))
    text, until = f"Today is {name} of {day.year}.", f"of {day.year}"
    return Scene(text=text, until=until, named=date(day.year, *month_day))


def _last_day(month: int, year: int) -> date:
    after = date(year + month // 12, month % 12 + 1, 1)
    return date.fromordinal(after.toordinal() - 1)


def _end(rng: Random, big: bool) -> Scene:
    day, name = draw_date(rng), draw_names(rng, 1)[0]
    kind = rng.random()
    if kind < 0.4:
        month = f"{MONTHS[day.month - 1][:3]} {day.year}"
        text = f"{name} is celebrating the last day of {month}."
        return Scene(text=text, until=month, named=_last_day(day.month, day.year))
    of = f"of {day.year}"
    if kind < 0.55:
        text = f"This is the last day {of}."
        return Scene(text=text, until=of, named=date(day.year, 12, 31))
    if kind < 0.75:
        quarter = rng.randint(1, 4)
        text = f"Today is the last day of the {ORDINALS[quarter - 1]} quarter {of}."
        return Scene(text=text, until=of, named=_last_day(3 * quarter, day.year))
    hours, left = rng.choice(((12, 1), (36, 2), (60, 3)))
    eve = date.fromordinal(date(day.year, 1, 1).toordinal() - left)
    text = f"{day.year} is coming in {hours} hours."
    return Scene(text=text, until="hours", named=eve, aside=year_before(day.year))


def _count_words(rng: Random, big: bool) -> Scene:
    day = draw_date(rng).replace(day=rng.randint(1, 10), month=rng.randint(1, 10))
    text = (
        f"Today is the {ORDINALS[day.day - 1]} day of the {ORDINALS[day.month - 1]} month of "
        f"{day.year}."
    )
    return Scene(text=text, until=f"of {day.year}", named=day)


def _palindrome(rng: Random, big: bool) -> Scene:
    while True:
        month, day = rng.randint(1, 12), rng.randint(1, 28)
        year = int(f"{month:02d}{day:02d}"[::-1])
        if 1000 <= year <= 2999:
            break
    text = (
        f"Today is the palindrome day of {year}, because the MMDDYYYY format of the date is the "
        "same backwards as forwards."
    )
    return Scene(text=text, until=f"day of {year}", named=date(year, month, day))


def _weekday(rng: Random, big: bool) -> Scene:
    year = draw_date(rng).year
    first = date(year, 1, 1)
    shift = rng.randint(1, 6)
    today = date.fromordinal(first.toordinal() + shift)
    until = f"first {WEEKDAYS[today.weekday()]}"
    text = (
        f"The first day of {year} is a {WEEKDAYS[first.weekday()]}, and today is the {until} of "
        f"{year}."
    )
    return Scene(text=text, until=until, named=first, label="first", unit="weekdays", step=shift)


_SCENES: tuple[tuple[Callable[[Random, bool], Scene], int], ...] = (
    (_plain, 3), (_neighbour, 5), (_span, 4), (_years, 3), (_months, 1), (_disputed, 1),
    (_abroad, 1), (_holiday, 1), (_end, 2), (_count_words, 1), (_palindrome, 1), (_weekday, 1),
)  # fmt: skip


_ASIDES = (
    "{} is at home.", "{} has a day off.", "{} and {} play chess.", "It is raining.",
    "{} looks at the calendar.", "{} asks {} for the date.", "The sun shines.",
    "{} has {n} letters to write.", "{} meets {} at {n} pm.", "There are {n} birds outside.",
)  # fmt: skip


def _with_aside(rng: Random, scene: Scene) -> Scene:
    """A sentence beside the point, before or behind the story."""
    aside = rng.choice(_ASIDES).format(*draw_names(rng, 2), n=rng.randint(2, 11))
    text = f"{aside} {scene.text}" if rng.random() < 0.5 else f"{scene.text} {aside}"
    return replace(scene, text=text)


def draw_scene(rng: Random, level: int) -> Scene:
    """A plain date at level 1, a neighbouring day at times; all sentences above.

    A story without people always has an aside: alone, it could be one of the benchmark's.
    """
    if level == 1:
        return _with_aside(rng, rng.choice((_plain, _neighbour))(rng, False))
    scenes = [scene for scene, _ in _SCENES]
    big = rng.random() < (0.15 if level == 2 else 0.6)
    draw = rng.choices(scenes, [weight for _, weight in _SCENES])[0]
    if level == 3 and rng.random() < 0.4:
        draw = _span
    scene = draw(rng, big)
    if draw in (_years, _months, _disputed) and rng.random() < 0.9:
        return scene
    return _with_aside(rng, scene)
