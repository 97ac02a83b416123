"""Where passages contradict each other: numbers, dates, and what one affirms and another denies."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from lsdr.genie.clauses import part, sentences
from lsdr.genie.clusters import stem, stems
from lsdr.genie.passage import Passage
from lsdr.genie.quantities import Quantity, quantities
from lsdr.genie.terms import STOPWORDS, terms

# Two sentences speak of one thing if they share this much of their words; within one document it takes more, because a
# text that goes on from one thing to the next repeats its words.
_ALIKE = 0.6
_ALIKE_WITHIN = 0.8
_FEWEST_SHARED = 2
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot|\w+n['’]t|fails?\s+to|failed\s+to)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Conflict:
    """Two or more sentences that cannot all be right.

    Args:
        kind: "number", "date" or "negation".
        subject: The words they share.
        sides: The sentences, in the order of their documents.
    """

    kind: Literal["number", "negation", "date"]
    subject: str
    sides: tuple[Passage, ...]


@dataclass(frozen=True)
class _Sentence:
    passage: Passage
    words: frozenset[str]
    written: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    denies: bool


def find_conflicts(passages: Iterable[Passage]) -> list[Conflict]:
    """The pairs of sentences in which passages contradict each other by rule.

    Two sentences that share at least 60 % of their words (80 % within one document), numbers and dates left out, are in
    conflict if they give different numbers for the same unit, different dates, or if one has a negation and the other
    has not. Numbers are the same up to the precision in which the coarser one is written; units of length, mass, time
    and memory are converted; a year fits every day in it. It finds what is worded alike, and nothing else.

    Args:
        passages: What to compare, with itself and with each other; the order does not matter.
    """
    every = [one for passage in sorted(set(passages), key=_place) for one in _sentences(passage)]
    holding: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(every):
        for word in sorted(one.words):
            holding[word].append(number)
    pairs = {pair for numbers in holding.values() if len(numbers) <= 200 for pair in combinations(numbers, 2)}
    found: dict[tuple[str, str, str], Conflict] = {}
    for left, right in sorted(pairs):
        for conflict in _compare(every[left], every[right]):
            texts = sorted(" ".join(side.quote.split()) for side in conflict.sides)
            found.setdefault((conflict.kind, texts[0], texts[1]), conflict)
    return list(found.values())


def _place(passage: Passage) -> tuple[str, int, int]:
    return passage.document, passage.start, passage.end


def _sentences(passage: Passage) -> list[_Sentence]:
    found = []
    for start, end in sentences(passage.quote):
        quote = passage.quote[start:end]
        values, rest = quantities(quote)
        denies = len(_NEGATION.findall(rest)) % 2 == 1
        written = [word for word in terms(_NEGATION.sub(" ", rest)) if word not in STOPWORDS]
        if quote.rstrip().endswith("?"):
            continue
        words = frozenset(stem(word) for word in written) | frozenset(stems(" ".join(one.unit for one in values)))
        if len(words) >= _FEWEST_SHARED:
            found.append(_Sentence(part(passage, start, end), words - {"date"}, tuple(written), tuple(values), denies))
    return found


def _compare(one: _Sentence, other: _Sentence) -> list[Conflict]:
    shared, every = one.words & other.words, one.words | other.words
    needed = _ALIKE_WITHIN if one.passage.document == other.passage.document else _ALIKE
    if len(shared) < _FEWEST_SHARED or len(shared) < needed * len(every):
        return []
    subject = " ".join(dict.fromkeys(word for word in one.written if stem(word) in shared))
    sides = (one.passage, other.passage)
    if one.denies != other.denies:
        return [Conflict("negation", subject, sides)]
    kinds: list[Literal["number", "date"]] = []
    for unit in sorted({value.unit for value in one.quantities} & {value.unit for value in other.quantities}):
        left = [value for value in one.quantities if value.unit == unit]
        right = [value for value in other.quantities if value.unit == unit]
        if not _contained(left, right) and not _contained(right, left):
            kinds.append("date" if unit == "date" else "number")
    return [Conflict(kind, subject, sides) for kind in dict.fromkeys(kinds)]


def _contained(some: list[Quantity], others: list[Quantity]) -> bool:
    return all(any(one.agrees(other) for other in others) for one in some)
