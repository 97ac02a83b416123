import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.genie.transcript import Conversation, Turn, is_transcript, read_transcript, write_transcript

NEWER = (
    "User Query: what is it?\nDocument Genie Says:\n**It**\n\nIt is this.\n"
    "User Query: why?\nDocument Genie Says:\nSo.\n"
)
OLDER = "Document Genie Says: Yes.\n\nBecause.\nDocument Genie Says: No.\n"


def pairs(text):
    return [(turn.question, turn.answer) for turn in read_transcript(text).turns]


def test_the_newer_form():
    assert pairs(NEWER) == [("what is it?", "**It**\n\nIt is this."), ("why?", "So.")]


def test_the_older_form():
    assert pairs(OLDER) == [(None, "Yes.\n\nBecause."), (None, "No.")]


def test_both_in_one_file():
    assert pairs(OLDER + NEWER) == pairs(OLDER) + pairs(NEWER)


def test_places_are_those_of_the_file():
    text = "A note.\n" + OLDER + NEWER
    conversation = read_transcript(text)
    assert conversation.preamble == "A note.\n"
    assert "".join(text[turn.start : turn.end] for turn in conversation.turns) == OLDER + NEWER
    for turn in conversation.turns:
        start = turn.start + len(turn.opening)
        assert text[start : start + len(turn.answer)] == turn.answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("nothing of the kind\n", []),
        ("User Query: cut off", [("cut off", "")]),
        ("User Query: a\nUser Query: b\nDocument Genie Says:\nc\n", [("a", ""), ("b", "c")]),
        ("User Query: two\nlines\nDocument Genie Says:\nc\n", [("two\nlines", "c")]),
        ("User Query: a\r\nDocument Genie Says:\r\nb\r\nc\r\n", [("a", "b\r\nc")]),
        ("User Query: a\nDocument Genie Says:\n", [("a", "")]),
        ("User Query: a\nDocument Genie Says:\n\n", [("a", "")]),
        ("User Query: a\nDocument Genie Says:\nno line end", [("a", "no line end")]),
        ("User Query: \nDocument Genie Says:\nb\n", [("", "b")]),
        ("He said User Query: a\n", []),
    ],
)
def test_unusual_files(text, expected):
    assert pairs(text) == expected
    assert write_transcript(read_transcript(text)) == text


tokens = st.sampled_from(
    [
        "User Query: ",
        "User Query:",
        "Document Genie Says:",
        "Document Genie Says: ",
        "\n",
        "\r\n",
        "\r",
        "a",
        " ",
        "b\n",
        "\x85",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(tokens, max_size=14).map("".join))
def test_any_text_comes_back_byte_for_byte(text):
    conversation = read_transcript(text)
    assert write_transcript(conversation) == text
    assert conversation.preamble + "".join(text[turn.start : turn.end] for turn in conversation.turns) == text


def test_what_is_written_is_exactly_the_format():
    turns = (Turn("what is it?", "**It**\n\nIt is this."), Turn("why?", "So."))
    assert write_transcript(Conversation(turns)) == NEWER
    assert write_transcript(Conversation((Turn(None, "Yes.\n\nBecause."), Turn(None, "No.")))) == OLDER


def test_a_marker_in_an_answer_starts_no_turn():
    turns = (Turn("two\nlines", "It says:\nUser Query: x\nDocument Genie Says:\ny"), Turn(None, "User Query: z"))
    read = read_transcript(write_transcript(Conversation(turns))).turns
    assert [turn.question for turn in read] == ["two lines", None]
    assert " User Query: x" in read[0].answer


def test_which_texts_are_transcripts():
    assert is_transcript(NEWER)
    assert is_transcript("\n" + OLDER)
    assert not is_transcript("The file has lines as\n" + NEWER)
    assert not is_transcript("User Query: alone\n")


def test_a_long_file_takes_linear_time():
    text = "User Query: a\n" * 3000 + NEWER * 300 + "User Query: b\n" * 3000
    assert write_transcript(read_transcript(text)) == text
