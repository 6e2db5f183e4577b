"""Shapes of SVG paths in BIG-Bench-Hard's wording (geometric_shapes).

The chain quotes the path a command a line, in order, so that each line continues the copy of the
one before; a line's "L" becomes the number of the side it draws, so the last number is the count
("M" and "A" stay). Where a rectangle and a kite are to be told apart, the first coordinates of
opposite corners are found by their numbers and added (in hundredths, digits reversed): a
rectangle's diagonals share their
middle. The original lists "trapezoid" and "ellipse" only where they are the answer, also for a
rectangle and a circle (a rectangle is a trapezoid, a circle an ellipse): so do these problems.
"""

import re
from math import cos, pi, sin
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS, read_options, render_options
from falcon_h1r.train.tasks.steps import check_steps, reverse

_NAMES = "circle heptagon hexagon kite line octagon pentagon rectangle sector triangle"
_OPTIONS = _NAMES.split()
_BY_SIDES = {1: "line", 3: "triangle", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon"}
Point = tuple[int, int]
"""Hundredths."""


def _show(point: Point) -> str:
    return ",".join(f"{c // 100}.{c % 100:02d}" for c in point)


def _round(x: float, y: float) -> Point:
    return round(x), round(y)


def _inside(points: list[Point]) -> bool:
    return all(30 <= c <= 9970 for point in points for c in point)


def _polygon(rng: Random, sides: int) -> list[Point]:
    """Corners of a star-shaped polygon, or of any closed line."""
    if rng.random() < 0.3:
        return [(rng.randint(100, 9900), rng.randint(100, 9900)) for _ in range(sides)]
    x, y = rng.uniform(3500, 6500), rng.uniform(3500, 6500)
    angles = sorted(rng.uniform(0, 2 * pi) for _ in range(sides))
    radii = [rng.uniform(700, 3300) for _ in range(sides)]
    return [_round(x + r * cos(a), y + r * sin(a)) for r, a in zip(radii, angles, strict=True)]


def _quadrilateral(rng: Random, shape: str) -> list[Point]:
    """A turned rectangle, kite or trapezoid."""
    while True:
        angle, x, y = rng.uniform(0, 2 * pi), rng.uniform(2000, 8000), rng.uniform(2000, 8000)
        u, v = (cos(angle), sin(angle)), (-sin(angle), cos(angle))
        a, b, c = (rng.uniform(300, 4500) for _ in range(3))
        if shape == "rectangle":
            flat = [(0.0, 0.0), (a, 0.0), (a, b)]
        elif shape == "kite":
            flat = [(0.0, 0.0), (a, b), (a + c, 0.0), (a, -b)]
        else:
            shift = rng.uniform(-500, 1500)
            flat = [(0.0, 0.0), (a, 0.0), (shift + c, b), (shift, b)]
        points = [_round(x + s * u[0] + t * v[0], y + s * u[1] + t * v[1]) for s, t in flat]
        if shape == "rectangle":  # closed exactly, whatever the rounding
            (x0, y0), (x1, y1), (x2, y2) = points
            points.append((x0 + x2 - x1, y0 + y2 - y1))
        sums = points[0][0] + points[2][0], points[1][0] + points[3][0]
        if _inside(points) and (shape != "kite" or abs(sums[0] - sums[1]) > 100):
            return points


def _path(rng: Random, points: list[Point], breaks: float) -> str:
    """Lines through the points and back to the first; "M" restates the pen's place at times."""
    if len(points) > 2:
        points = [*points, points[0]]
    text = f"M {_show(points[0])}"
    for i, point in enumerate(points[1:], 1):
        text += f" L {_show(point)}"
        if i < len(points) - 1 and rng.random() < breaks:
            text += f" M {_show(point)}"
    return text


def _round_path(rng: Random, shape: str) -> str:
    """Two arcs, or the two straight sides and the arc of a sector."""
    x, y, r = rng.uniform(3500, 6500), rng.uniform(3500, 6500), round(rng.uniform(500, 3400))
    angle, open_angle = rng.uniform(0, 2 * pi), rng.uniform(0.5, 5.8)
    one = _round(x + r * cos(angle), y + r * sin(angle))
    turn = f"{rng.uniform(0, 360):.2f}" if rng.random() < 0.7 else "0.00"
    if shape == "sector":
        two = _round(x + r * cos(angle + open_angle), y + r * sin(angle + open_angle))
        center = _round(x, y)
        large = int(open_angle > pi)
        pause = f" M {_show(one)}" if rng.random() < 0.5 else ""
        return (
            f"M {_show(center)} L {_show(one)}{pause} A {_show((r, r))} {turn} {large},1 "
            f"{_show(two)} L {_show(center)}"
        )
    other = r if rng.random() < 0.6 else round(r * rng.uniform(0.4, 0.9))
    two = _round(x - r * cos(angle), y - r * sin(angle))
    large, sweep = rng.randint(0, 1), rng.randint(0, 1)
    arc = f"A {_show((r, r if shape == 'circle' else other))} {turn} {large},{sweep}"
    return f"M {_show(one)} {arc} {_show(two)} {arc} {_show(one)}"


_COMMAND = re.compile(r"([MLA]) ([^MLA]+)")


def think(path: str, options: list[str]) -> tuple[list[str], str]:
    """The chain for a path and the shape it ends with."""
    lines: list[str] = []
    corners: list[str] = []
    arcs = 0
    for command, numbers in _COMMAND.findall(path):
        numbers = numbers.strip()
        if command == "L":
            corners.append(numbers.split(",")[0])
            command = str(len(corners))
        arcs += command == "A"
        lines.append(f"{command} {numbers}")
    sides = len(corners)
    extra = options[-1] if options[-1] in ("trapezoid", "ellipse") else None
    if arcs:
        shape = "sector" if sides else extra or "circle"
    elif sides == 4 and extra is None:
        x = [int(c.replace(".", "")) for c in corners]
        for i, j in ((0, 2), (1, 3)):
            lines += [f"{k + 1} {corners[k]} p{reverse(x[k])}" for k in (i, j)]
            lines.append(f"p{reverse(x[i])}+{reverse(x[j])}=p{reverse(x[i] + x[j])}")
        shape = "rectangle" if abs(x[0] + x[2] - x[1] - x[3]) <= 5 else "kite"
        lines.append("same" if shape == "rectangle" else "differ")
    else:
        shape = extra or _BY_SIDES[sides]
    lines.append(f"- {shape} {LETTERS[options.index(shape)]}")
    return lines, shape


_SHAPES = {"line": 1, "triangle": 3, "pentagon": 3, "hexagon": 4, "heptagon": 4, "octagon": 3,
           "rectangle": 2, "kite": 2, "trapezoid": 3, "circle": 1, "ellipse": 2,
           "sector": 2}  # fmt: skip


def generate(rng: Random, level: int) -> Problem:
    """Few sides and no moves (1), all shapes (2), many sides and many moves (3)."""
    weights = dict(_SHAPES)
    if level == 1:
        weights = {s: w for s, w in weights.items() if s not in ("rectangle", "kite", "octagon")}
    if level == 3:
        weights |= {"line": 0, "triangle": 1, "octagon": 6, "heptagon": 6, "hexagon": 5}
    shape = rng.choices(list(weights), list(weights.values()))[0]
    breaks = rng.choice((0.0, 0.2, 0.4, 0.7)) if level > 1 else rng.choice((0.0, 0.2))
    options = list(_OPTIONS)
    if shape in ("trapezoid", "ellipse"):
        options.append(shape)
    if shape in ("circle", "ellipse", "sector"):
        path = _round_path(rng, shape)
    elif shape in ("rectangle", "kite", "trapezoid"):
        drawn = shape if shape != "trapezoid" else rng.choice(("trapezoid", "rectangle"))
        path = _path(rng, _quadrilateral(rng, drawn), breaks)
    else:
        sides = next((n for n, s in _BY_SIDES.items() if s == shape), 3)
        points = _polygon(rng, max(sides, 2))
        if rng.random() < 0.25:
            points = [(x // 100 * 100, y // 100 * 100) for x, y in points]
        if len(set(points)) < len(points):
            return generate(rng, level)
        path = _path(rng, points, breaks)
    lines, found = think(path, options)
    assert found == shape  # drawn to be this shape
    return Problem(
        problem=f'This SVG path element <path d="{path}"/> draws a\n{render_options(options)}',
        thought="\n".join(lines),
        answer=f"({LETTERS[options.index(shape)]})",
        family="geometric_shapes",
        level=level,
        keys=(f"shapes {path}",),
    )


def solve(text: str) -> str:
    """The shape by the number of different corners, by arcs and by right angles."""
    found = re.search(r'd="(.*?)"', text)
    assert found is not None
    options = read_options(text)
    extra = {"trapezoid", "ellipse"} & set(options)
    segments = re.findall(r"([LA]) [^MLA]*?(-?[\d.]+),(-?[\d.]+)(?= [MLA]|$)", found[1])
    if any(kind == "A" for kind, _, _ in segments):
        straight = any(kind == "L" for kind, _, _ in segments)
        return "sector" if straight else "ellipse" if "ellipse" in extra else "circle"
    if len(segments) != 4:
        return _BY_SIDES[len(segments)]
    if "trapezoid" in extra:
        return "trapezoid"
    corners = [complex(float(x), float(y)) for _, x, y in segments]
    edges = [b - a for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)]
    right = all(
        abs((a * b.conjugate()).real) < 0.03 * (abs(a) + abs(b))
        for a, b in zip(edges, [*edges[1:], edges[0]], strict=True)
    )
    return "rectangle" if right else "kite"


def verify(problem: Problem) -> bool:
    """Solve the text by its angles; each copied end is one of the path, each sum holds."""
    shape = solve(problem.problem)
    options = read_options(problem.problem)
    letter = LETTERS[options.index(shape)]
    lines = problem.thought.split("\n")
    path = problem.problem.split('"')[1]
    drawn = [line for line in lines if re.fullmatch(r"\S [\d., ]+,\d+\.\d\d", line)]
    return (
        problem.answer == f"({letter})"
        and lines[-1] == f"- {shape} {letter}"
        and [line[1:] for line in drawn] == re.findall(r"[MLA]( [\d., ]+[\d])", path)
        and lines == think(path, options)[0]
        and check_steps(problem.thought)
    )
