"""The words of a question: which of them it is about."""

import re
from dataclasses import dataclass
from typing import Literal

from lsdr.genie.english import ASKING, COMMON
from lsdr.genie.readers.clean import clean
from lsdr.genie.terms import content_terms, term_spans

Kind = Literal["acronym", "name", "number", "plain", "common"]

_SENTENCE_END = re.compile(r"(?:\A|[.?!:;\"'“‘(])\s*$")
# How far before a word the end of a sentence is looked for.
_BEFORE = 8
_VERBAL = ("ed", "ing", "ly", "ize", "ise", "izes", "ises")
_CONNECTIVES = {"and", "or", "not"}


@dataclass(frozen=True)
class Word:
    """A word of a question, as it is indexed and as it was written.

    "acronym" and "name" are told by their capitals, an acronym in small letters by its lack of vowels; "common" words
    are those that a text may well replace by others.
    """

    term: str
    surface: str
    kind: Kind

    @property
    def verbal(self) -> bool:
        """Whether it looks like a verb or an adverb, for which the documents may use another one."""
        return self.kind == "plain" and self.term.endswith(_VERBAL)


def read_question(question: str) -> tuple[Word, ...]:
    """The words that a question is about, in their order, each once.

    Words that only ask ("explain", "what does ... mean") are left out unless there are no others.

    Example:
        >>> [(word.term, word.kind) for word in read_question("Explain LSDR in stable diffusion")]
        [('lsdr', 'acronym'), ('stable', 'plain'), ('diffusion', 'plain')]
    """
    question = clean(question)
    found = [(start, question[start:end], term) for start, end, term in term_spans(question)]
    shouted = not any(character.islower() for character in question)
    titled = len(found) > 2 and all(surface[0].isupper() for _, surface, _ in found if len(surface) > 3)
    content = set(content_terms(question))
    words: dict[str, Word] = {}
    for start, surface, term in found:
        initials = not shouted and len(surface) > 1 and surface.isupper() and term not in _CONNECTIVES
        begins = bool(_SENTENCE_END.search(question[max(0, start - _BEFORE) : start]))
        if term in content or initials:
            kind = _kind(term, surface, capitals=not shouted, names=not (begins or shouted or titled))
            words.setdefault(term, Word(term, surface, kind))
    asked = tuple(word for word in words.values() if word.term not in ASKING or word.kind == "acronym")
    return asked or tuple(words.values())


def _kind(term: str, surface: str, *, capitals: bool, names: bool) -> Kind:
    if re.fullmatch(r"\d+(st|nd|rd|th|s)?", term):
        return "number"
    if capitals and sum(character.isupper() for character in surface) > 1:
        return "acronym"
    if term in COMMON:
        return "common"
    if any(character.isdigit() for character in term) and any(character.isalpha() for character in term):
        return "acronym"
    if term.isascii() and 1 < len(term) <= 6 and not set(term) & set("aeiouy"):
        return "acronym"
    return "name" if names and surface[0].isupper() else "plain"
