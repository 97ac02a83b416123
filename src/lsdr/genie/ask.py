"""Ask the documents: the same question over the same documents has the same answer, every time."""

from collections.abc import Sequence
from dataclasses import replace

from lsdr.genie.abstain import Weighed, answering, coverage, missing, weigh
from lsdr.genie.answer import Answer, Suggestion
from lsdr.genie.chat import understand
from lsdr.genie.conflicts import find_conflicts
from lsdr.genie.index import Index
from lsdr.genie.passage import Passage
from lsdr.genie.question import read_question
from lsdr.genie.readers.clean import clean
from lsdr.genie.senses import Sense, find_senses
from lsdr.genie.spelling import suggest
from lsdr.genie.standing import standing_of_passages
from lsdr.genie.verify import exact

# Passages looked at for an answer; words beyond these many of a question are not weighed.
CANDIDATES = 40
MAX_WORDS = 64
# Spellings are looked for these many unknown words.
MAX_UNKNOWN = 6
# Closest passages are shown beside an unknown word only if they hold this much of the rest of the question.
CLOSE = 0.5


def ask(index: Index, question: str, *, history: Sequence[str] = (), limit: int = 5) -> Answer:
    """What the documents say to a question, in exact quotations; or that they do not say it.

    A word of the question that is in no document (an acronym, a name, any word that is not common) is reported as that,
    with the nearest spellings. Otherwise a passage answers if it holds the rarest word of the question and 0.6 of the
    question's weight (`lsdr.genie.abstain`); if none does, the closest ones are shown and said to be no answer. A term
    with several senses is answered by all of them. Each quotation is compared with its document before it is returned.

    Args:
        index: The documents.
        question: The question, in any form: no character of it has a special meaning.
        history: Earlier questions, oldest first; a follow-up ("and why?") takes its words from the last of them.
        limit: How many passages are returned at the most; every sense keeps its own.

    Returns:
        The answer. It depends on nothing but the arguments and the documents.

    Raises:
        ValueError: If limit is not positive.
    """
    if limit < 1:
        raise ValueError(f"limit is the number of passages to return, at least 1; it is {limit}")
    understood = understand(question, history)
    added = None if understood == clean(question).strip() else understood
    words = read_question(understood)[:MAX_WORDS]

    answer = Answer(
        question, False, "empty_question", "The question has no word to look for in the documents.", understood=added
    )
    if not words:
        return answer
    if not any(entry.passages for entry in index.documents()):
        return replace(answer, reason="no_documents", message="There are no documents to ask; add some first.")
    weighed = weigh(index, words)
    senses = _senses(index, weighed)
    answer = replace(answer, senses=senses, standing={"kind": "unsupported", "claims": []})
    found = _search(index, weighed)
    unknown = missing(weighed)
    if unknown:
        acronym = any(item.word.kind in ("acronym", "name") for item in unknown)
        rest = [item for item in weighed if item.known]
        near = [] if acronym else [passage for passage in found if coverage(rest, passage) >= CLOSE]
        close = exact(index, near[:limit])
        return replace(
            answer,
            reason="unknown_term",
            message=f"{_list([item.word.surface for item in unknown])} not in the documents."
            + (" These are the closest passages; they are not an answer." if close else ""),
            passages=close,
            suggestions=_suggestions(index, unknown),
        )
    disputed = [term for term in dict.fromkeys(sense.term for sense in senses) if _count(senses, term) > 1]
    answers = exact(index, answering(weighed, found)[:limit])
    if disputed and (answers or all(item.word.kind in ("acronym", "common") for item in weighed)):
        return _disputed(index, answer, disputed, answers)
    if answers:
        return replace(
            answer,
            answered=True,
            reason="answered",
            message=f"{_number(len(answers), 'passage')} of the documents {'holds' if len(answers) == 1 else 'hold'} "
            "what was asked; quoted word for word.",
            passages=answers,
            conflicts=tuple(find_conflicts(answers)),
            standing=standing_of_passages(answers),
        )
    close = exact(index, found[:limit])
    return replace(
        answer,
        reason="weak_evidence",
        message="No passage of the documents holds enough of the question to answer it."
        + (" These are the closest passages." if close else ""),
        passages=close,
        suggestions=_suggestions(index, [item for item in weighed if not item.known]),
    )


def _search(index: Index, weighed: Sequence[Weighed]) -> list[Passage]:
    query = " ".join(form for item in weighed for form in sorted(item.forms))
    return index.search(query, CANDIDATES) if query else []


def _senses(index: Index, weighed: Sequence[Weighed]) -> tuple[Sense, ...]:
    particular = [item.word for item in weighed if item.known and item.word.kind not in ("common", "number")]
    named = [word for word in particular if word.kind == "acronym" or len(particular) == 1]
    return tuple(sense for word in named[:8] for sense in find_senses(index, word.term))


def _suggestions(index: Index, unknown: Sequence[Weighed]) -> tuple[Suggestion, ...]:
    return tuple(each for item in unknown[:MAX_UNKNOWN] for each in suggest(index, item.word))


def _count(senses: Sequence[Sense], term: str) -> int:
    return sum(sense.term == term for sense in senses)


def _disputed(index: Index, answer: Answer, disputed: Sequence[str], answers: tuple[Passage, ...]) -> Answer:
    """Every sense with its first source; no answer where they stand in nothing but a conversation."""
    senses = answer.senses
    sourced = [sense for sense in senses if sense.sources]
    listed = "; ".join(f"{term} has {_number(_count(senses, term), 'sense')}" for term in disputed)
    if not sourced:
        talk = ", ".join(dict.fromkeys(passage.document for sense in senses for passage in sense.said))
        message = f"{listed}, side by side below; none of them has a source besides the conversation in {talk} itself."
    else:
        lone = len(senses) - len(sourced)
        message = f"{listed} in the documents, side by side below." + (
            f" {_number(lone, 'of them has', 'of them have')} no source besides a conversation." if lone else ""
        )
    shown = exact(index, [(sense.sources or sense.said)[0] for sense in senses if sense.sources or sense.said])
    passages = tuple(dict.fromkeys([*shown, *answers]))
    return replace(
        answer,
        answered=bool(sourced),
        reason="answered" if sourced else "weak_evidence",
        message=message,
        passages=passages,
        conflicts=tuple(find_conflicts(passages)),
        standing=standing_of_passages(passages) if sourced else answer.standing,
    )


def _number(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _list(names: Sequence[str]) -> str:
    quoted = [f'"{name}"' for name in names]
    return f"{quoted[0]} is" if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]} are"
