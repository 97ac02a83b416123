"""The picture of a page marks the quotation, and only it."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsdr.genie.pdf_page import page_image
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.read import read

_spec = importlib.util.spec_from_file_location("genie_reader_files", Path(__file__).parent / "readers" / "files.py")
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
LINES = ["Alpha beta gamma", "the regular-", "ization of layers", "delta epsilon"]


def picture(path, *args, **options):
    return np.asarray(Image.open(io.BytesIO(page_image(path, *args, **options))).convert("RGB")).astype(int)


def marked(path, quote, page=1, **options):
    """Rows and columns that are yellow, as parts of the page's height and width."""
    image = picture(path, page, highlight=quote, **options)
    rows, columns = np.nonzero((image[..., 0] > 240) & (image[..., 2] < 120))
    return rows / image.shape[0], columns / image.shape[1]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(files.make_pdf([LINES, ["zeta eta theta", "iota"]]))
    return path


def test_the_page_is_as_wide_as_asked_and_shows_its_letters(path):
    image = picture(path, 1, width=450)
    assert image.shape[:2] == (583, 450)
    assert image[60:80].min() < 100
    assert image[300:].min() == 255


def test_the_words_are_marked_where_they_are(path):
    rows, columns = marked(path, "beta")
    # The baseline of the first line is 72 points below the top of 792, "beta" begins 35 points into it.
    assert (rows.min() > 60 / 792) & (rows.max() < 78 / 792)
    assert (columns.min() > 100 / 612) & (columns.max() < 135 / 612)
    assert columns.max() > 129 / 612
    below, _ = marked(path, "delta epsilon")
    assert below.min() > rows.max()


def test_a_quotation_over_lines_with_a_cut_word_is_marked_on_both(path):
    text = read(path).text
    quote = text[text.index("the") : text.index("layers") + 6]
    assert quote == "the regularization\nof layers"
    rows, _ = marked(path, quote)
    first, second = marked(path, "the regular")[0], marked(path, "of layers")[0]
    assert abs(rows.min() - first.min()) < 0.003
    assert abs(rows.max() - second.max()) < 0.003


def test_a_quotation_over_two_pages_is_marked_on_each(path):
    quote = "delta epsilon\f\nzeta eta theta"
    rows, _ = marked(path, quote)
    assert abs(rows.min() - marked(path, "delta epsilon")[0].min()) < 0.003
    rows, _ = marked(path, quote, page=2)
    assert abs(rows.max() - marked(path, "zeta eta theta", page=2)[0].max()) < 0.003


def test_what_is_not_there_marks_nothing(path):
    plain = page_image(path, 1)
    assert page_image(path, 1, highlight="not on this page at all") == plain
    assert page_image(path, 1, highlight=" \n") == plain
    assert page_image(path, 1, highlight="beta") != plain


def test_turned_and_cropped_pages_are_marked_in_place(tmp_path):
    path = tmp_path / "turned.pdf"
    path.write_bytes(files.make_pdf([LINES], extra="/Rotate 90 /CropBox [50 400 612 792]"))
    rows, columns = marked(path, "Alpha beta gamma")
    # A quarter turn clockwise: the first line runs down the right side, 22 points from the left of the crop.
    assert columns.min() > 0.75
    assert 0.03 < rows.min() < 0.06
    assert rows.max() - rows.min() > 0.1


def test_long_pages_are_no_higher_than_the_limit(tmp_path):
    path = tmp_path / "long.pdf"
    path.write_bytes(files.make_pdf([LINES]).replace(b"[0 0 612 792]", b"[0 0 50 9000]"))
    assert picture(path, 1, width=900).shape[0] == 4000


def test_wrong_pages_widths_and_files_are_refused_in_sentences(path, tmp_path):
    for page in (0, 3):
        with pytest.raises(ValueError, match="has pages 1 to 2, not"):
            page_image(path, page)
    for width in (0, 5000):
        with pytest.raises(ValueError, match="from 1 to 4000"):
            page_image(path, 1, width=width)
    with pytest.raises(UnreadableError, match="cannot be opened"):
        page_image(tmp_path / "none.pdf", 1)
    (tmp_path / "b.pdf").write_bytes(b"no pdf")
    with pytest.raises(UnreadableError, match="broken or not a PDF"):
        page_image(tmp_path / "b.pdf", 1)
