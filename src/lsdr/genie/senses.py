"""Every sense of a term, side by side, with where each is said."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lsdr.genie.clauses import sentences
from lsdr.genie.clusters import same_expansion, stems
from lsdr.genie.document import Document
from lsdr.genie.expansions import Expansion, senses_in
from lsdr.genie.passage import Passage
from lsdr.genie.terms import STOPWORDS, terms
from lsdr.genie.transcript import is_transcript, read_transcript

if TYPE_CHECKING:
    from lsdr.genie.index import Index

__all__ = ["Sense", "find_senses", "senses_in", "senses_of_document"]

# A statement can go over the edge of a passage by so many characters.
_MARGIN = 300
# Two answers that expand a term alike speak of two things if less than this share of their words about it is common ...
_SAME_ACCOUNT = 0.5
# ... and each has so many words about it.
_FEWEST_WORDS = 8

# What this project has of each meaning: the page whose words are all in the expansion and what is said of it.
_PAGES = (
    (("spectral", "normalization"), "lsdr/how-to/spectral-norm.md"),
    (("spectral", "discriminator"), "lsdr/how-to/spectral-discriminator.md"),
    (("spectral", "decorrelation"), "lsdr/reference/methods.md"),
    (("spectral", "decomposition", "operator"), "lsdr/how-to/operator.md"),
    (("spectral", "decomposition"), "lsdr/how-to/spectral-decomposition.md"),
    (("least", "squares", "difference", "reduction"), "lsdr/how-to/reduce.md"),
    (("large", "scale", "data", "representation"), "lsdr/how-to/representation.md"),
)


@dataclass(frozen=True)
class Sense:
    """One thing that a term is said to stand for.

    Args:
        term: The term, as it is written there.
        expansion: The long form, in its commonest spelling.
        initials_match: Whether the term is made of the expansion's initials.
        sources: Where documents say it, once each. Answers of a transcript are no sources: a sense that only they give
            has none.
        page: The page on it in this project's documentation, if it has one.
        said: Everywhere it is said, once for each document and for each answer of a transcript.
        account: A sentence on what it does, where two senses have the same expansion.
    """

    term: str
    expansion: str
    initials_match: bool
    sources: tuple[Passage, ...]
    page: str | None
    said: tuple[Passage, ...] = ()
    account: str = ""


@dataclass(frozen=True)
class _Statement:
    """One place that expands a term; `words` and `account` tell what an answer of a transcript says of it."""

    expansion: Expansion
    passage: Passage
    answer: int | None = None
    words: frozenset[str] = field(default_factory=frozenset)
    account: str = ""


def find_senses(index: "Index", term: str) -> list[Sense]:
    """Every sense that the documents give a term, the one of most documents first, then in the documents' order.

    Two expansions are one sense if they differ in spelling alone (`same_expansion`); none is left out for another. In a
    transcript each answer speaks for itself: two answers to questions about the term that expand it alike are two
    senses where what they say of it has less than half of its words in common.

    Reads the passages that hold the term, and whole transcripts.

    Args:
        index: The documents.
        term: The short form; case and a plural's s do not matter.
    """
    places: dict[str, list[Passage]] = {}
    for spelling in dict.fromkeys((_key(term), f"{_key(term)}s")):
        number = index.count(spelling)
        for passage in index.search(spelling, limit=number) if number else ():
            places.setdefault(passage.document, []).append(passage)
    statements: list[_Statement] = []
    for name in sorted(places):
        document = index.document(name)
        windows = [(max(0, passage.start - _MARGIN), passage.end + _MARGIN) for passage in places[name]]
        statements += _statements(document, windows)
    return _senses(one for one in statements if _key(one.expansion.short) == _key(term))


def senses_of_document(document: Document) -> list[Sense]:
    """The senses that one document gives to any term, term by term in the order of the alphabet."""
    statements = _statements(document, [(0, len(document.text))])
    named = sorted({_key(one.expansion.short) for one in statements})
    return [
        sense for term in named for sense in _senses(one for one in statements if _key(one.expansion.short) == term)
    ]


def _key(term: str) -> str:
    term = term.strip()
    return (term[:-1] if re.fullmatch(r".*[A-Z0-9]s", term) else term).casefold()


def _statements(document: Document, windows: list[tuple[int, int]]) -> list[_Statement]:
    if is_transcript(document.text):
        return list(_answers(document))
    found = []
    for start, end in _merged(windows):
        for one in senses_in(document.text[start:end]):
            moved = replace(one, start=one.start + start, end=one.end + start)
            found.append(_Statement(moved, _sentence_around(document, moved.start, moved.end, 0, len(document.text))))
    return found


def _answers(document: Document) -> Iterator[_Statement]:
    for number, turn in enumerate(read_transcript(document.text).turns, 1):
        offset = turn.start + len(turn.opening or "")
        for one in senses_in(turn.answer):
            moved = replace(one, start=one.start + offset, end=one.end + offset)
            named = [turn.answer[a:b] for a, b in sentences(turn.answer) if one.short in turn.answer[a:b]]
            asked = _key(one.short) in terms(turn.question) if turn.question is not None else len(named) > 2
            known = {*stems(one.long), *stems(one.short), *STOPWORDS}
            words = frozenset(word for sentence in named if asked for word in stems(sentence) if word not in known)
            passage = _sentence_around(document, moved.start, moved.end, offset, offset + len(turn.answer))
            yield _Statement(moved, passage, number, words, _account(one.short, named))


def _account(term: str, named: list[str]) -> str:
    """The first sentence that says what the term does, and not only that it is or has been something."""
    does = re.compile(rf"\b{re.escape(term)}\s+(?!is\b|has\b|was\b|helps\b)\w+s\s+\w")
    said = next((sentence for sentence in named if does.search(sentence)), "")
    return " ".join((said or (named[0] if named else "")).split())


def _merged(windows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(windows):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _sentence_around(document: Document, start: int, end: int, low: int, high: int) -> Passage:
    """The sentence between two places of the text in which the statement stands; the statement alone if it is long."""
    begin, stop = max(low, start - _MARGIN), min(high, end + _MARGIN)
    window = document.text[begin:stop]
    for first, last in sentences(window):
        whole = (first > 0 or begin == low) and (last < len(window) or stop == high)
        if whole and begin + first <= start and end <= begin + last:
            start, end = begin + first, begin + last
            break
    page, line = document.where(start)
    return Passage(document.name, page, line, start, end, document.text[start:end])


def _senses(statements: Iterable[_Statement]) -> list[Sense]:
    """The senses of one term, under its commonest spelling."""
    groups: list[list[_Statement]] = []
    ordered = sorted(statements, key=lambda each: (each.passage.document, each.expansion.start))
    term = _commonest([one.expansion.short for one in ordered])
    for one in ordered:
        group = next((each for each in groups if same_expansion(each[0].expansion.long, one.expansion.long)), None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    found = [replace(sense, term=term) for group in groups for sense in _of_group(group)]
    first = {id(sense): number for number, sense in enumerate(found)}
    return sorted(found, key=lambda sense: (-len(sense.sources), -_documents(sense), first[id(sense)]))


def _documents(sense: Sense) -> int:
    return len({passage.document for passage in sense.said})


def _of_group(group: list[_Statement]) -> list[Sense]:
    """The senses with one expansion: one, or one for each account that answers of a transcript give."""
    documents = [one for one in group if one.answer is None]
    accounts: list[list[_Statement]] = []
    for one in group:
        if one.answer is None:
            continue
        alike = next((account for account in accounts if _same_account(account[0].words, one.words)), None)
        if alike is None:
            accounts.append([one])
        else:
            alike.append(one)
    if len(accounts) < 2:
        return [_sense(group, documents, "")]
    return [_sense([*documents, *account], documents, account[0].account) for account in accounts]


def _same_account(first: frozenset[str], second: frozenset[str]) -> bool:
    if min(len(first), len(second)) < _FEWEST_WORDS:
        return True
    return len(first & second) >= _SAME_ACCOUNT * len(first | second)


def _sense(statements: list[_Statement], documents: list[_Statement], account: str) -> Sense:
    spellings = [one.expansion.long for one in statements]
    long = _commonest(spellings)
    chosen = statements[spellings.index(long)].expansion
    sources = _once((one.passage.document, one) for one in documents)
    said = _once(((one.passage.document, one.answer), one) for one in statements)
    everything = " ".join((long, account))
    return Sense(chosen.short, long, chosen.initials_match, sources, _page(everything), said, account)


def _commonest(spellings: list[str]) -> str:
    """The spelling used most, the first one among equals; nothing for none."""
    return max(spellings, key=lambda spelling: (spellings.count(spelling), -spellings.index(spelling)), default="")


def _once(statements: Iterable[tuple[object, _Statement]]) -> tuple[Passage, ...]:
    """The first passage of each document, or of each answer."""
    first: dict[object, Passage] = {}
    for key, one in statements:
        first.setdefault(key, one.passage)
    return tuple(first.values())


def _page(text: str) -> str | None:
    words = set(stems(text))
    return next((page for needed, page in _PAGES if words.issuperset(stems(" ".join(needed)))), None)
