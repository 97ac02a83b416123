"""An answer: what was asked, whether the documents say it, and the passages that do."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from lsdr.genie.conflicts import Conflict
from lsdr.genie.passage import Passage
from lsdr.genie.senses import Sense

Reason = Literal["answered", "unknown_term", "weak_evidence", "no_documents", "empty_question"]


@dataclass(frozen=True)
class Suggestion:
    """A spelling that is in the documents, instead of a word of the question that is not, and where it first stands."""

    term: str
    instead_of: str
    document: str
    page: int | None
    line: int
    count: int


@dataclass(frozen=True)
class Sentence:
    """A sentence that a model wrote: kept with the passages it quotes, or dropped and why."""

    text: str
    quotations: tuple[Passage, ...]
    kept: bool = True
    why: str = ""


@dataclass(frozen=True)
class Answer:
    """What the documents say to a question, or that they do not.

    Args:
        question: The question as it was asked.
        answered: Whether `passages` answer it. If not, they are only the closest ones.
        reason: "answered", "unknown_term" (a word of the question is in no document), "weak_evidence", "no_documents"
            or "empty_question".
        message: The reason as a sentence.
        passages: Exact quotations, best first.
        senses: What a disputed term is said to stand for, every sense that was found.
        conflicts: Where the passages contradict each other.
        suggestions: Nearest spellings, for unknown terms.
        standing: Whether what the passages say was measured in this project ("measured"), is only said in the documents
            ("cited"), or neither ("unsupported"), with the evidence.
        understood: The question that was asked in place of a follow-up; None when nothing was added.
        sentences: For an answer that a model wrote: its sentences, dropped ones included.
        model: The model that wrote them, if any.
    """

    question: str
    answered: bool
    reason: Reason
    message: str
    passages: tuple[Passage, ...] = ()
    senses: tuple[Sense, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    standing: dict[str, Any] | None = None
    understood: str | None = None
    sentences: tuple[Sentence, ...] = ()
    model: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer as what `json.dumps` takes; equal answers give equal text."""
        return {
            "answered": self.answered,
            "reason": self.reason,
            "passages": [asdict(passage) for passage in self.passages],
            "senses": [asdict(sense) for sense in self.senses],
            "suggestions": [asdict(suggestion) for suggestion in self.suggestions],
            "question": self.question,
            "message": self.message,
            "understood": self.understood,
            "conflicts": [asdict(conflict) for conflict in self.conflicts],
            "standing": self.standing,
            "sentences": [asdict(sentence) for sentence in self.sentences],
            "model": self.model,
        }

    @classmethod
    def from_json(cls, saved: object) -> "Answer":
        """The answer that `to_json` saved.

        Raises:
            ValueError: If it is not a saved answer; the message says what is missing or of the wrong kind.
        """
        if not isinstance(saved, dict):
            raise ValueError(f"a saved answer is a JSON object, not {type(saved).__name__}")
        if saved.get("reason") not in get_args(Reason):
            raise ValueError(f"'reason' must be one of {', '.join(get_args(Reason))}; it is {saved.get('reason')!r}")
        try:
            return cls(
                question=str(saved["question"]),
                answered=bool(saved["answered"]),
                reason=saved["reason"],
                message=str(saved["message"]),
                passages=_passages(saved["passages"]),
                senses=tuple(_sense(sense) for sense in saved["senses"]),
                conflicts=tuple(_conflict(conflict) for conflict in saved.get("conflicts", [])),
                suggestions=tuple(Suggestion(**suggestion) for suggestion in saved["suggestions"]),
                standing=saved.get("standing"),
                understood=saved.get("understood"),
                sentences=tuple(
                    Sentence(**{**sentence, "quotations": _passages(sentence["quotations"])})
                    for sentence in saved.get("sentences", [])
                ),
                model=saved.get("model"),
            )
        except KeyError as missing:
            raise ValueError(f"the saved answer has no {missing}") from missing
        except (TypeError, AttributeError) as wrong:
            raise ValueError(f"this is not a saved answer: {wrong}") from wrong

    def to_text(self) -> str:
        """The answer in plain lines: the message, the senses, each quotation below its place."""
        lines = [f"(understood as: {self.understood})"] if self.understood else []
        lines.append(self.message)
        lines += [f"Did you mean {item.term}? ({place(item)})" for item in self.suggestions]
        for sense in self.senses:
            flag = "" if sense.initials_match else " [the initials do not match]"
            said = "; ".join(place(source) for source in sense.sources) or "no source"
            lines.append(f"{sense.term}: {sense.expansion}{flag} - {said}")
            lines += [f"    {sense.account}"] if sense.account else []
            lines += [f"    see {sense.page}"] if sense.page else []
        lines += [sentence.text for sentence in self.sentences if sentence.kept]
        for passage in self.passages:
            lines += ["", f"{place(passage)}:", passage.quote]
        return "\n".join(lines)


def place(item: Passage | Suggestion) -> str:
    """Where it stands, for a reader.

    Example:
        >>> place(Suggestion("LDSR", "lsdr", "stable.txt", None, 224, 1))
        'stable.txt, line 224'
    """
    page = "" if item.page is None else f"page {item.page}, "
    return f"{item.document}, {page}line {item.line}"


def _passages(saved: list[dict[str, Any]]) -> tuple[Passage, ...]:
    return tuple(Passage(**passage) for passage in saved)


def _sense(saved: dict[str, Any]) -> Sense:
    return Sense(**{**saved, "sources": _passages(saved["sources"]), "said": _passages(saved.get("said", []))})


def _conflict(saved: dict[str, Any]) -> Conflict:
    return Conflict(**{**saved, "sides": _passages(saved["sides"])})
