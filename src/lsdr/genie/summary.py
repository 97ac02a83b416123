"""What documents say, in their own sentences."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lsdr.genie.document import Document
from lsdr.genie.index import Index
from lsdr.genie.passage import Passage
from lsdr.genie.terms import STOPWORDS, terms

# Of a longer document these many sentences are looked at, evenly spaced.
MAX_SENTENCES = 20_000
WORDS = (6, 60)
# A sentence that shares this much of its words with one already chosen says nothing new.
SAME = 0.5
_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])|\n\s*\n|\n(?=[#*\-|>]|\d+\. )|\f")


@dataclass(frozen=True)
class Summary:
    """A document's most telling sentences, in its order."""

    document: str
    passages: tuple[Passage, ...]


def summarize(index: Index, documents: Sequence[str] | None = None, sentences: int = 5) -> tuple[Summary, ...]:
    r"""The most telling sentences of each document, quoted word for word; the same ones every time.

    A sentence is worth the mean of its words' worth times the logarithm of how many there are, a word's worth being

    .. math:: \ln(1 + f) \ln(1 + N / n)

    with f its count in the document, N the documents and n those among them that hold it; one that repeats half of the
    words of a chosen sentence is left out.

    Args:
        index: The documents.
        documents: Their names; all of them when left out.
        sentences: How many of each, at most.

    Raises:
        ValueError: If there is no such document, or sentences is not positive.
    """
    if sentences < 1:
        raise ValueError(f"a summary has at least 1 sentence; it was asked for {sentences}")
    there = [entry.name for entry in index.documents()]
    wanted = there if documents is None else list(dict.fromkeys(documents))
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise ValueError(f"there is no document {', '.join(unknown)}; the documents are {', '.join(there) or 'none'}")
    found = []
    seen: Counter[str] = Counter()
    for name in wanted:
        spans = _sentences(index.text(name))
        seen.update({word for _, _, words in spans for word in words})
        found.append((name, spans))
    return tuple(
        Summary(name, _telling(index.document(name), spans, seen, len(wanted), sentences)) for name, spans in found
    )


_Spans = list[tuple[int, int, list[str]]]


def _sentences(text: str) -> _Spans:
    cut = list(_cuts(text))
    step = max(1, math.ceil(len(cut) / MAX_SENTENCES))
    spans = []
    for start, end in cut[::step]:
        words = [word for word in terms(text[start:end]) if word not in STOPWORDS and not word.isdigit()]
        if WORDS[0] <= len(words) <= WORDS[1] and text[start] not in "#|" and not text.startswith("```", start):
            spans.append((start, end, words))
    return spans


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    begin = 0
    for match in (*_END.finditer(text), None):
        end = len(text) if match is None else match.start()
        piece = text[begin:end]
        if piece.strip():
            start = begin + len(piece) - len(piece.lstrip())
            yield start, start + len(piece.strip())
        begin = end if match is None else match.end()


def _telling(
    document: Document, spans: _Spans, seen: Counter[str], documents: int, sentences: int
) -> tuple[Passage, ...]:
    counts = Counter(word for _, _, words in spans for word in words)
    worth = {word: math.log1p(count) * math.log1p(documents / seen[word]) for word, count in counts.items()}
    scored = []
    for start, end, words in spans:
        distinct = sorted(set(words))
        score = math.fsum(worth[word] for word in distinct) / len(distinct) * math.log1p(len(distinct))
        scored.append((-round(score, 6), start, end, frozenset(distinct)))
    chosen: list[tuple[float, int, int, frozenset[str]]] = []
    for candidate in sorted(scored, key=lambda each: each[:3]):
        if len(chosen) == sentences:
            break
        if all(len(candidate[3] & other[3]) < SAME * min(len(candidate[3]), len(other[3])) for other in chosen):
            chosen.append(candidate)
    return tuple(
        Passage(document.name, *document.where(start), start, end, document.text[start:end], -score)
        for score, start, end, _ in sorted(chosen, key=lambda each: each[1])
    )
