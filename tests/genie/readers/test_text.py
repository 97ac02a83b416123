"""Text of any encoding, and without what cannot be seen."""

import pytest

from lsdr.genie.document import Document
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.clean import clean
from lsdr.genie.readers.read import read

WORDS = "Größe, naïve λ → 1.\nZweite Zeile mit Wörtern und “Zeichen”.\n"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", ["txt", "md"])
def test_unicode_encodings_are_known_with_and_without_their_mark(encoding, suffix):
    document = read(f"a.{suffix}", WORDS.encode(encoding))
    assert document.text == WORDS
    assert document.problems == ()
    assert document.kind == {"txt": "text", "md": "markdown"}[suffix]


@pytest.mark.parametrize(("encoding", "mark"), [("utf-16-be", b"\xfe\xff"), ("utf-32-be", b"\x00\x00\xfe\xff")])
def test_big_endian_marks_are_read(encoding, mark):
    assert read("a.txt", mark + "日本語のテキスト".encode(encoding)).text == "日本語のテキスト"


def test_western_bytes_are_read_as_windows_1252_and_said_to_be():
    document = read("a.txt", "ein “Maß” – naïve\nplain\n".encode("cp1252"))
    assert document.text == "ein “Maß” – naïve\nplain\n"
    assert "1 lines are not UTF-8" in document.problems[0]


def test_latin_1_bytes_without_a_meaning_in_windows_1252_are_kept():
    assert read("a.txt", b"caf\xe9 \x81 x\n").text == "café \x81 x\n"


def test_lines_of_two_encodings_in_one_file_are_all_read():
    data = "erste größe\n".encode() + "zweite größe\n".encode("cp1252") + "dritte λ\n".encode()
    document = read("a.txt", data)
    assert document.text == "erste größe\nzweite größe\ndritte λ\n"
    assert "(lines 2)" in document.problems[0]


def test_invisible_characters_are_gone_and_nothing_else():
    hidden = "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\u00ad\u061c\U000e0041\x00"
    assert clean(f"LS{hidden}DR") == "LSDR"
    kept = "tab\t nbsp\u00a0 form\f e\u0301 \U0001f600 עברית العربية \u2028 x"
    assert clean(kept) == kept


@pytest.mark.parametrize("line", ["שלום עולם, המודל", "مرحبا بالعالم", "سلام دنیا"])
def test_right_to_left_text_keeps_the_order_it_is_written_in(line):
    document = read("a.txt", f"\u202b{line}\u202c\nnext\n".encode())
    assert document.text == f"{line}\nnext\n"
    assert document.where(document.text.index("next")) == (None, 2)


def test_newlines_of_all_systems_count_as_one():
    document = read("a.txt", b"one\r\ntwo\rthree\n\nfive")
    assert document.text == "one\ntwo\nthree\n\nfive"
    assert [document.where(document.text.index(word))[1] for word in ("one", "two", "three", "five")] == [1, 2, 3, 5]


def test_a_few_nuls_are_left_out_and_told_of():
    document = read("a.txt", b"a\x00b and many other words here\n")
    assert document.text == "ab and many other words here\n"
    assert document.problems == ("1 NUL characters were left out",)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n\t\n", "no text"),
        ("\u200b\ufeff\u200b".encode(), "no text"),
        (b"%PDF-1.4 ...", "a PDF"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"\x89PNG\r\n\x1a\nrest", "PNG"),
        (bytes(range(256)) * 40, "not text"),
        (b"\x00" * 1000, "not text"),
        (b"\x01\x02\x03words" * 50, "control characters"),
    ],
)
def test_what_is_no_text_is_refused_in_a_sentence(data, said):
    with pytest.raises(UnreadableError, match=said) as caught:
        read("a.txt", data)
    assert str(caught.value).startswith("a.txt ")


def test_damaged_utf_16_is_told_of():
    document = read("a.txt", b"\xff\xfe" + ("words " * 20).encode("utf-16-le") + b"\x00\xd8")
    assert document.text.startswith("words words")
    assert "1 characters are damaged" in document.problems[0]


def test_places_are_found_by_page_and_line():
    text = "a\nb\f\n\f\nc\n\nd\f\n"
    document = Document("x", "pdf", text, pages=(0, 5, 7))
    assert [document.where(text.index(letter)) for letter in "abcd"] == [(1, 1), (1, 2), (3, 1), (3, 3)]
    assert document.where(5) == (2, 1)
    for outside in (-1, len(text) + 1):
        with pytest.raises(ValueError, match="places 0 to"):
            document.where(outside)
