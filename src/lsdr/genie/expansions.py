"""Short forms and what they are said to stand for, in any text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lsdr.genie.initials import initials_match, letters_fit

_REACH = 300
_EDGE = re.compile(r"[.!?]\s+(?=[^a-z])|\n\s*\n|[;()\[\]]")
_PARENTHESIS = re.compile(r"[(\[]([^()\[\]]{2,200})[)\]]")
_CLAUSE_END = re.compile(r"[.!?](?:\s|$)|[,;:()\[\]\"“”]|\n\s*\n|\f")
_LAST_TOKEN = re.compile(r"([^\W_][\w.\-/&+']*)[\"'”’]?\s*$")
_SHORT = r"(?P<short>[^\W_][\w\-/&+]{1,9})"
_STANDS_FOR = re.compile(
    rf"\b{_SHORT}[\"'”’]?,?\s+(?P<verb>stands\s+for|(?:is\s+)?short\s+for|is\s+an?\s+(?:acronym|abbreviation|initialism)\s+"
    r"(?:for|of)|means|denotes|refers\s+to)\s+"
)
_SHORT_OR_LONG = re.compile(r"\b(?P<short>[A-Z][\w\-]{1,9}),\s+(?:or|i\.e\.,?|that\s+is,?|namely)\s+")
_LONG_OR_SHORT = re.compile(
    r"(?P<how>,?\s+abbreviated(?:\s+(?:as|to))?|,?\s+shortened\s+to|,\s+or(?:\s+simply)?|,?\s+(?:also\s+)?(?:known\s+as|called))"
    r"\s+[\"'“‘]?(?P<short>[A-Z][\w\-]{1,9})\b"
)
_GLOSSARY = re.compile(r"(?m)^[ \t#>|+\-]*(?P<short>[A-Z][\w\-]{1,9})[ \t]*(?:[:=|–—]|[ \t]-[ \t])[ \t]*(?=[^\W\d_])")
_OR = re.compile(r"\s*(?:[,;]\s*)?\bor\s+(?:for\s+)?|\s*;\s*")
_LEAD = re.compile(
    r"(?:(?:which|that|also)\s+)?(?:(?:stands|short|is\s+short)\s+for\s+|i\.e\.,?\s+)?(?:(?:the|an?)\s+)?[\"'“‘]?", re.I
)


@dataclass(frozen=True)
class Expansion:
    """One statement that a short form stands for a long one.

    Args:
        short: The short form, as written.
        long: The long form, as written but for line ends and emphasis, which become single spaces.
        start: Where the statement starts in the text, both forms included.
        end: Where it ends.
        initials_match: Whether the short form is made of the long form's initials.
    """

    short: str
    long: str
    start: int
    end: int
    initials_match: bool


def senses_in(text: str) -> list[Expansion]:
    r"""Every statement of a text that a short form stands for a long one, in the order of the text.

    "Long form (LF)" and "LF (long form)" by the letter match of the source: the short form has 2 to 10 characters in at
    most two words, the long form at most :math:`\min(|A| + 5, 2 |A|)` words, every letter of the short form appears in
    it in order, the first one at the start of a word. Besides: "LF stands for ...", "LF, or long form,", "long form,
    abbreviated LF", lines of a glossary, and several long forms parted by ", or" or ";". Nothing is merged and nothing
    is chosen: two expansions of one short form are two statements.

    We deviate where the letter match alone goes wrong: words whose initials are the short form are preferred to a
    longer match; a long form in parentheses is matched from its first word, and also when its initials are the short
    form's letters in another order; and only initials count for a short form without a capital or a digit, for a long
    form of two words in parentheses, and without parentheses unless it says "stands for".

    Linear in the length of the text.

    Source: Schwartz and Hearst, A simple algorithm for identifying abbreviation definitions in biomedical text (2003),
    sections 2 and 3, figure 1.

    Example:
        >>> for one in senses_in("LSDR (Large Scale Data Representation), no GAN, or generative adversarial network."):
        ...     print(one.short, "=", one.long, one.initials_match)
        LSDR = Large Scale Data Representation True
        GAN = generative adversarial network True
    """
    plain = re.sub(r"[*`]|(?<!\w)_|_(?!\w)", " ", text)
    found: dict[tuple[str, str, int], Expansion] = {}
    for statement in _statements(plain):
        key = (statement.short, statement.long.casefold(), statement.start)
        found.setdefault(key, statement)
    return sorted(found.values(), key=lambda one: (one.start, one.end, one.long))


def _statements(text: str) -> Iterator[Expansion]:
    for match in _PARENTHESIS.finditer(text):
        yield from _parenthesis(text, match)
    for match in _STANDS_FOR.finditer(text):
        if _is_short(match["short"]):
            yield from _after(text, match["short"], match.start(), match.end(), sure=match["verb"].split()[-1] == "for")
    for pattern in (_SHORT_OR_LONG, _GLOSSARY):
        for match in pattern.finditer(text):
            if _is_short(match["short"]):
                yield from _after(text, match["short"], match.start("short"), match.end(), sure=False)
    for match in _LONG_OR_SHORT.finditer(text):
        short = match["short"]
        if _is_short(short) and _is_loud(short):
            start = _long_before(text, match.start(), short, exact="abbrev" not in match["how"])
            if start is not None:
                yield _expansion(text, short, (start, match.start()), (start, match.end()))


def _parenthesis(text: str, match: re.Match[str]) -> Iterator[Expansion]:
    """Both directions: the short form inside, or else the long form inside."""
    inside = re.split(r"[;,]\s", match[1])[0].strip().strip("\"'“”‘’")
    if _is_short(inside):
        start = _long_before(text, match.start(), inside, exact=not _is_loud(inside))
        if start is not None:
            yield _expansion(text, inside, (start, match.start()), (start, match.end()))
            return
    before = _LAST_TOKEN.search(text, max(0, match.start() - 40), match.start())
    if before is None or not _is_short(before[1]) or len(match[1].split()) < 2:
        return
    short = before[1]
    place = match.start(1)
    while place < match.end(1):
        parting = _OR.search(text, place, match.end(1))
        end = parting.start() if parting else match.end(1)
        long = _inside(text, short, place, end)
        if long is not None:
            yield _expansion(text, short, long, (before.start(1), match.end()))
        place = parting.end() if parting else match.end(1)


def _inside(text: str, short: str, start: int, end: int) -> tuple[int, int] | None:
    """Where the long form is between two places within parentheses."""
    lead = _LEAD.match(text, start, end)
    start = lead.end() if lead else start
    comma = text.find(",", start, end)
    for stop in dict.fromkeys((comma if comma >= 0 else end, end)):
        words = _words(text, start, stop)[: _most_words(short)]
        exact = _shortest_exact(text, short, [(start, word[1]) for word in words])
        if exact is not None:
            return exact
        words = _words(text, start, stop)
        said = text[start:stop]
        fits = letters_fit(short, said) == 0 or initials_match("".join(sorted(short)), " ".join(sorted(said.split())))
        if _is_loud(short) and 2 < len(words) <= _most_words(short) and fits:
            return start, stop
    return None


def _after(text: str, short: str, said_from: int, start: int, *, sure: bool) -> Iterator[Expansion]:
    """Long forms that follow the short form without parentheses; ``sure`` takes one whose initials do not match."""
    while True:
        lead = _LEAD.match(text, start)
        start = lead.end() if lead else start
        edge = _CLAUSE_END.search(text, start, start + _REACH)
        stop = edge.start() if edge else min(len(text), start + _REACH)
        words = _words(text, start, stop)[: _most_words(short)]
        spans = [(start, word[1]) for word in words]
        long = _shortest_exact(text, short, spans)
        if long is None and sure:
            fitting = (span for span in spans if letters_fit(short, text[slice(*span)]) == 0 and _is_long(short, span))
            alternative = _OR.search(text, start, stop)
            clause = (start, alternative.start() if alternative else stop)
            whole = 1 < len(_words(text, *clause)) <= _most_words(short) and _is_loud(short)
            long = clause if whole else next(fitting, None)
        if long is None:
            return
        yield _expansion(text, short, long, (said_from, long[1]))
        parting = _OR.match(text, long[1])
        if parting is None:
            return
        start = parting.end()


def _long_before(text: str, end: int, short: str, *, exact: bool) -> int | None:
    """Where the long form starts that ends at a place, or None."""
    begin = max(0, end - _REACH)
    for edge in _EDGE.finditer(text, begin, end):
        begin = edge.end()
    words = _words(text, begin, end)[-_most_words(short) :]
    if not words:
        return None
    end = words[-1][1]
    best = _shortest_exact(text, short, [(word[0], end) for word in reversed(words)])
    if best is not None:
        return best[0]
    if exact:
        return None
    candidate = text[words[0][0] : end]
    at = letters_fit(short, candidate)
    if at is None:
        return None
    long = candidate[at:]
    if len(long) <= len(short) or short.casefold() in long.casefold().split():
        return None
    return words[0][0] + at


def _shortest_exact(text: str, short: str, spans: list[tuple[int, int]]) -> tuple[int, int] | None:
    exact = (span for span in spans if initials_match(short, text[span[0] : span[1]]))
    return next(
        (span for span in exact if len(text[span[0] : span[1]].split()) > 1 or "-" in text[span[0] : span[1]]), None
    )


def _words(text: str, start: int, end: int) -> list[tuple[int, int]]:
    spans = [match.span() for match in re.compile(r"\S*\w\S*").finditer(text, start, end)]
    return [(a, b - len(text[a:b]) + len(text[a:b].rstrip(",;:.\"'”’"))) for a, b in spans]


def _is_long(short: str, span: tuple[int, int]) -> bool:
    return span[1] - span[0] >= 2 * len(short)


def _most_words(short: str) -> int:
    """The source's longest long form, in words."""
    return min(len(short) + 5, 2 * len(short))


def _is_short(word: str) -> bool:
    """The source's conditions on a short form."""
    letters = any(character.isalpha() for character in word)
    return 2 <= len(word) <= 10 and len(word.split()) <= 2 and word[0].isalnum() and letters


def _is_loud(short: str) -> bool:
    """Whether it looks like a short form by itself: a capital or a digit after its first letter."""
    return any(character.isupper() or character.isdigit() for character in short[1:])


def _expansion(text: str, short: str, long: tuple[int, int], said: tuple[int, int]) -> Expansion:
    words = " ".join(text[long[0] : long[1]].split()).strip(" ,;:.\"'“”‘’")
    return Expansion(short, words, said[0], said[1], initials_match(short, words))
