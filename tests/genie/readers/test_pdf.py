"""PDFs: pages and lines, cut words, and every way in which one cannot be read."""

import importlib.util
from pathlib import Path

import pytest

from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers import pdf as module
from lsdr.genie.readers.hyphens import join_cut_words
from lsdr.genie.readers.read import read

_spec = importlib.util.spec_from_file_location("genie_reader_files", Path(__file__).with_name("files.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)


def where(document, words):
    return document.where(document.text.index(words))


def test_pages_and_lines_are_counted():
    document = read("a.pdf", files.make_pdf([["one", "two"], ["three", "four", "five"]]))
    assert document.text == "one\ntwo\f\nthree\nfour\nfive\f\n"
    assert (document.kind, document.pages, document.problems) == ("pdf", (0, 9), ())
    assert where(document, "two") == (1, 2)
    assert where(document, "three") == (2, 1)
    assert where(document, "five") == (2, 3)


def test_words_cut_at_a_lines_end_are_whole_and_lines_keep_their_numbers():
    lines = ["The regular-", "ization of a net and", "a layer-", "wise state-of-the-", "art COVID-", "19 model", "end"]
    document = read("a.pdf", files.make_pdf([lines, ["layer-wise regularization", "a known word-"]]))
    assert "\ufffe" not in document.text
    for words, line in (("regularization", 1), ("of a net", 2), ("layer-wise", 3), ("state-of-the-art", 4)):
        assert where(document, words) == (1, line)
    assert (where(document, "COVID-19"), where(document, "model")) == ((1, 5), (1, 6))
    assert where(document, "end") == (1, 7)
    assert document.text.endswith("a known word-\f\n")


@pytest.mark.parametrize(
    ("elsewhere", "word"),
    [
        ("", "layerwise"),
        ("layer-wise", "layer-wise"),
        ("layerwise", "layerwise"),
        ("a layer is wise", "layer-wise"),
        ("a layer is wise, layerwise", "layerwise"),
        ("Layer-Wise", "layer-wise"),
    ],
)
def test_the_document_itself_says_whether_a_word_has_a_hyphen(elsewhere, word):
    assert join_cut_words(["the layer\ufffewise net", elsewhere])[0] == f"the {word}\nnet"


def test_punctuation_after_a_cut_word_and_ends_of_lines_stay():
    assert join_cut_words(["regular\ufffeization, and\nmore"]) == ["regularization,\nand\nmore"]
    assert join_cut_words(["regular\ufffeization.\nmore"]) == ["regularization.\n\nmore"]
    assert join_cut_words(["regu\ufffelariza\ufffetion x"]) == ["regularization\n\nx"]


def test_a_thousand_pages_are_read():
    document = read("a.pdf", files.make_pdf([[f"page {number}", "words"] for number in range(1, 1001)]))
    assert len(document.pages) == 1000
    assert where(document, "page 777\n") == (777, 1)
    assert document.where(document.pages[-1] + 10) == (1000, 2)


def test_scanned_pages_are_told_of_and_wholly_scanned_documents_refused():
    document = read("a.pdf", files.make_pdf([["one"], None, ["three"], []]))
    assert document.problems == ("2 of 4 pages hold no text: blank, or scanned (pages 2, 4)",)
    assert where(document, "three") == (3, 1)
    with pytest.raises(UnreadableError, match="no text on its 3 pages: it looks scanned"):
        read("a.pdf", files.make_pdf([None, None, []]))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"not a PDF at all", "broken or not a PDF"),
        (b"%PDF-1.4\n%%EOF", "broken or not a PDF"),
        (files.make_pdf([["x"]])[:200], "broken or not a PDF"),
        (files.make_pdf([]), "broken"),
        (files.encrypted_pdf(), "encrypted"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_a_sentence(data, said):
    with pytest.raises(UnreadableError, match=said):
        read("a.pdf", data)


def test_a_broken_table_of_objects_is_mended_and_a_broken_page_left_out():
    whole = files.make_pdf([["one"], ["two"], ["three"]])
    assert "two" in read("a.pdf", whole.replace(b"startxref", b"startxxxx")).text
    # The second page's own object becomes something else.
    broken = whole.replace(b"8 0 obj\n<< /Type /Page ", b"8 0 obj\n<< /Type /Pag_ ", 1)
    document = read("a.pdf", broken)
    assert where(document, "three") == (3, 1)
    assert "1 of 3 pages" in document.problems[0]


@pytest.mark.parametrize("cut", range(100, 1400, 130))
def test_damage_anywhere_gives_a_document_or_a_sentence(cut):
    whole = files.make_pdf([["one", "two"], ["three"]])
    for data in (whole[:cut], whole[:cut] + b"\xff\x00garbage" + whole[cut + 9 :]):
        try:
            assert read("a.pdf", data).text
        except UnreadableError as error:
            assert str(error).startswith("a.pdf ")  # noqa: PT017


def test_limits_of_pages_and_of_text_are_kept(monkeypatch):
    data = files.make_pdf([["one words"], ["two words"]])
    monkeypatch.setattr(module, "MAX_BYTES", 15)
    with pytest.raises(UnreadableError, match="more than 15 characters by page 2"):
        read("a.pdf", data)
    monkeypatch.setattr(module, "PDF_PAGES", 1)
    with pytest.raises(UnreadableError, match="2 pages, of at most 1"):
        read("a.pdf", data)


def test_control_characters_of_fonts_are_left_out_and_garbled_pages_told_of():
    document = read("a.pdf", files.make_pdf([["clear words"], ["\\001\\002\\003\\004\\005\\006 abc"]]))
    assert not set(document.text) & set(map(chr, range(1, 9)))
    assert "the text of 1 of 2 pages is garbled" in document.problems[0]


def test_a_long_word_takes_no_square_of_its_length():
    assert join_cut_words(["x" * 300_000, "regular\ufffeization net"])[1] == "regularization\nnet"
