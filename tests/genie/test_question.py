import pytest

from lsdr.genie.index import Index
from lsdr.genie.question import Word, read_question
from lsdr.genie.spelling import forms, suggest


def kinds(question):
    return {word.term: word.kind for word in read_question(question)}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is LDSR?", {"ldsr": "acronym"}),
        ("explain lsdr in stable diffusion", {"lsdr": "acronym", "stable": "plain", "diffusion": "plain"}),
        ("what does LoRA do with ResNet-18", {"lora": "acronym", "resnet": "acronym", "18": "number"}),
        ("Is the capital of Atlantis large?", {"capital": "plain", "atlantis": "name", "large": "common"}),
        ("WHAT IS WEIGHT DECAY", {"weight": "plain", "decay": "plain"}),
        ("What Is Weight Decay", {"weight": "plain", "decay": "plain"}),
        ("What is WHO?", {"who": "acronym"}),
        ("H100 in the 1990s", {"h100": "acronym", "1990s": "number"}),
        ("L\u200bDSR \u202egnihton", {"ldsr": "acronym", "gnihton": "plain"}),
        ("", {}),
        ("??? -- ()", {}),
        ("what is it", {}),
    ],
)
def test_the_words_of_a_question_and_what_they_are(question, expected):
    assert kinds(question) == expected


def test_words_that_only_ask_are_kept_when_there_are_no_others():
    assert kinds("give an example of noise") == {"noise": "plain"}
    assert kinds("what is an example?") == {"example": "common"}


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ("normalizing", "normalises"),
        ("steps", "step"),
        ("studies", "study"),
        ("trained", "training"),
        ("stopping", "stopped"),
        ("color", "colour"),
        ("centre", "center"),
        ("divides", "divide"),
    ],
)
def test_forms_of_a_word_are_found(asked, written):
    assert written in forms(Word(asked, asked, "plain"))
    assert asked in forms(Word(written, written, "plain"))


def test_an_acronym_and_a_number_are_only_themselves():
    assert forms(Word("gans", "GANs", "acronym")) == ("gans", "gan")
    assert forms(Word("2018", "2018", "number")) == ("2018",)
    assert "lsd" not in forms(Word("lsdr", "LSDR", "acronym"))


def test_a_suggestion_stands_where_the_word_does_not_where_its_passage_begins(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("# Upscalers\n\nThere are\nmany, and the one\nthat is slow is LDSR.\n", encoding="utf-8")
    with Index.open(tmp_path / "i.sqlite") as index:
        index.add([path])
        (first, *_) = suggest(index, Word("lsdr", "lsdr", "acronym"))
    assert (first.term, first.instead_of, first.page, first.line, first.count) == ("LDSR", "lsdr", None, 5, 1)
