"""Compare quotations with the documents as they are now."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lsdr.genie.index import Index
from lsdr.genie.passage import Passage

Status = Literal["ok", "moved", "changed", "document_missing"]


@dataclass(frozen=True)
class Checked:
    """A quotation and what became of it.

    "ok": it stands where it stood. "moved": it stands, word for word, at `now`, the place nearest to where it stood.
    "changed": the document no longer has it. "document_missing": there is no such document.
    """

    document: str
    start: int
    end: int
    quote: str
    status: Status
    now: int | None = None


@dataclass(frozen=True)
class Verified:
    """Every quotation of an answer, in its order and once."""

    quotations: tuple[Checked, ...]

    @property
    def ok(self) -> bool:
        """Whether every quotation still stands in its document, where it stood or elsewhere."""
        return all(checked.status in ("ok", "moved") for checked in self.quotations)

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""
        return {"ok": self.ok, "quotations": [asdict(checked) for checked in self.quotations]}


def exact(index: Index, passages: Iterable[Passage]) -> tuple[Passage, ...]:
    """The passages whose quotation is the text of their document at their place, each once; the others are left out.

    So that a document changed while it was searched, by another process, is not misquoted.
    """
    return tuple(
        passage
        for passage in dict.fromkeys(passages)
        if passage.quote
        and 0 <= passage.start < passage.end
        and index.quote(passage.document, passage.start, passage.end) == passage.quote
    )


def verify(answer: object, index: Index) -> Verified:
    """Whether the quotations of a saved answer are still in the documents.

    All of them: of its passages, senses, conflicts and sentences, wherever an object has a document, a start, an end
    and a quote.

    Args:
        answer: What `Answer.to_json` gave, that as text, or the path of a file with it.
        index: The documents.

    Raises:
        ValueError: If it is not a saved answer.
    """
    if isinstance(answer, Path):
        answer = answer.read_text(encoding="utf-8")
    if isinstance(answer, str):
        try:
            answer = json.loads(answer)
        except (json.JSONDecodeError, RecursionError) as broken:
            raise ValueError(f"this is not JSON: {broken}") from broken
    if not isinstance(answer, dict) or not isinstance(answer.get("passages"), list):
        raise ValueError("a saved answer is a JSON object with 'answered', 'reason' and a list 'passages'")
    quotations = tuple(dict.fromkeys(_quotations(answer)))
    texts = _texts(index, (document for document, _, _, _ in quotations))
    return Verified(tuple(_check(texts, *quotation) for quotation in quotations))


def _quotations(saved: object) -> Iterator[tuple[str, int, int, str]]:
    if isinstance(saved, dict):
        if "quote" in saved:
            document, start, end, quote = (saved.get(key) for key in ("document", "start", "end", "quote"))
            if not (isinstance(document, str) and isinstance(quote, str) and type(start) is int and type(end) is int):
                raise ValueError(f"a quotation has a document, a start, an end and a quote; this one is {saved!r:.200}")
            yield document, start, end, quote
        else:
            for part in saved.values():
                yield from _quotations(part)
    elif isinstance(saved, list):
        for part in saved:
            yield from _quotations(part)


def _check(texts: dict[str, str], document: str, start: int, end: int, quote: str) -> Checked:
    if document not in texts:
        return Checked(document, start, end, quote, "document_missing")
    text = texts[document]
    if quote and start >= 0 and text[start:end] == quote:
        return Checked(document, start, end, quote, "ok", start)
    places = []
    if quote:
        after = text.find(quote, max(0, start))
        before = text.rfind(quote, 0, max(0, start) + len(quote))
        places = [place for place in (before, after) if place >= 0]
    if not places:
        return Checked(document, start, end, quote, "changed")
    return Checked(document, start, end, quote, "moved", min(places, key=lambda place: abs(place - start)))


def _texts(index: Index, names: Iterable[str]) -> dict[str, str]:
    wanted = dict.fromkeys(names)
    there = {entry.name for entry in index.documents()} if wanted else set()
    return {name: index.text(name) for name in wanted if name in there}
