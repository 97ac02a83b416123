"""The numbers and dates of a sentence, as values with units."""

import re
from dataclasses import dataclass

from lsdr.genie.terms import STOPWORDS

_WORDS = {
    word: value
    for value, word in enumerate(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], 2
    )
}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_UNITS = {
    "%": ("percent", 1.0), "percent": ("percent", 1.0), "per cent": ("percent", 1.0),
    "mm": ("metre", 1e-3), "cm": ("metre", 1e-2), "m": ("metre", 1.0), "metre": ("metre", 1.0), "meter": ("metre", 1.0),
    "km": ("metre", 1e3), "kilometre": ("metre", 1e3), "kilometer": ("metre", 1e3),
    "mg": ("gram", 1e-3), "g": ("gram", 1.0), "gram": ("gram", 1.0), "kg": ("gram", 1e3), "kilogram": ("gram", 1e3),
    "ms": ("second", 1e-3), "s": ("second", 1.0), "second": ("second", 1.0), "min": ("second", 60.0),
    "minute": ("second", 60.0), "h": ("second", 3600.0), "hour": ("second", 3600.0),
    "kb": ("byte", 1e3), "mb": ("byte", 1e6), "gb": ("byte", 1e9), "tb": ("byte", 1e12),
}  # fmt: skip
_MONTHS = {
    name: number
    for number, names in enumerate(
        [
            "january jan",
            "february feb",
            "march mar",
            "april apr",
            "may",
            "june jun",
            "july jul",
            "august aug",
            "september sep sept",
            "october oct",
            "november nov",
            "december dec",
        ],
        1,
    )
    for name in names.split()
}
_MONTH = r"(?P<month{0}>" + "|".join(_MONTHS) + r")\.?"
_YEAR = r"(?:1[0-9]|20)\d\d"
_DATE = re.compile(
    rf"\b(?P<iso>{_YEAR}-\d\d(?:-\d\d)?)\b"
    rf"|\b(?P<day1>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH.format(1)},?(?:\s+(?P<year1>{_YEAR}))?\b"
    rf"|\b{_MONTH.format(2)}(?:\s+(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?)?,?\s+(?P<year2>{_YEAR})\b"
    rf"|(?:\b(?:in|since|until|by|from|of|year|during|around|circa|before|after)\s+|\()(?P<year3>{_YEAR})\b(?!\s*[%°]|[.,]?\d)",
    re.IGNORECASE,
)
_SCALE = r"(?:\s*(?P<scale>hundred|thousand|million|billion|trillion)\b)?"
_NUMBER = re.compile(
    r"(?<![\w.,])(?<!\w[-‐‑])(?P<sign>[-+−]?)(?P<money>[$€£]?)"
    r"(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|(?:"
    + "|".join(_WORDS)
    + r")\b)(?![\d])"
    + _SCALE
    + r"[ \t\n-]?(?P<unit>%|per\s+cent\b|[^\W\d_]+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Quantity:
    """A number with its unit; or a date as year, month and day, 0 where it is not said.

    Args:
        unit: What is counted or measured in, singular; "date" for a date.
        value: The number in that unit.
        slack: How far another number may be from it and still be the same one, less precisely written.
        date: Year, month and day.
    """

    unit: str
    value: float = 0.0
    slack: float = 0.0
    date: tuple[int, int, int] = (0, 0, 0)

    def agrees(self, other: "Quantity") -> bool:
        """Whether both can be true of one thing: the same to the coarser one's last digit, or dates that fit."""
        if self.unit == "date":
            return all(one == two or not one or not two for one, two in zip(self.date, other.date, strict=True))
        return abs(self.value - other.value) <= max(self.slack, other.slack) + 1e-9 * abs(self.value)


def quantities(sentence: str) -> tuple[list[Quantity], str]:
    """The numbers and dates of a sentence in their order, and the sentence without them.

    Example:
        >>> found, rest = quantities("The tower was finished in 1889 and is 330 m high.")
        >>> [(one.unit, one.value or one.date) for one in found], rest
        ([('date', (1889, 0, 0)), ('metre', 330.0)], 'The tower was finished   and is   high.')
    """
    found: list[tuple[int, Quantity]] = []

    def date(match: re.Match[str]) -> str:
        found.append((match.start(), Quantity("date", date=_date(match))))
        return " " * (match.end() - match.start())

    def number(match: re.Match[str]) -> str:
        found.append((match.start(), _number(match)))
        return "\0" * (match.end() - match.start())

    rest = _NUMBER.sub(number, _DATE.sub(date, sentence))
    spaces = re.sub(r"\0+", " ", re.sub(r" {3,}", "  ", rest))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])], spaces


def _date(match: re.Match[str]) -> tuple[int, int, int]:
    if match["iso"]:
        parts = [int(part) for part in match["iso"].split("-")]
        return parts[0], parts[1], parts[2] if len(parts) > 2 else 0
    if match["year3"]:
        return int(match["year3"]), 0, 0
    which = "1" if match["month1"] else "2"
    return int(match["year" + which] or 0), _MONTHS[match["month" + which].casefold()], int(match["day" + which] or 0)


def _number(match: re.Match[str]) -> Quantity:
    written = match["number"].replace(",", "").casefold()
    value = float(_WORDS[written]) if written in _WORDS else float(written)
    scale = _SCALES[match["scale"].casefold()] if match["scale"] else 1.0
    decimals = len(written.partition(".")[2]) if "." in written and "e" not in written else 0
    slack = 0.5 * 10.0**-decimals * scale if decimals or scale > 1 else 0.0
    word = re.sub(r"\s+", " ", (match["unit"] or "").casefold())
    plain = word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
    unit, factor = _UNITS.get(plain, (plain, 1.0))
    if unit in STOPWORDS:
        unit = ""
    if match["money"]:
        unit, factor = match["money"], 1.0
    sign = -1.0 if match["sign"] in {"-", "−"} else 1.0
    return Quantity(unit, sign * value * scale * factor, slack * factor)
