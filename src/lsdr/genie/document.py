"""A document: one text, to which every quotation refers."""

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Document:
    r"""What a file says, as one text.

    Args:
        name: What the document is called.
        kind: "text", "markdown", "html", "pdf", "docx", "notebook" or "python".
        text: The text: newlines are ``\n``, invisible characters are gone (`lsdr.genie.readers.clean`). A quotation is
            ``text[start:end]``, exactly.
        pages: Where each page starts in the text; empty for a kind without pages.
        problems: What could not be read, or not for certain, in sentences.

    Example:
        >>> document = Document("a.pdf", "pdf", "first\nsecond\f\nthird\f\n", pages=(0, 14))
        >>> document.where(6), document.where(14)
        ((1, 2), (2, 1))
    """

    name: str
    kind: str
    text: str
    pages: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()

    @cached_property
    def _lines(self) -> "array[int]":
        """Where each line starts: 8 bytes a line, where a list would take 40."""
        starts, find = array("Q", [0]), self.text.find
        at = find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = find("\n", at + 1)
        return starts

    def where(self, start: int) -> tuple[int | None, int]:
        """The page (None where there are none) and the line of a place, both counted from 1.

        Lines count within the page where there are pages. The first call reads the text once; each then costs the
        logarithm of its lines.

        Raises:
            ValueError: If the place is not in the text.
        """
        if not 0 <= start <= len(self.text):
            raise ValueError(f"{self.name} has places 0 to {len(self.text)}, not {start}")
        line = bisect_right(self._lines, start)
        if not self.pages:
            return None, line
        page = max(1, bisect_right(self.pages, start))
        return page, line - bisect_right(self._lines, self.pages[page - 1]) + 1
