"""Whether passages answer a question: by rule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lsdr.genie.index import Index
from lsdr.genie.passage import Passage
from lsdr.genie.question import Word
from lsdr.genie.spelling import forms
from lsdr.genie.terms import terms

# The share of a question's weight that one passage must hold to answer it.
COVERAGE = 0.6
# A common word, which a text may well replace by another, weighs this much of a particular one.
COMMON_WEIGHT = 0.35


@dataclass(frozen=True)
class Weighed:
    """A word of a question, the forms of it that the documents have, and how much it tells."""

    word: Word
    forms: frozenset[str]
    weight: float

    @property
    def known(self) -> bool:
        """Whether any document has it."""
        return bool(self.forms)


def weigh(index: Index, words: Sequence[Word]) -> tuple[Weighed, ...]:
    r"""How much each word tells: its inverse document frequency over the passages.

    .. math:: w = \ln\bigl(1 + (N - n + 1/2) / (n + 1/2)\bigr)

    with N passages of which n hold the word in any form; common words weigh 0.35 of that where there are others.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009, in the form that is never negative.
    """
    total = sum(entry.passages for entry in index.documents())
    particular = any(word.kind != "common" for word in words)
    weighed = []
    for word in words:
        counts = {form: count for form in forms(word) if (count := index.count(form))}
        holding = min(total, sum(counts.values()))
        weight = math.log1p((total - holding + 0.5) / (holding + 0.5))
        if particular and word.kind == "common":
            weight *= COMMON_WEIGHT
        weighed.append(Weighed(word, frozenset(counts), weight))
    return tuple(weighed)


def missing(weighed: Sequence[Weighed]) -> tuple[Weighed, ...]:
    """The words that are in no document although the question is about them: with one of these it has no answer there.

    An acronym, a name, a year, and any particular word. Not a common word, and not a verb or adverb in a question that
    has two other particular words in the documents: the documents may say it otherwise, and the passages decide.
    """
    particular = sum(item.known and item.word.kind != "common" for item in weighed)

    def replaceable(word: Word) -> bool:
        if word.kind == "number":
            return len(word.term) < 4
        return word.kind == "common" or (word.verbal and particular >= 2)

    return tuple(item for item in weighed if not item.known and not replaceable(item.word))


def coverage(weighed: Sequence[Weighed], passage: Passage) -> float:
    """The share of the question's weight that the passage holds, from 0 to 1."""
    held = set(terms(passage.quote))
    total = math.fsum(item.weight for item in weighed)
    return round(math.fsum(item.weight for item in weighed if item.forms & held) / total, 6) if total else 0.0


def answering(weighed: Sequence[Weighed], passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """The passages that hold the rarest word of the question and enough of the others, in their order.

    Of a question of common words alone a passage must hold every one.
    """
    particular = [item for item in weighed if item.word.kind != "common"]
    if not particular:
        return tuple(passage for passage in passages if all(item.forms & set(terms(passage.quote)) for item in weighed))
    rarest = max(item.weight for item in particular if item.known) if any(item.known for item in particular) else 0.0
    asked = frozenset().union(*(item.forms for item in particular if item.weight == rarest))
    return tuple(
        passage for passage in passages if asked & set(terms(passage.quote)) and coverage(weighed, passage) >= COVERAGE
    )
