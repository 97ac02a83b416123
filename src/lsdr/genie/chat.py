"""A conversation: a question that leans on the one before it."""

import re
from collections.abc import Sequence

from lsdr.genie.answer import Answer
from lsdr.genie.index import Index
from lsdr.genie.question import Word, read_question
from lsdr.genie.readers.clean import clean

# What stands for something said before: not "that" or "this" where a clause or a noun of the question's own follows.
_REFERS = re.compile(
    r"\b(?:its?|they|them|theirs?|he|she|his|hers?|him|the former|the latter)\b"
    r"|\b(?:this|that|these|those)(?=\s*(?:$|[?.!,;]|(?:is|are|was|were|does|do|did|method|term|one|ones|way)\b))"
    r"|\b(?:is|are|was|were|do|does|did|can|could|why|how|of|for|with) (?:this|that|these|those)\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"\s*(and|but|or|so|also|then|why|how so|what about|how about|what else|more)\b", re.IGNORECASE)
# A question with more particular words than these stands for itself, whatever it begins with.
_FEW = 2


def understand(question: str, history: Sequence[str] = ()) -> str:
    """The question as it stands for itself: a follow-up with the particular words of the last question that had any.

    A follow-up refers back ("its", "those"), goes on ("and ...", "what about ...", "why?") or has no word of its own,
    and has at most two particular words.

    Example:
        >>> understand("How fast is it?", ["What is spectral normalization?"])
        'How fast is it? (spectral normalization)'
        >>> understand("What is weight decay?", ["What is spectral normalization?"])
        'What is weight decay?'
    """
    question = clean(question).strip()
    own = _particular(question)
    refers = _REFERS.search(question) or _GOES_ON.match(question) or not read_question(question)
    if not history or not question or not refers or len(own) > _FEW:
        return question
    for position in reversed(range(len(history))):
        earlier = understand(history[position], history[:position])
        before = _particular(earlier)
        if before:
            added = [word.surface for word in before if word.term not in {each.term for each in own}]
            return f"{question} ({' '.join(added)})" if added else question
    return question


class Chat:
    """Questions in turn, each with what was asked before it."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.turns: list[Answer] = []

    def ask(self, question: str, *, limit: int = 5) -> Answer:
        """The answer, which is also kept."""
        from lsdr.genie.ask import ask

        answer = ask(self.index, question, history=[turn.question for turn in self.turns], limit=limit)
        self.turns.append(answer)
        return answer

    def clear(self) -> None:
        """Forget what was asked."""
        self.turns.clear()


def _particular(question: str) -> list[Word]:
    return [word for word in read_question(question) if word.kind != "common"]
