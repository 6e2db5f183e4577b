"""Written arithmetic for chains of thought: numbers least significant digit first.

`reverse(45)` is "54". A tally keeps two unsigned sums, `p` (plus) and `n` (minus), so that no step
adds numbers of different sign. Each line first copies its term, so that looking it up and adding
it are two steps; one ordered subtraction joins the sums at the end:

    17 + 25 - 9   ->   +71:p71 / +52:p71+52=p24 / -9:n9 / p24-n9=p33
"""

import re

Signed = tuple[int, int]
"""(sign +1 or -1, magnitude): minus zero keeps its sign, so that each step stays local."""

_STEP = re.compile(
    r"^(?:[^:]*:)?(?:[pnNSEW]|[+-](?=\d+\*))?(\d+)([+\-*/])[pn+-]?(\d+)=[pnNSEW+-]?(\d+)$"
)


def reverse(number: int) -> str:
    """Digits of |number|, least significant first."""
    return str(abs(number))[::-1]


def signed(number: int) -> Signed:
    """Split a number into sign and magnitude."""
    return (-1 if number < 0 else 1), abs(number)


def value(number: Signed) -> int:
    """The number itself."""
    return number[0] * number[1]


def plain(number: Signed) -> str:
    """Sign and reversed digits: (-1, 43) is "-34"."""
    return ("-" if number[0] < 0 else "+") + reverse(number[1])


def show(number: Signed) -> str:
    """Label and reversed digits: (-1, 43) is "n34"."""
    return ("n" if number[0] < 0 else "p") + reverse(number[1])


class Tally:
    """Adds signed terms one by one, writing a line for each."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.sums: dict[int, int] = {}

    def add(self, term: Signed) -> None:
        """Write the line that adds `term` to the sum of its sign."""
        sign, magnitude = term
        if sign in self.sums:
            total = self.sums[sign] + magnitude
            old = show((sign, self.sums[sign]))
            new = show((sign, total))
            self.lines.append(f"{plain(term)}:{old}+{reverse(magnitude)}={new}")
        else:
            total = magnitude
            self.lines.append(f"{plain(term)}:{show(term)}")
        self.sums[sign] = total

    def result(self) -> Signed:
        """Join the two sums, the larger first; the last line written ends in the result."""
        if len(self.sums) == 1:
            return next(iter(self.sums.items()))
        plus, minus = (1, self.sums[1]), (-1, self.sums[-1])
        large, small = (plus, minus) if plus[1] >= minus[1] else (minus, plus)
        total = (large[0], large[1] - small[1])
        self.lines.append(f"{show(large)}-{show(small)}={show(total)}")
        return total


def add_terms(lines: list[str], terms: list[Signed]) -> Signed:
    """Tally `terms` in order and return their sum."""
    tally = Tally(lines)
    for term in terms:
        tally.add(term)
    return tally.result()


def multiply(lines: list[str], a: int, b: int) -> int:
    """Product of two magnitudes: single digits by table, others by digit-expanded partial products.

    Partial products carry their zeros (in front, since digits are reversed) and are added at once.
    """
    if a < 10 and b < 10:
        lines.append(f"{a}*{b}={reverse(a * b)}")
    else:
        lines.append(f"{reverse(a)}*{reverse(b)}")
        _expand(lines, a, b)
    return a * b


def multiply_signed(lines: list[str], a: Signed, b: Signed) -> Signed:
    """Product with the signs written out, so that the sign of the result is found in the line.

    A long product decides its sign in its first line, beside the factors, and copies it at the end.
    """
    product = (a[0] * b[0], a[1] * b[1])
    if a[1] < 10 and b[1] < 10:
        lines.append(f"{plain(a)}*{plain(b)}={plain(product)}")
    else:
        lines.append(f"{plain(a)}*{plain(b)}:{plain(product)[0]}")
        _expand(lines, a[1], b[1])
        lines.append(plain(product))
    return product


def _expand(lines: list[str], a: int, b: int) -> None:
    total: int | None = None
    for j, v in enumerate(map(int, reverse(b))):
        for i, u in enumerate(map(int, reverse(a))):
            partial = u * v * 10 ** (i + j)
            lines.append(f"{u}*{v}={'0' * (i + j) if u * v else ''}{reverse(u * v)}")
            if total is None:
                total = partial
            else:
                lines.append(f"{reverse(total)}+{reverse(partial)}={reverse(total + partial)}")
                total += partial
    assert total == a * b


def number_partials(a: int, b: int) -> int:
    """How many partial products `multiply` writes."""
    return len(str(a)) * len(str(b))


def is_step(line: str) -> bool:
    """Whether a line is an equation of reversed numbers, so that `check_steps` can judge it."""
    return _STEP.match(line) is not None


def check_steps(thought: str) -> bool:
    """Whether every line of the thought that is an equation of reversed numbers holds.

    A partial product may carry zeros in front (a shift by powers of ten): it holds when the
    product of the two digits is the number without that shift.
    """
    for line in thought.split("\n"):
        match = _STEP.match(line)
        if match is None:
            continue
        a, operator, b, c = match.groups()
        x, y, z = (int(digits[::-1]) for digits in (a, b, c))
        if operator == "*" and len(a) == len(b) == 1:
            product = x * y
            if product == 0 and z == 0:
                continue
            while z > product and z % 10 == 0:
                z //= 10
            holds = product == z
        else:
            holds = {"+": x + y, "-": x - y, "*": x * y, "/": x // y if y else -1}[operator] == z
            if operator == "/":
                holds = holds and x % y == 0
        if not holds:
            return False
    return True


def last_number(thought: str) -> int:
    """The signed number at the very end of a thought: reversed digits behind p, n, + or -."""
    match = re.search(r"([pn+-]?)(\d+)$", thought)
    assert match is not None
    return int(match[2][::-1]) * (-1 if match[1] in ("n", "-") else 1)
