"""The sentences of a text, as places in it."""

import re
from itertools import pairwise

from lsdr.genie.passage import Passage

_END = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bal)(?<!\bFig)(?<!\bEq)(?<!\bcf)(?<!\bvs)(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bNo)"
    r"[.!?][\"'”’)\]]*(?=\s)|\n\s*\n|\n(?=\s*(?:[*\-+•]|\d+[.)])\s)|[\f。！？]"
)


def sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence starts and ends; blank lines and list items part sentences too.

    Example:
        >>> text = "It is 3.5 m, e.g. here. Is it?"
        >>> [text[start:end] for start, end in sentences(text)]
        ['It is 3.5 m, e.g. here.', 'Is it?']
    """
    cuts = [0, *(match.end() for match in _END.finditer(text)), len(text)]
    found = []
    for start, end in pairwise(cuts):
        piece = text[start:end]
        begin = start + len(piece) - len(piece.lstrip())
        stop = end - (len(piece) - len(piece.rstrip()))
        if any(character.isalnum() for character in text[begin:stop]):
            found.append((begin, stop))
    return found


def part(passage: Passage, start: int, end: int) -> Passage:
    """A part of a passage, from one place in its quotation to another, with its own line."""
    line = passage.line + passage.quote.count("\n", 0, start)
    quote = passage.quote[start:end]
    return Passage(
        passage.document, passage.page, line, passage.start + start, passage.start + end, quote, passage.score
    )
