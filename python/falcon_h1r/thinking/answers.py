"""Answers: find one in a trace's text, tell whether two are equal, sort them into classes.

Imports no torch. Plain numbers, words and equal strings are decided here and exactly; everything
else is left to math-verify, in another process and within a limit (`judge.py`).
"""

import re
from collections.abc import Callable
from fractions import Fraction

from falcon_h1r.thinking.judge import judged_equal

MAX_JUDGED = 500
"""Longest answer math-verify is asked about; longer ones are equal when their strings are."""
MAX_DEPTH = 30
"""Deepest nesting of brackets it is asked about."""
MAX_FINAL_LINE = 200
"""A last line longer than this is prose, not an answer."""
MAX_DIGITS = 400
"""Longest plain number, and largest exponent, that is computed exactly."""

_ANSWER_IS = re.compile(
    r"\banswer(?:\s+is|\s*:|\s*=)(?:\s*:)?[\s*]*(\S[^\n]*)", re.IGNORECASE | re.ASCII
)
_SENTENCE_END = re.compile(
    r"\?\s"
    r"|(?<!\b(?:St|Mt|Dr|Mr|Ms|Jr|Sr|vs))(?<!\bMrs)(?<!\b[Aa]pprox)"
    r"(?!(?<=\bNo)\.\s+\d+(?:\.\s|\W*$))\.\s"
    r"|(?<![\d)\]}])!\s|!\s+(?:[A-Z]|$)"
)
"""Not behind an abbreviation, nor behind "No" with only a number after it ("No. 5", but not "No. 5
is odd"), nor behind a factorial ("5! = 120", but not "5! Great")."""
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"^####[ \t]*(\S[^\n]*)", re.MULTILINE)
_NUMBER = re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)?(\.\d*)?(?:[eE]([+-]?\d{1,4}))?(\\?%)?")
_FRACTION = re.compile(
    r"([+-]?)\\[dt]?frac\{([+-]?\d+)\}\{([+-]?\d+)\}|([+-]?\d+)/([+-]?\d+)", re.ASCII
)
_MIXED = re.compile(r"(-)?(\d+) (\d+)/(\d+)", re.ASCII)
_INNER_SPACE = re.compile(r"(?<![\d,.]) | (?!\d)")
_QUANTITY = re.compile(r"([+-]?\d[\d,]*(?:\.\d+)?) ?([A-Za-z][A-Za-z .]*)", re.ASCII)
_DATE_OR_TIME = re.compile(r"\d{1,4}/\d{1,2}/\d{1,4}|\d{1,2}:\d\d(?::\d\d)?", re.ASCII)
_WORDS = {"yes": "Yes", "no": "No", "true": "True", "false": "False"}
_NO_SPACES = {ord(c): None for c in "\\ \t\n"}
_TEXT_MACRO = re.compile(r"\\(?:text|mathrm|textbf|mathbf|textit|mbox)\{([^{}]*)\}")
_SPACING = re.compile(r"\\[,;:!]|\\(?:left|right)(?![a-zA-Z])|\\q?quad(?![a-zA-Z])")
_ONLY_BRACKETS = re.compile(r"[\\\[\](){}<>\s]+")
_BOXED_BRACKETS = re.compile(r"\\boxed\{([\[\](){}<> ]+)\}[ $.]*$", re.MULTILINE)
_BOXED_PLAIN = re.compile(r"\\(?:boxed|fbox) ([^\s{}$\\]+)")
"""TeX takes one token without braces, and MATH has such answers."""
_CHOICE = re.compile(
    r"\(([A-Za-z])\)|(?:[Oo]ption|[Cc]hoice) ([A-Z])"
    r"|(?:[Oo]ption |[Cc]hoice )?(?:\(([A-Z])\)|([A-Z])\))(?:[:,.]? ([\w\"'].*))?"
)
_VERDICT = re.compile(r"(yes|no|true|false), ([a-z].*)", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9'&.-]*")
_FUNCTIONS = {"sin", "cos", "tan", "cot", "log", "exp", "sqrt", "max", "min", "mod"}
_HARMLESS = "7"
_ASSIGNED = re.compile(r"[a-zA-Z]\s*=\s*(.+)")


def extract(text: str, *, final_line: bool = True) -> str | None:
    r"""Return the answer a trace ends on, or None.

    Looked for after the last `</think>` when there is one (an unclosed `<think>`: no answer), in
    this order: the last whole `\boxed{...}`, the last "answer is X" or "Answer: X", the last
    "#### X", and with `final_line` (not for a trace cut off by its length) the last line.
    """
    _, closed, after = text.rpartition("</think>")
    if not closed and "<think>" in text:
        return None
    text = after
    answer = _boxed(text)
    if answer is None and (found := _last(_ANSWER_IS, text)) is not None:
        answer = _SENTENCE_END.split(found + " ", maxsplit=1)[0]
    if answer is None:
        answer = _last(_HASHES, text)
    if answer is None and final_line:
        line = text.rstrip().rpartition("\n")[2]
        answer = line if len(line) <= MAX_FINAL_LINE else None
    return (canonical(answer) or None) if answer is not None else None


def canonical(answer: str) -> str:
    r"""Return an answer without its wrapping: `$`, `\text{}`, spacing, emphasis, a final period.

    Whole numbers come back as digits ("1,000.0" as "1000"), yes, no, true, false capitalised (also
    "no, because ..."), a choice "(b)", "(B) 5 km" or "option B" as "B", and brackets with a space
    between. Equal answers need not become equal strings: that is `equal`'s task.
    """
    text = answer.strip().strip("*`").strip().replace("\\$", "")
    text = re.sub(r"^\\[(\[]|\\[)\]]$", "", text).replace("$", "").replace("\u2212", "-")
    text = _SPACING.sub("", _TEXT_MACRO.sub(r"\1", text))
    text = re.sub(r"\s+", " ", text).strip().rstrip(".;,").strip()
    if text.startswith("\\boxed{") and text.endswith("}"):
        text = text[7:-1].strip()
    if text and _ONLY_BRACKETS.fullmatch(text):
        return " ".join(text.translate(_NO_SPACES))
    if (letter := _choice(text)) is not None:
        return letter
    word = text.lower()
    if (verdict := _VERDICT.fullmatch(text)) and not _names_a_verdict(verdict[2]):
        word = verdict[1].lower()
    if word in _WORDS:
        return _WORDS[word]
    value = _number(text)
    if value is not None and value.denominator == 1 and "/" not in text and "%" not in text:
        return str(value)
    return text


def equal(a: str, b: str) -> bool:
    """Return whether two answers mean the same; symmetric.

    Equal strings, else exact comparison where both are plain numbers or words, else math-verify
    within its limits. Answers beyond a limit are equal only if their strings are.
    """
    return bool(verdict(canonical(a), canonical(b)))


def verdict(a: str, b: str, judge: Callable[[str, str], bool | None] | None = None) -> bool | None:
    """Return whether canonical answers are equal; None when the judge hit its limit."""
    if a == b:
        return True
    values = _number(_value_of(a)), _number(_value_of(b))
    if None not in values:
        return values[0] == values[1]
    if not (_is_judged(a) and _is_judged(b)):
        return False
    if (_is_letter(a) and _is_letter(b)) or _ONLY_BRACKETS.fullmatch(a + b):
        return False
    if _DATE_OR_TIME.fullmatch(a) and _DATE_OR_TIME.fullmatch(b):
        return False
    quantities = _QUANTITY.fullmatch(a), _QUANTITY.fullmatch(b)
    if quantities[0] and quantities[1]:  # math-verify leaves units out, also two different ones
        first, second = quantities[0], quantities[1]
        same_unit = first[2].strip(" .").lower() == second[2].strip(" .").lower()
        return same_unit and _number(first[1]) == _number(second[1])
    words = _words(a), _words(b)
    if words != (None, None):
        return words[0] == words[1]
    ask = judged_equal if judge is None else judge
    return ask(*sorted((_latex(a), _latex(b))))


class AnswerClasses:
    """Classes of equal answers, numbered in the order in which they are first seen.

    Equality by math-verify is not always transitive, so an answer joins the first class whose
    representative (its first answer) equals it: give the answers in trace order.
    """

    def __init__(self) -> None:
        self.representatives: list[str] = []
        """The canonical string of each class; its index is the class."""
        self._known: dict[str, int] = {}
        self._hostile: set[str] = set()
        """Answers that made math-verify hit its limit: no longer asked about."""

    def class_of(self, answer: str) -> int:
        """Return the class of an answer, a new one when it equals none before."""
        answer = canonical(answer)
        if answer not in self._known:
            self._known[answer] = self._find(answer)
        return self._known[answer]

    def _find(self, answer: str) -> int:
        for index, representative in enumerate(self.representatives):
            if representative in self._hostile or answer in self._hostile:
                continue
            same = verdict(representative, answer)
            if same:
                return index
            if same is None:  # which of the two was it?
                is_at_fault = verdict(answer, _HARMLESS) is None
                self._hostile.add(answer if is_at_fault else representative)
        self.representatives.append(answer)
        return len(self.representatives) - 1


def _boxed(text: str) -> str | None:
    r"""Return the inside of the last `\boxed{...}` whose braces close; one pass over the text."""
    tail = text[max(0, text.rfind("\\boxed{")) :]  # an answer of brackets cannot be balanced
    if (brackets := _BOXED_BRACKETS.match(tail)) is not None:
        return brackets[1]
    opened: list[int] = []  # where the inside of each open brace begins; -1: a plain brace
    last = None
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "}":
            start = opened.pop() if opened else -1
            if start >= 0 and (last is None or start > last.start):
                last = slice(start, match.start())
        elif token == "{":
            opened.append(-1)
        elif token.endswith("{") and len(token) > 2:
            opened.append(match.end())
    return _last(_BOXED_PLAIN, text) if last is None else text[last]


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = None
    for match in pattern.finditer(text):
        found = match[1]
    return found


def _value_of(text: str) -> str:
    """Return the right side of "x = 5", else the text."""
    assigned = _ASSIGNED.fullmatch(text)
    return assigned[1] if assigned else text


def _number(text: str) -> Fraction | None:
    """Return the exact value of a plain number, fraction or mixed number, else None.

    A space between digits, or after a comma or point, parts two numbers: "1 2 3" is none.
    """
    if not text or len(text) > MAX_DIGITS:
        return None
    if (mixed := _MIXED.fullmatch(text)) is not None and int(mixed[4]):
        value = int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4]))
        return -value if mixed[1] else value
    text = _INNER_SPACE.sub("", text)
    if (parts := _FRACTION.fullmatch(text)) is not None:
        sign, top, bottom = parts[1] or "", parts[2] or parts[4], parts[3] or parts[5]
        if int(bottom) == 0:
            return None
        return Fraction(int(top), int(bottom)) * (-1 if sign == "-" else 1)
    match = _NUMBER.fullmatch(text)
    if match is None or not any(c.isdigit() for c in (match[2] or "") + (match[3] or "")):
        return None
    sign, whole, decimals, exponent, percent = match.groups()
    if exponent and abs(int(exponent)) > MAX_DIGITS:
        return None
    digits = (whole or "0").replace(",", "") + (decimals or "").rstrip(".")
    value = Fraction(digits) * Fraction(10) ** int(exponent or 0)
    return value * (-1 if sign == "-" else 1) / (100 if percent else 1)


