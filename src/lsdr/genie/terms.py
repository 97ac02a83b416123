"""The words of a text, exactly as the full-text index makes them."""

import sqlite3
from collections.abc import Iterator

TOKENIZER = "unicode61 remove_diacritics 2"

# Words that say nothing about what is asked: function words, what contractions leave, and the verbs of a request.
_STOPWORDS = """
    a about above after again against all also am an and any are aren as at be because been before being below between
    both but by can cannot could couldn d did didn do does doesn doing don down during each either else for from further
    had hadn has hasn have haven having he her here hers herself him himself his how i if in into is isn it its itself
    just ll m may me might mine more most must my myself neither no nor not now of off on once one only or other ought
    our ours ourselves out over own please re s same shall she should shouldn so some such t than that the their theirs
    them themselves then there these they this those through thus to too under until up upon us ve very was wasn we were
    weren what whatever when where whether which while who whom whose why will with won would wouldn yes yet you your
    yours yourself yourselves
    define describe discuss elaborate explain give list mean meaning means say says show summarise summarize tell
"""
STOPWORDS = frozenset(_STOPWORDS.split())

# What a character that cannot start a word, but can stand in one, is written as until words are cut.
_INSIDE = "\x01"


def _tokens(texts: list[str]) -> list[list[str]]:
    """The full-text index's own words of each text: what everything here has to agree with."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(f"CREATE VIRTUAL TABLE t USING fts5(x, tokenize='{TOKENIZER}')")
        connection.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, instance)")
        connection.executemany("INSERT INTO t(rowid, x) VALUES (?, ?)", enumerate(texts))
        found: list[list[str]] = [[] for _ in texts]
        for row, term in connection.execute("SELECT doc, term FROM v ORDER BY doc, offset"):
            found[row].append(term)
        return found
    finally:
        connection.close()


class _Folding(dict[int, str]):
    """What each character becomes in a word, or a space; learnt from the index for each that is met."""

    def learn(self, text: str) -> None:
        new = [each for each in sorted(set(text)) if ord(each) not in self]
        if not new:
            return
        # Lone surrogates are no characters: they cannot be stored, and part words.
        self.update({ord(each): " " for each in new if "\ud800" <= each <= "\udfff"})
        new = [each for each in new if ord(each) not in self]
        alone, inside = _tokens(new), _tokens([f"a{each}b" for each in new])
        for each, starts, stands in zip(new, alone, inside, strict=True):
            if len(stands) != 1:
                self[ord(each)] = " "
            elif starts:
                self[ord(each)] = stands[0][1:-1]
            else:
                self[ord(each)] = _INSIDE + stands[0][1:-1]


_FOLDING = _Folding({code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)})


def _fold(text: str) -> str:
    if not text.isascii():
        _FOLDING.learn(text)
    return text.translate(_FOLDING)


def terms(text: str) -> list[str]:
    """The words of a text, in order, without case or accents.

    Example:
        >>> terms("L.S.D.R., naïve (Layer-wise)")
        ['l', 's', 'd', 'r', 'naive', 'layer', 'wise']
    """
    folded = _fold(text)
    if _INSIDE not in folded:
        return folded.split()
    return [word for _, _, word in term_spans(text)]


def term_spans(text: str) -> Iterator[tuple[int, int, str]]:
    """The words of a text with where they stand: start, end, word.

    Example:
        >>> [("An LSDR."[start:end], word) for start, end, word in term_spans("An LSDR.")]
        [('An', 'an'), ('LSDR', 'lsdr')]
    """
    if not text.isascii():
        _FOLDING.learn(text)
    begin, word = -1, ""
    for at, character in enumerate(text):
        folded = _FOLDING[ord(character)]
        if folded == " ":
            if begin >= 0:
                yield begin, at, word
            begin, word = -1, ""
        elif folded.startswith(_INSIDE):
            word += folded[1:] if begin >= 0 else ""
        else:
            begin, word = (at if begin < 0 else begin), word + folded
    if begin >= 0:
        yield begin, len(text), word


def content_terms(question: str) -> list[str]:
    """The words of a question that say what it is about, each once, in order.

    Example:
        >>> content_terms("Explain LSDR in Stable Diffusion!")
        ['lsdr', 'stable', 'diffusion']
    """
    return [term for term in dict.fromkeys(terms(question)) if term not in STOPWORDS]
