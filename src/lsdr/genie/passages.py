"""A document as passages: paragraphs, or as many sentences as belong together."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from lsdr.genie.document import Document

WORDS = 120
# A passage of fewer words takes the next paragraph in; and text without spaces is cut after so many characters.
_FEW = 30
_CHARACTERS = 1600
_HEADING_WORDS = 12

_PARAGRAPH = re.compile(r"\S[^\n\f]*(?:\n(?!#{1,6}\s)(?=[^\S\n\f]*[^\s])[^\n\f]*)*")
_SENTENCE_END = re.compile(
    r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bal\.)(?<!\bFig\.)(?<!\bEq\.)(?<!\bcf\.)(?<!\bvs\.)(?<!\bDr\.)"
    r"(?<=[.!?:;])[\"'\u2019\u201d)\]]*\s+|(?<=[\u3002\uff01\uff1f\u06d4\u061f])\s*|\n\s*"
)
_WORD = re.compile(rf"\S{{1,{_CHARACTERS}}}")
_HEADING = re.compile(r"#{1,6}\s")


class Span(NamedTuple):
    """Where a passage starts and ends in its document's text."""

    start: int
    end: int


class _Piece(NamedTuple):
    start: int
    end: int
    words: int
    heading: bool


def _is_heading(paragraph: str, words: int) -> bool:
    if words > _HEADING_WORDS or "\n" in paragraph:
        return False
    return bool(_HEADING.match(paragraph)) or (paragraph[0].isupper() and paragraph[-1].isalnum())


def _cut(text: str, start: int, end: int) -> Iterator[_Piece]:
    """A stretch that has no sentences to part it at: by words, and where there are none by characters."""
    begin, words, last = start, 0, start
    for word in _WORD.finditer(text, start, end):
        if words and (words == WORDS or word.end() - begin > _CHARACTERS):
            yield _Piece(begin, last, words, False)
            words = 0
        if not words:
            begin = word.start()
        words, last = words + 1, word.end()
    if words:
        yield _Piece(begin, last, words, False)


def _sentences(text: str, start: int, end: int) -> Iterator[_Piece]:
    cuts = [start]
    for match in _SENTENCE_END.finditer(text, start, end):
        if match.end() > cuts[-1]:
            cuts.append(match.end())
    cuts.append(end)
    begin, words = start, 0
    for here, there in pairwise(cuts):
        more = len(text[here:there].split())
        if words and (words + more > WORDS or there - begin > _CHARACTERS):
            yield from _trimmed(text, begin, here, words)
            begin, words = here, 0
        words += more
    yield from _trimmed(text, begin, end, words)


def _trimmed(text: str, start: int, end: int, words: int) -> Iterator[_Piece]:
    if words > WORDS or end - start > _CHARACTERS:
        yield from _cut(text, start, end)
    elif words:
        piece = text[start:end]
        yield _Piece(start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip()), words, False)


def _pieces(text: str) -> Iterator[_Piece]:
    for match in _PARAGRAPH.finditer(text):
        start, paragraph = match.start(), match.group().rstrip()
        end, words = start + len(paragraph), len(paragraph.split())
        if words <= WORDS and len(paragraph) <= _CHARACTERS:
            yield _Piece(start, end, words, _is_heading(paragraph, words))
        else:
            yield from _sentences(text, start, end)


def split(document: Document) -> list[Span]:
    r"""Cut a document into passages.

    A passage is a paragraph; short ones are joined with what follows until there are 30 words, headings always, and
    long ones are parted between sentences, so that a passage has at most about 120 words. A passage stays within a
    page. Passages do not overlap, and every character but white space is in exactly one.

    Cost: two passes of the text.

    Example:
        >>> text = "# Title\n\nFirst words.\n\n# Next\n\nOther words."
        >>> [text[start:end] for start, end in split(Document("a.md", "markdown", text))]
        ['# Title\n\nFirst words.', '# Next\n\nOther words.']
    """
    text, pages, page = document.text, document.pages, 1
    found: list[Span] = []
    start = end = words = 0
    only_headings = False
    for piece in _pieces(text):
        turned = False
        while page < len(pages) and piece.start >= pages[page]:
            page, turned = page + 1, True
        joined = (
            words
            and not turned
            and piece.end - start <= _CHARACTERS
            and (
                (only_headings and words + piece.words <= WORDS + 2 * _HEADING_WORDS)
                or (words < _FEW and not piece.heading and text[piece.start] != "#" and words + piece.words <= WORDS)
            )
        )
        if joined:
            end, words, only_headings = piece.end, words + piece.words, only_headings and piece.heading
            continue
        if words:
            found.append(Span(start, end))
        start, end, words, only_headings = piece
    if words:
        found.append(Span(start, end))
    return found
