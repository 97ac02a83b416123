"""The same word in another form, and the nearest spellings of a word that is not there."""

from lsdr.genie.answer import Suggestion
from lsdr.genie.index import Index
from lsdr.genie.passage import Passage
from lsdr.genie.question import Word
from lsdr.genie.terms import term_spans, terms

_ENDINGS = ("", "s", "es", "ed", "d", "e", "ing", "er", "ers", "ly", "al")


def forms(word: Word) -> tuple[str, ...]:
    """The word, and what it may be in another number, tense or spelling; rule-made, so not all of them are words.

    An acronym only has a plural and a number only itself: any other form of it is something else.

    Example:
        >>> forms(Word("lsdr", "LSDR", "acronym"))
        ('lsdr', 'lsdrs')
        >>> "normalises" in forms(Word("normalizing", "normalizing", "plain"))
        True
    """
    term = word.term
    if word.kind == "number" or len(term) < 3:
        return (term,)
    if word.kind == "acronym":
        return (term, term[:-1]) if term.endswith("s") and not term.endswith("ss") else (term, f"{term}s")
    made = [term]
    for stem in _stems(term):
        made += [stem + ending for ending in _ENDINGS]
        if stem.endswith("y"):
            made += [f"{stem[:-1]}ies", f"{stem[:-1]}ied"]
    made += [spelt for form in made for spelt in _british_or_american(form)]
    return tuple(dict.fromkeys(form for form in made if len(form) > 2))


def suggest(index: Index, word: Word, limit: int = 3) -> tuple[Suggestion, ...]:
    """The spellings in the documents nearest to the word, and where they stand."""
    found = []
    for near in index.near(word.term, limit):
        page, line = _where(near.passage, near.term)
        found.append(Suggestion(near.term, word.surface, near.passage.document, page, line, near.count))
    return tuple(found)


def _where(passage: Passage, term: str) -> tuple[int | None, int]:
    """The page and line of the term's first place in the passage, which begins before it."""
    sought = terms(term)
    starts = (start for start, _, found in term_spans(passage.quote) if [found] == sought)
    before = passage.quote[: next(starts, 0)]
    pages, _, last = before.rpartition("\f\n")
    if passage.page is None or not pages:
        return passage.page, passage.line + before.count("\n")
    return passage.page + before.count("\f\n"), 1 + last.count("\n")


def _stems(term: str) -> list[str]:
    stems = [term]
    for ending, least in (("ies", 2), ("ied", 2)):
        if term.endswith(ending) and len(term) - 3 >= least:
            stems.append(f"{term[:-3]}y")
    for ending in ("ing", "ers", "ed", "es", "er", "ly", "s", "e"):
        stem = term.removesuffix(ending)
        if stem != term and len(stem) >= 3 and not (ending == "s" and stem.endswith("s")):
            stems.append(stem)
            if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "aeiouls":
                stems.append(stem[:-1])
    return stems


def _british_or_american(form: str) -> list[str]:
    other = []
    for british, american in (("is", "iz"), ("our", "or"), ("tre", "ter")):
        for one, two in ((british, american), (american, british)):
            at = form.rfind(one)
            if at > 2 and len(form) - at - len(one) <= 5:
                other.append(form[:at] + two + form[at + len(one) :])
    return other
