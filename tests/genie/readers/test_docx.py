"""Word documents: what they say, and what is done about hostile ones."""

import importlib.util
import io
import zipfile
import zlib
from pathlib import Path

import docx
import pytest

from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers import docx as module
from lsdr.genie.readers.read import read

_spec = importlib.util.spec_from_file_location("genie_reader_files", Path(__file__).with_name("files.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
HEAD = (
    '<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
)
END = "</w:body></w:document>"


def saved(document):
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


@pytest.fixture(scope="module")
def plain():
    document = docx.Document()
    document.add_paragraph("Plain words.")
    return saved(document)


def body(plain, xml):
    return read("a.docx", files.repack(plain, word__document_x_xml=f"{HEAD}{xml}{END}")).text


def test_headings_paragraphs_lists_and_tables_are_read_in_their_order():
    document = docx.Document()
    document.add_heading("Heading", 1)
    document.add_paragraph("First").add_run(" and\tmore").bold = True
    document.add_paragraph("an item", style="List Bullet")
    table = document.add_table(2, 2)
    for cell, words in zip(table._cells, ("a", "b", "c", "d\ne"), strict=True):
        cell.text = words
    document.add_paragraph("Last\nline")
    read_back = read("a.docx", saved(document))
    assert read_back.text == "Heading\n\nFirst and\tmore\n\nan item\n\na\tb\nc\td e\n\nLast\nline\n"
    assert (read_back.kind, read_back.pages) == ("docx", ())
    assert read_back.where(read_back.text.index("line")) == (None, 11)


def test_inserted_linked_and_controlled_text_is_read_and_deleted_and_hidden_is_not(plain):
    xml = (
        "<w:p><w:r><w:t>a</w:t></w:r><w:ins><w:r><w:t>b</w:t></w:r></w:ins><w:hyperlink><w:r><w:t>c</w:t></w:r>"
        "</w:hyperlink><w:sdt><w:sdtContent><w:r><w:t>d</w:t></w:r></w:sdtContent></w:sdt>"
        "<w:del><w:r><w:delText>NO</w:delText></w:r></w:del><w:moveFrom><w:r><w:t>NO</w:t></w:r></w:moveFrom>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>NO</w:t></w:r><w:r><w:rPr><w:vanish w:val='0'/></w:rPr><w:t>e</w:t></w:r>"
        "<w:r><w:instrText>NO</w:instrText></w:r><w:r><w:noBreakHyphen/><w:t>f</w:t></w:r></w:p>"
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>g</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    )
    assert body(plain, xml) == "abcde-f\n\ng\n"


def test_footnotes_come_last_under_the_number_at_their_call(plain):
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        relations = archive.read("word/_rels/document.xml.rels").decode()
    note = "<w:footnote w:id='{}'><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:footnote>"
    notes = HEAD.replace("document", "footnotes", 1).replace("<w:document", "<w:footnotes").replace("<w:body>", "")
    data = files.repack(
        plain,
        word___rels__document_x_xml_x_rels=relations.replace(
            "</Relationships>", f'<Relationship Id="rId99" Type="{kind}" Target="footnotes.xml"/></Relationships>'
        ),
        word__footnotes_x_xml='<?xml version="1.0"?><w:footnotes '
        + notes[notes.index("xmlns:w") :]
        + note.format(0, "NO")
        + note.format(7, "the second")
        + note.format(4, "the first")
        + "</w:footnotes>",
        word__document_x_xml=f"{HEAD}<w:p><w:r><w:t>One</w:t><w:footnoteReference w:id='4'/><w:t> two</w:t>"
        f"<w:footnoteReference w:id='7'/></w:r></w:p>{END}",
    )
    assert read("a.docx", data).text == "One[1] two[2]\n\nFootnotes\n\n[1] the first\n\n[2] the second\n"


def test_zip_bombs_are_refused_before_anything_is_unpacked(plain, monkeypatch):
    def unpacked(*args, **options):
        raise AssertionError("something was unpacked")

    bomb = files.repack(plain, word__media__x_x_bin=b"\0" * 30_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "open", unpacked)
    with pytest.raises(UnreadableError, match="times its size, of at most 200: a ZIP bomb"):
        read("a.docx", bomb)
    monkeypatch.setattr(module, "DOCX_UNPACKED_BYTES", 20_000_000)
    with pytest.raises(UnreadableError, match="would unpack to 30,"):
        read("a.docx", bomb)
    monkeypatch.setattr(module, "DOCX_FILES", 3)
    with pytest.raises(UnreadableError, match="files, of at most 3"):
        read("a.docx", plain)


def test_a_large_tree_is_refused(plain, monkeypatch):
    monkeypatch.setattr(module, "DOCX_XML_BYTES", 100)
    with pytest.raises(UnreadableError, match=r"too large: .* of at most 100"):
        read("a.docx", plain)


def test_entities_are_not_expanded_and_nothing_is_loaded(plain, tmp_path):
    (tmp_path / "secret").write_text("SECRET")
    entities = (
        f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "LOL"><!ENTITY f SYSTEM "file://{tmp_path}/secret">]>'
        + HEAD.split("?>")[1]
    )
    xml = f"{entities}<w:p><w:r><w:t>seen &a; &f;</w:t></w:r></w:p>{END}"
    text = read("a.docx", files.repack(plain, word__document_x_xml=xml)).text
    assert "seen" in text
    assert "SECRET" not in text
    assert "LOL" not in text


def test_deep_nesting_is_read_or_refused_without_recursion(plain):
    deep = "<w:tbl><w:tr><w:tc>" * 60 + "<w:p><w:r><w:t>deep</w:t></w:r></w:p>" + "</w:tc></w:tr></w:tbl>" * 60
    assert "deep" in body(plain, deep)
    with pytest.raises(UnreadableError, match="broken or not a Word document"):
        body(plain, "<w:sdt>" * 5000 + "</w:sdt>" * 5000)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"not a zip", "broken or not a Word document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "encrypted, or of an older format"),
    ],
)
def test_what_is_no_word_document_is_refused(data, said):
    with pytest.raises(UnreadableError, match=said):
        read("a.docx", data)


def test_an_archive_of_a_version_to_come_is_refused(plain):
    at = plain.rindex(b"PK\x01\x02") + 6
    with pytest.raises(UnreadableError, match="no ZIP archive that can be read"):
        read("a.docx", plain[:at] + b"\xff" + plain[at + 1 :])


def test_an_empty_document_and_a_zip_of_something_else_are_refused(plain):
    with pytest.raises(UnreadableError, match="holds no text"):
        read("a.docx", saved(docx.Document()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../evil.txt", "x")
    with pytest.raises(UnreadableError, match="not a Word document"):
        read("a.docx", out.getvalue())


@pytest.mark.parametrize("part", range(12))
def test_damage_anywhere_gives_a_document_or_a_sentence(plain, part):
    at = len(plain) * part // 12
    for data in (plain[:at], plain[:at] + zlib.compress(b"garbage") + plain[at + 15 :]):
        try:
            assert read("a.docx", data).text
        except UnreadableError as error:
            assert str(error).startswith("a.docx ")  # noqa: PT017