def _is_letter(text: str) -> bool:
    return len(text) == 1 and text.isalpha()


def _choice(text: str) -> str | None:
    """Return the letter of a choice, alone or before its text; None when two are named."""
    found = _CHOICE.fullmatch(text)
    if found is None or re.search(r"\([A-Z]\)", found[5] or ""):
        return None
    return (found[1] or found[2] or found[3] or found[4]).upper()


def _names_a_verdict(text: str) -> bool:
    return any(word in _WORDS for word in re.findall(r"[a-z]+", text.lower()))


def _words(text: str) -> list[str] | None:
    """Return the words of a text that is no formula, in lower case, without commas; else None.

    Words are equal in their order or not at all: to math-verify they are products of letters.
    """
    words = text.lower().replace(",", " ").split()
    if words == ["no"]:
        return words
    if not all(map(_WORD.fullmatch, words)) or not re.search(r"[a-z]{3}", text.lower()):
        return None
    if _number(words[0]) is not None or not _FUNCTIONS.isdisjoint(words):
        return None
    return None if len(words) == 1 and re.search(r"[\d.]", text) else words


def _is_judged(text: str) -> bool:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return 0 < len(text) <= MAX_JUDGED and deepest <= MAX_DEPTH


def _latex(text: str) -> str:
    """Return plain notation (`**`, sqrt(), pi) as LaTeX, which alone is parsed."""
    text = text.replace("**", "^").replace("\u00d7", r"\times ").replace("\u03c0", r"\pi ")
    text = re.sub(r"(?<![\\a-zA-Z])sqrt\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi ", text)
