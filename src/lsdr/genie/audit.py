"""What is wrong with a conversation: differing answers, contradicting senses, claims without a source."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lsdr.genie.clauses import sentences
from lsdr.genie.clusters import same_expansion, stem
from lsdr.genie.conflicts import Conflict, find_conflicts
from lsdr.genie.document import Document
from lsdr.genie.passage import Passage
from lsdr.genie.quantities import quantities
from lsdr.genie.senses import Sense, find_senses, senses_of_document
from lsdr.genie.terms import STOPWORDS, content_terms, terms
from lsdr.genie.transcript import Conversation, is_transcript, read_transcript, write_transcript

if TYPE_CHECKING:
    from lsdr.genie.index import Index

# A passage supports a claim if it holds so much of the claim's words, and all of its numbers.
_SUPPORTED = 0.8
_FEWEST_WORDS = 3
_LOOKED_AT = 10


@dataclass(frozen=True)
class Repeated:
    """A question that was asked more than once and was not answered the same.

    Args:
        question: The question, as it was first asked.
        turns: Which turns ask it, from 1.
        answers: How many different answers it got.
    """

    question: str
    turns: tuple[int, ...]
    answers: int


@dataclass(frozen=True)
class Disputed:
    """A term that the conversation gives more than one sense."""

    term: str
    senses: tuple[Sense, ...]


@dataclass(frozen=True)
class Unsupported:
    """A claim that no document supports.

    Args:
        turn: The turn that makes it, from 1.
        claim: The sentence, quoted from the conversation.
        closest: The passage that holds the most of its words; None if there is none.
    """

    turn: int
    claim: Passage
    closest: Passage | None


@dataclass(frozen=True)
class Audit:
    """What was found.

    Args:
        turns: How many turns the conversation has.
        claims: How many claims its answers make.
        repeated: Questions with different answers.
        disputed: Terms with several senses, each with its sources in the documents.
        conflicts: Sentences of the answers that contradict each other.
        unsupported: Claims that no document supports.
    """

    turns: int
    claims: int
    repeated: tuple[Repeated, ...]
    disputed: tuple[Disputed, ...]
    conflicts: tuple[Conflict, ...]
    unsupported: tuple[Unsupported, ...]

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes; equal audits give equal text."""
        return asdict(self)

    def to_text(self) -> str:
        """In plain lines."""
        lines = [f"{self.turns} answers, {self.claims} claims, {len(self.unsupported)} of them in no document."]
        lines += [
            f'"{one.question}" was asked {len(one.turns)} times and got {one.answers} different answers.'
            for one in self.repeated
        ]
        for term in self.disputed:
            unsourced = sum(not sense.sources for sense in term.senses)
            without = "none has a source" if unsourced == len(term.senses) else f"{unsourced} without a source"
            lines.append(f"{term.term} has {len(term.senses)} senses; {without}:")
            for sense in term.senses:
                flag = "" if sense.initials_match else " [the initials do not match]"
                account = f" - {sense.account}" if sense.account else ""
                lines.append(f"  {sense.expansion}{flag}{account}")
        for conflict in self.conflicts:
            lines.append(f"The answers contradict each other ({conflict.kind}: {conflict.subject}):")
            lines += [f"  {side.quote}" for side in conflict.sides]
        lines += [f"No source (answer {one.turn}): {one.claim.quote}" for one in self.unsupported]
        return "\n".join(lines)


