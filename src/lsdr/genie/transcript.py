"""The conversation file of the first Document Genie, read and written byte for byte."""

import re
from dataclasses import dataclass

_QUESTION = "User Query: "
_ANSWER = "Document Genie Says:"
_OPENING = re.compile(
    r"^User Query:[ ]?(?P<question>(?:(?!^User Query:|^Document Genie Says:)[\s\S])*?)\r?\n"
    r"Document Genie Says:(?:[ \t]*\r?\n|[ ]?)"
    r"|^Document Genie Says:(?:[ ]|[ \t]*\r?\n)?"
    r"|^User Query:[ ]?(?P<alone>[^\r\n]*)(?:\r?\n)?",
    re.MULTILINE,
)
_MARK = re.compile(rf"^(?=User Query:|{_ANSWER})", re.MULTILINE)


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Args:
        question: The question; None in the older form, which did not write it down.
        answer: The answer, without the line end that closes it.
        start: Where the turn starts in the transcript's text, its markers included.
        end: Where it ends, the closing line end included.
        opening: What stands before the answer, exactly; None has it written in the newer form, or in the older one
            if there is no question.
        closing: What stands after the answer, exactly.
    """

    question: str | None
    answer: str
    start: int = 0
    end: int = 0
    opening: str | None = None
    closing: str = "\n"


@dataclass(frozen=True)
class Conversation:
    """Turns in their order, and what stands before the first one."""

    turns: tuple[Turn, ...]
    preamble: str = ""


def read_transcript(text: str) -> Conversation:
    r"""A conversation from its file, in either form and in any mixture of them.

    The newer form is ``User Query: {question}\nDocument Genie Says:\n{answer}\n``, the older one
    ``Document Genie Says: {answer}\n`` without a question. An answer goes on until the next line that starts with a
    marker: the format has no way to say that such a line belongs to an answer.

    `write_transcript` gives the text back, whatever it is.

    Example:
        >>> conversation = read_transcript("User Query: why?\nDocument Genie Says:\nBecause.\n\nSo.\n")
        >>> conversation.turns[0].question, conversation.turns[0].answer
        ('why?', 'Because.\n\nSo.')
        >>> read_transcript("Document Genie Says: Yes.\n").turns[0].question is None
        True
    """
    openings = list(_OPENING.finditer(text))
    turns = []
    ends = [*(match.start() for match in openings[1:]), len(text)]
    for match, end in zip(openings, ends, strict=False):
        body = text[match.end() : end]
        closing = "\r\n" if body.endswith("\r\n") else "\n" if body.endswith("\n") else ""
        answer = body[: len(body) - len(closing)]
        question = match["question"] if match["question"] is not None else match["alone"]
        turns.append(Turn(question, answer, match.start(), end, match.group(), closing))
    return Conversation(tuple(turns), text[: openings[0].start()] if openings else text)


def write_transcript(conversation: Conversation) -> str:
    r"""The file of a conversation: what was read comes back byte for byte.

    A line of a new answer that starts with a marker is indented by one space, so that reading the file finds the
    turns that were written. A new question stands on one line.

    Example:
        >>> write_transcript(Conversation((Turn("why?", "Because."),)))
        'User Query: why?\nDocument Genie Says:\nBecause.\n'
    """
    return conversation.preamble + "".join(_written(turn) for turn in conversation.turns)


def is_transcript(text: str) -> bool:
    r"""Whether a text is such a file: it starts with a marker, and something is answered.

    Example:
        >>> is_transcript("User Query: a\nDocument Genie Says:\nb\n"), is_transcript("The file says User Query: a")
        (True, False)
    """
    return text.lstrip().startswith(("User Query:", _ANSWER)) and re.search(rf"(?m)^{_ANSWER}", text) is not None


def _written(turn: Turn) -> str:
    if turn.opening is not None:
        return turn.opening + turn.answer + turn.closing
    answer = _MARK.sub(" ", turn.answer)
    if turn.question is None:
        return f"{_ANSWER} {answer}{turn.closing}"
    return f"{_QUESTION}{' '.join(turn.question.split())}\n{_ANSWER}\n{answer}{turn.closing}"
