import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.genie.document import Document
from lsdr.genie.passages import WORDS, split


def quotes(text, pages=()):
    return [text[start:end] for start, end in split(Document("a.txt", "text", text, pages))]


def words(count, of="word"):
    return " ".join(f"{of}{k}" for k in range(count))


PARTS = st.sampled_from(
    ["word", " ", "  ", "\n", "\n\n", "\n \n", "\t", ". ", "? ", "# Head\n", "Title\n\n", "\f\n", "数据。", "x" * 900]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, max_size=400).map("".join))
def test_every_character_but_space_is_in_exactly_one_passage(text):
    pages = (0, *(at + 2 for at in range(len(text)) if text.startswith("\f\n", at)))
    spans = split(Document("a.pdf", "pdf", text, pages))
    last = 0
    for start, end in spans:
        assert last <= start < end <= len(text)
        assert not text[last:start].strip()
        assert text[start:end] == text[start:end].strip()
        assert "\f" not in text[start:end]
        assert len(text[start:end].split()) <= WORDS + 24
        assert end - start <= 1600
        last = end
    assert not text[last:].strip()


def test_paragraphs_are_passages_and_short_ones_are_joined():
    long, other = words(40), words(50, "other")
    assert quotes(f"{long}\n\n{other}\n") == [long, other]
    assert quotes(f"A short line.\n\nAnother.\n\n{long}") == [f"A short line.\n\nAnother.\n\n{long}"]
    assert quotes(f"A short line.\n\n{words(118)}") == ["A short line.", words(118)]


@pytest.mark.parametrize("heading", ["# Heading", "Results and discussion", "### A\n\nB title"])
def test_a_heading_stays_with_what_follows(heading):
    text = f"{words(20)}.\n\n{heading}\n\n{words(119)}"
    assert quotes(text) == [f"{words(20)}.", f"{heading}\n\n{words(119)}"]


def test_a_heading_inside_a_paragraph_starts_a_passage():
    assert quotes("Some text.\n## Next\nMore text.") == ["Some text.", "## Next\nMore text."]


def test_a_long_paragraph_is_parted_between_sentences():
    sentence = f"{words(50).capitalize()} (et al. Fig. 3)."
    found = quotes(" ".join([sentence] * 5))
    assert found == [f"{sentence} {sentence}", f"{sentence} {sentence}", sentence]


def test_text_without_sentences_is_cut_by_words_and_without_words_by_characters():
    assert [len(each.split()) for each in quotes(words(300))] == [120, 120, 60]
    assert [len(each) for each in quotes("x" * 4000)] == [1600, 1600, 800]


def test_no_passage_crosses_a_page():
    assert quotes("one\n\ntwo\f\nthree", (0, 10)) == ["one\n\ntwo", "three"]


def test_no_text_has_no_passages():
    assert quotes("") == quotes(" \n\f\n ") == []