def audit(conversation: Conversation, index: "Index", *, name: str = "conversation") -> Audit:
    """Look for what a reader of a conversation has to know before believing it.

    Transcripts in the index are no sources, whichever conversation they hold: what was answered once does not support
    that it is answered again. A claim is a sentence of an answer with three words or more that say something; a
    document supports it if one passage holds 80 % of these words and all of its numbers, or if it resolves to a value
    that was measured in this project. So "unsupported" means "not said in the documents", not "wrong".

    Args:
        conversation: What `read_transcript` read.
        index: The documents to hold it against.
        name: What the conversation is called in quotations, whose places are those of its file.
    """
    document = Document(name, "text", write_transcript(conversation))
    conversation = read_transcript(document.text)
    answers = list(_answers(document, conversation))
    claims = [(turn, claim) for turn, answer in enumerate(answers, 1) for claim in _claims(answer)]
    sources = [entry.name for entry in index.documents() if not is_transcript(index.text(entry.name))]
    support: dict[str, tuple[bool, Passage | None]] = {}
    unsupported = []
    for turn, claim in claims:
        said = " ".join(claim.quote.split())
        if said not in support:
            support[said] = _support(said, index, sources)
        supported, closest = support[said]
        if not supported:
            unsupported.append(Unsupported(turn, claim, closest))
    apart = [replace(answer, document=f"{name}, answer {turn}") for turn, answer in enumerate(answers, 1)]
    conflicts = tuple(
        replace(conflict, sides=tuple(replace(side, document=name) for side in conflict.sides))
        for conflict in find_conflicts(apart)
    )
    disputed = tuple(_disputed(document, index))
    return Audit(len(answers), len(claims), tuple(_repeated(conversation)), disputed, conflicts, tuple(unsupported))


def _answers(document: Document, conversation: Conversation) -> Iterator[Passage]:
    """Each answer as a passage of the conversation's file."""
    for turn in conversation.turns:
        start = turn.start + len(turn.opening or "")
        yield Passage(document.name, None, document.where(start)[1], start, start + len(turn.answer), turn.answer)


def _claims(answer: Passage) -> Iterator[Passage]:
    for start, end in sentences(answer.quote):
        quote = answer.quote[start:end]
        if quote.endswith((":", "?")) or (quote.startswith("**") and quote.endswith("**")):
            continue
        if len(content_terms(quote)) >= _FEWEST_WORDS:
            line = answer.line + answer.quote.count("\n", 0, start)
            yield Passage(answer.document, None, line, answer.start + start, answer.start + end, quote)


def _repeated(conversation: Conversation) -> Iterator[Repeated]:
    asked: dict[str, list[int]] = {}
    for number, turn in enumerate(conversation.turns):
        if turn.question is not None and turn.question.strip():
            asked.setdefault(" ".join(terms(turn.question)), []).append(number)
    for numbers in asked.values():
        different = {" ".join(conversation.turns[number].answer.split()) for number in numbers}
        if len(different) > 1:
            question = conversation.turns[numbers[0]].question or ""
            yield Repeated(question, tuple(number + 1 for number in numbers), len(different))


def _disputed(document: Document, index: "Index") -> Iterator[Disputed]:
    by_term: dict[str, list[Sense]] = {}
    for sense in senses_of_document(document):
        by_term.setdefault(sense.term, []).append(sense)
    for term, senses in by_term.items():
        if len(senses) > 1:
            known = find_senses(index, term)
            yield Disputed(term, tuple(replace(sense, sources=_sources(sense, known)) for sense in senses))


def _sources(sense: Sense, known: list[Sense]) -> tuple[Passage, ...]:
    alike = (one for one in known if same_expansion(one.expansion, sense.expansion))
    return tuple(dict.fromkeys(source for one in alike for source in one.sources))


def _support(claim: str, index: "Index", sources: list[str]) -> tuple[bool, Passage | None]:
    """Whether a document says it, and the passage that comes closest."""
    from lsdr.genie.standing import measured

    words = {stem(word) for word in terms(claim) if word not in STOPWORDS}
    numbers, _ = quantities(claim)
    best: tuple[float, Passage | None] = (0.0, None)
    found = index.search(" ".join(content_terms(claim)), limit=_LOOKED_AT, documents=sources) if sources else []
    for passage in found:
        held = {stem(word) for word in terms(passage.quote)}
        share = len(words & held) / len(words)
        given, _ = quantities(passage.quote)
        agreed = all(any(one.unit == other.unit and one.agrees(other) for other in given) for one in numbers)
        if share >= _SUPPORTED and agreed:
            return True, passage
        if share > best[0]:
            best = share, passage
    return bool(measured(claim)), best[1]
