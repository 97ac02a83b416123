"""A passage: a quotation, and where it stands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Passage:
    """A piece of a document.

    Args:
        document: The document's name.
        page: The page, from 1; None where there are none.
        line: The line, from 1: within the page where there are pages.
        start: Where the quotation starts in the document's text.
        end: Where it ends.
        quote: The quotation, exactly `text[start:end]`.
        score: How well it fits what was searched for; larger is better, 0 where nothing was.
    """

    document: str
    page: int | None
    line: int
    start: int
    end: int
    quote: str
    score: float = 0.0
