"""HTML: what is seen is read, what is hidden or runs is not."""

import pytest

from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers import html as module
from lsdr.genie.readers.read import read


def text(source, name="a.html"):
    return read(name, source.encode() if isinstance(source, str) else source).text


def test_blocks_are_lines_and_spaces_run_together():
    source = """<!DOCTYPE html><html><head><title>Title</title></head><body><h1>Head</h1>
    <p>Some  <b>bold</b>\n  words, <i>un</i>cut.<p>Next<br>line<ul><li>one<li> two </ul>
    <table><tr><th>a</th><th>b</th></tr><tr><td>1<td>2 <b>3</b></table>end &amp; &lt;b&gt; &eacute;</body></html>"""
    assert text(source) == (
        "Title\n\nHead\n\nSome bold words, uncut.\n\nNext\nline\n\none\ntwo\n\na\tb\n1\t2 3\n\nend & <b> é\n"
    )


def test_preformatted_text_keeps_its_spaces_and_lines():
    assert text("<p>x</p><pre>def f():\n    return  1\n</pre><p>y  z") == "x\n\ndef f():\n    return  1\n\ny z\n"


@pytest.mark.parametrize(
    "hidden",
    [
        "<script>SECRET</script>",
        "<style>SECRET</style>",
        "<!-- SECRET -->",
        "<template>SECRET</template>",
        "<noscript>SECRET</noscript>",
        "<p hidden>SECRET</p>",
        "<p style='color: red; DISPLAY :none'>SECRET</p>",
        "<p style='visibility:hidden'>a <b>SECRET</b></p>",
        "<span style='font-size:0px'>SECRET</span>",
        "<span style='opacity: 0'>SECRET</span>",
        "<iframe src='http://x'>SECRET</iframe>",
        "<textarea>SECRET</textarea>",
        "<svg><text>SECRET</text></svg>",
        "<img alt='SECRET' src='http://x/SECRET.png'>",
        "<a href='http://x/SECRET'></a>",
        "<input value='SECRET'>",
    ],
)
def test_what_is_not_seen_is_not_read(hidden):
    assert text(f"<body><p>before</p>{hidden}<p>after</p>").split() == ["before", "after"]


@pytest.mark.parametrize("style", ["font-size:0.8em", "opacity:0.5", "color:red"])
def test_what_is_small_or_pale_is_read(style):
    assert "seen" in text(f"<p style='{style}'>seen</p>")


def test_a_title_that_a_heading_repeats_comes_once():
    assert text("<title> My  page </title><h1>My page</h1><p>x") == "My page\n\nx\n"


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("<meta charset='windows-1251'>", "cp1251"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=ISO-8859-1">', "cp1252"),
        ("<meta charset=shift_jis>", "shift_jis"),
        ("<meta charset=utf-8>", "utf-8"),
        ("<meta charset=utf-8>", "utf-8-sig"),
        ("<meta charset=utf-16>", "utf-8"),
        ("", "utf-16"),
        ("<meta charset=base64>", "utf-8"),
        ("<meta charset=nonsense>", "cp1252"),
    ],
)
def test_encodings_are_as_the_page_says_where_its_bytes_agree(head, encoding):
    words = {"cp1251": "Привет мир", "shift_jis": "日本語"}.get(encoding, "größe")
    assert text(f"<html><head>{head}</head><p>{words}</p>".encode(encoding)) == f"{words}\n"


def test_xhtml_may_close_a_script_at_once():
    source = (
        '<?xml version="1.0"?><html><head><script src="x.js"/><title>T</title></head><body><p>seen</p></body></html>'
    )
    assert text(source) == "T\n\nseen\n"


def test_zero_width_characters_and_soft_hyphens_are_gone():
    assert text("<p>de&shy;correl\u200bation&#x202e;</p>") == "decorrelation\n"


@pytest.mark.parametrize("source", ["<script>all()</script>", "<html></html>", "<p hidden>x</p>", "<!-- x -->"])
def test_a_page_with_nothing_to_see_is_refused(source):
    with pytest.raises(UnreadableError, match="no text that can be seen"):
        text(source)


def test_deep_pages_are_refused_and_what_only_looks_deep_is_read():
    with pytest.raises(UnreadableError, match="more than 3,000 deep"):
        text("<div>" * 3001 + "x")
    assert text("<div>" * 2900 + "x") == "x\n"
    assert text("<p>x" * 5000).count("x") == 5000
    assert text("<div>x</div>" * 5000).count("x") == 5000
    assert text("<!--" + "<div>" * 5000 + "--><script>'" + "<div>" * 5000 + "'</script>x") == "x\n"


def test_what_would_take_too_large_a_tree_is_refused(monkeypatch):
    monkeypatch.setattr(module, "HTML_BYTES", 100)
    with pytest.raises(UnreadableError, match=r"too large: .* of at most 100"):
        read("a.html", b"<p>" + b"x" * 100)
