"""BM25 with ties that always fall the same way."""

import math
import sqlite3
from collections import defaultdict
from collections.abc import Collection

from lsdr.genie.passage import Passage
from lsdr.genie.store import passages, sha256
from lsdr.genie.terms import content_terms, terms

# Up to so many passages words are weighted one by one: the full-text index gives a word that is in more than half of
# them no weight at all, which among few passages leaves nothing to rank by. Among many, such a word says nothing.
_FEW = 2_000
# A question is searched for by its first so many words.
_TERMS = 64
_BEYOND = 64


def _only(documents: Collection[int] | None) -> str:
    return "" if documents is None else f" AND p.document IN ({','.join(map(str, documents))})"


def _by_word(
    connection: sqlite3.Connection, words: list[str], total: int, documents: Collection[int] | None
) -> dict[int, float]:
    r"""BM25 with the weight :math:`\log(1 + (N - n + 1/2)/(n + 1/2))` of a word in n of N passages (Lucene's)."""
    scores: dict[int, float] = defaultdict(float)
    allowed = None
    if documents is not None:
        allowed = {row for (row,) in connection.execute(f"SELECT id FROM passage p WHERE 1{_only(documents)}")}
    for word in words:
        rows = connection.execute("SELECT rowid, bm25(words) FROM words WHERE words MATCH ?", (f'"{word}"',)).fetchall()
        odds = (total - len(rows) + 0.5) / (len(rows) + 0.5)
        # What the index multiplied with: it takes 1e-6 where the logarithm is not positive.
        weight = math.log(odds) if odds > 1 else 1e-6
        for row, score in rows:
            if allowed is None or row in allowed:
                scores[row] -= score / weight * math.log1p(odds)
    return {row: round(score, 6) for row, score in scores.items()}


def _together(
    connection: sqlite3.Connection, words: list[str], limit: int, documents: Collection[int] | None
) -> dict[int, float]:
    """The best `limit`, and all that are level with the last of them."""
    query = " OR ".join(f'"{word}"' for word in words)
    join = "" if documents is None else " JOIN passage p ON p.id = words.rowid"
    asked = limit + _BEYOND
    while True:
        rows = connection.execute(
            f"SELECT words.rowid, words.rank FROM words{join} WHERE words MATCH ?{_only(documents)} "
            "ORDER BY words.rank LIMIT ?",
            (query, asked),
        ).fetchall()
        scores = {row: round(-score, 6) for row, score in rows}
        if len(rows) < asked or scores[rows[-1][0]] < scores[rows[limit - 1][0]]:
            return scores
        asked *= 4


def search(
    connection: sqlite3.Connection, query: str, limit: int, documents: Collection[int] | None = None
) -> list[Passage]:
    """The passages that fit best, inside a transaction (see `lsdr.genie.index.Index.search`)."""
    words = (content_terms(query) or list(dict.fromkeys(terms(query))))[:_TERMS]
    if not words or limit < 1:
        return []
    total = connection.execute("SELECT coalesce(sum(passages), 0) FROM document").fetchone()[0]
    scores = (
        _by_word(connection, words, total, documents)
        if total <= _FEW
        else _together(connection, words, limit, documents)
    )
    if len(scores) > limit:
        last = sorted(scores.values(), reverse=True)[limit - 1]
        scores = {row: score for row, score in scores.items() if score >= last}
    found = passages(connection, scores)
    found.sort(key=lambda each: (-each.score, sha256(each.quote.encode()), each.document, each.start))
    return found[:limit]
