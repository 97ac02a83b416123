import bz2
import gzip

import numpy as np
import pandas as pd
import pytest

from lsdr.regression.sources import csv_pieces
from lsdr.regression.sources.open import open_source


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of a few records, so that small files have many."""
    monkeypatch.setattr(csv_pieces.pieces, "__defaults__", (64, ","))


def table(rows, seed=0):
    generator = np.random.default_rng(seed)
    words = np.array(["plain", "with, comma", "two\nlines", 'a "mark"', " ", "äöü"])
    return pd.DataFrame(
        {
            "a": generator.normal(size=rows),
            "t": generator.choice(words, rows),
            "n": generator.integers(-5, 5, rows),
            "y": generator.normal(size=rows),
        }
    )


@pytest.mark.parametrize("quoting", [0, 1, 2])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_records_are_never_cut_in_two(read, tmp_path, small_pieces, quoting, line):
    expected = table(300)
    expected.to_csv(tmp_path / "t.csv", index=False, quoting=quoting, lineterminator=line)
    source = open_source(tmp_path / "t.csv")
    frame = read(source).frame
    assert np.array_equal(frame["a"], expected["a"])
    assert np.array_equal(frame["n"], expected["n"])
    assert np.array_equal(frame["<y>"], expected["y"])
    for word in expected["t"].unique():
        column = f"t[{word}]".replace("\n", line)
        column = column if column in frame else f"t[{word}]"
        assert np.array_equal(frame[column], expected["t"] == word)


def test_pieces_join_to_the_whole_and_end_with_records(tmp_path):
    path = tmp_path / "t.csv"
    table(500).to_csv(path, index=False)
    data = path.read_bytes()
    for size in (1, 50, 333, 10**6):
        found = list(csv_pieces.pieces(path, 0, size))
        assert b"".join(piece for _, piece in found) == data
        assert [start for start, _ in found] == np.cumsum([0] + [len(piece) for _, piece in found[:-1]]).tolist()
        assert all(piece.endswith(b"\n") and piece.count(b'"') % 2 == 0 for _, piece in found)


def test_inch_marks_are_no_quotation_marks(read, write, small_pieces):
    path = write("pipe,size,y\n" + '5" pipe,1,2\n7 mm,2,3\n"x\ny",3,4\n' * 50)
    frame = read(path).frame
    assert len(frame) == 150
    assert frame['pipe[5" pipe]'].sum() == 50
    assert frame["pipe[x\ny]"].sum() == 50


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".csv.gz", gzip.compress), (".csv.bz2", bz2.compress), (".CSV", lambda data: data)]
)
def test_compressed_files_are_read(read, tmp_path, small_pieces, suffix, compress):
    expected = table(200)
    path = tmp_path / f"t{suffix}"
    path.write_bytes(compress(expected.to_csv(index=False).encode()))
    kept = read(str(path))
    assert np.array_equal(kept.frame["a"], expected["a"])


def test_a_compressed_file_that_is_cut_short_is_refused(write):
    data = gzip.compress(table(3000).to_csv(index=False).encode())
    with pytest.raises(ValueError, match=r"t.csv.gz cannot be decompressed .* cut short"):
        open_source(write(data[: len(data) // 50], "t.csv.gz"))


def test_an_uncompressed_file_of_a_compressed_name_is_refused(write):
    with pytest.raises(ValueError, match=r"cannot be decompressed"):
        open_source(write("a,y\n1,2\n" * 100, "t.csv.gz"))


@pytest.mark.parametrize(("name", "mark"), [("t.tsv", "\t"), ("t.csv", ";"), ("t.txt", "|"), ("t.csv", ",")])
def test_the_delimiter_is_found(read, write, name, mark):
    text = f"a{mark}b{mark}y\n1{mark}2{mark}3\n4{mark}5{mark}7\n"
    assert read(write(text, name)).frame["b"].tolist() == [2.0, 5.0]


def test_decimal_commas_are_understood(read, write):
    frame = read(write("a;t;y\n1,5;x;2\n-2;y;1e1\n0,25;x;3,5\n")).frame
    assert frame["a"].tolist() == [1.5, -2.0, 0.25]
    assert frame["<y>"].tolist() == [2.0, 10.0, 3.5]


def test_bytes_before_and_blank_lines_do_no_harm(read, write):
    frame = read(write("\ufeff\n\n a , y\r\n\r\n1,2\r\n\n3,4")).frame
    assert frame["a"].tolist() == [1.0, 3.0]


def test_missing_values_are_written_in_many_ways(read, write):
    kept = read(write('a,t,y\n,x,1\nNA,x,2\nnan,x,3\nnull,x,4\n1,,5\n2,NA,6\n"",x,7\n 3 ,"x",8\n'))
    assert kept.frame["<y>"].tolist() == [8.0]
    assert kept.missing_by == {"a": 5, "t": 2}


def test_true_and_false_are_1_and_0(read, write):
    frame = read(write("b,y\ntrue,1\nFalse,2\n,3\n")).frame
    assert frame["b"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("late", [False, True])
def test_text_in_a_number_column_is_named_with_row_and_value(read, write, small_pieces, late):
    rows = ["1,1,2"] * 40
    rows[30 if late else 3] = "1,twelve,2"
    with pytest.raises(
        ValueError, match=rf"column 'a' holds no number in row {31 if late else 4} of .*t.csv: 'twelve'"
    ):
        read(write("x,a,y\n" + "\n".join(rows)))


def test_a_column_of_mostly_numbers_is_no_factor_unless_said_so(read, write):
    path = write("a,y\n1,1\nlow,2\n3,3\nhigh,4\n5,5\n")
    with pytest.raises(ValueError, match=r"column 'a' holds no number in row 2 of .*: 'low'; .*categorical"):
        read(path)
    assert list(read(path, categorical=["a"]).frame.columns[:5]) == ["a[1]", "a[3]", "a[5]", "a[high]", "a[low]"]


def test_labels_keep_their_zeros(read, write):
    frame = read(write("zip,c,y\n007,01,1\n7,1,2\n"), features=["zip"], categorical=["zip"], clusters="c").frame
    assert list(frame.columns[:2]) == ["zip[007]", "zip[7]"]
    assert frame["<c>"].tolist() == ["01", "1"]


@pytest.mark.parametrize(("bad", "count"), [("1,2", 2), ("1,2,3,4", 4), ("1", 1)])
@pytest.mark.parametrize("row", [2, 35])
def test_ragged_rows_are_named(read, write, small_pieces, bad, count, row):
    rows = ["1,2,3"] * 40
    rows[row - 1] = bad
    with pytest.raises(ValueError, match=rf"row {row} of .*t.csv has {count} fields instead of 3: '{bad}'"):
        read(write("a,b,y\n" + "\n".join(rows) + "\n"))


@pytest.mark.parametrize("value", ["inf", "-Infinity", "1e999"])
def test_infinite_values_are_named(read, write, small_pieces, value):
    rows = ["1,2"] * 50
    rows[44] = f"{value},2"
    with pytest.raises(ValueError, match=r"column 'a' is infinite \(-?inf\) in row 45 of .*t.csv"):
        read(write("a,y\n" + "\n".join(rows)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv is empty"),
        ("\n\n", "t.csv is empty: it needs a header"),
        ("1,2,3\n4,5,6\n", "seems to have no header: its first line is '1,2,3'"),
        ("a,b,a\n1,2,3\n", "two columns named 'a'"),
        ("a,y\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"\xe4,y\n1,2\n", "not UTF-8 text"),
        (b"\x00\x01\x02,y\n1,2\n", "zero bytes"),
        ('a,y\n1,"2\n3,4\n', "a quotation mark that is not closed"),
    ],
)
def test_files_that_are_no_table_are_refused_with_what_to_do(read, write, text, message):
    with pytest.raises(ValueError, match=message):
        read(write(text))


def test_latin_1_in_the_rows_is_refused_with_its_row(read, write):
    with pytest.raises(ValueError, match=r"t.csv cannot be read as CSV.*column 't' in row 2 of .*must be UTF-8"):
        read(write(b"t,y\nx,1\n" + "ä,2\n".encode("latin-1")))


def test_dates_are_refused_by_name(read, write):
    path = write("day,a,y\n2024-01-01,1,2\n2024-01-02,2,3\n")
    with pytest.raises(ValueError, match=r"'day' of .*t.csv holds dates or times"):
        read(path)
    assert len(read(path, features=["a"]).frame) == 2


def test_a_header_alone_is_no_rows(read, write):
    kept = read(write("a,y\n"))
    assert not kept.frames


def test_an_index_column_without_a_name_gets_one(read, tmp_path):
    pd.DataFrame({"a": [1.0, 2.0], "y": [1, 2]}).to_csv(tmp_path / "t.csv")
    source = open_source(tmp_path / "t.csv")
    assert list(source.schema) == ["Unnamed: 0", "a", "y"]


def test_quoted_names_may_hold_the_delimiter(read, write):
    assert read(write('"a, b",y\n1,2\n3,4\n')).frame["a, b"].tolist() == [1.0, 3.0]


def test_a_quote_that_never_closes_does_not_swallow_memory(write, monkeypatch):
    monkeypatch.setattr(csv_pieces, "_MOST_BYTES", 4096)
    monkeypatch.setattr(csv_pieces.pieces, "__defaults__", (256, ","))
    path = write('a,y\n"x,1\n' + "1,2\n" * 100000)
    sizes = []
    with pytest.raises(ValueError, match="not closed, in a record that starts at byte 4"):
        sizes.extend(len(data) for _, data in csv_pieces.pieces(path_of(path), 4))
    assert not sizes


def path_of(text):
    from pathlib import Path

    return Path(text)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_names_may_hold_line_breaks(read, write, ending):
    path = write(f'a,"living{ending}area, m",y{ending}1,2,3{ending}4,5,6{ending}')
    assert list(open_source(path).schema) == ["a", f"living{ending}area, m", "y"]
    assert read(path).frame.iloc[:, 1].tolist() == [2.0, 5.0]
