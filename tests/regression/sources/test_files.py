import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from lsdr.regression.plan import make_plan
from lsdr.regression.sources import encoded, parquet
from lsdr.regression.sources.open import open_source


def table(rows, seed=0):
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "a": generator.normal(size=rows),
            "b.c": generator.normal(size=rows).astype(np.float32),
            "n": generator.integers(0, 9, rows),
            "t": generator.choice(["x", "y"], rows),
            "y": generator.normal(size=rows),
        }
    )


def same(frame, expected):
    assert np.array_equal(frame["a"], expected["a"])
    assert np.array_equal(frame["b.c"], expected["b.c"])
    assert np.array_equal(frame["n"], expected["n"])
    assert np.array_equal(frame["t[x]"], expected["t"] == "x")
    assert np.array_equal(frame["<y>"], expected["y"])


@pytest.mark.parametrize("rows", [3, 1000])
def test_parquet_row_groups_of_any_size(read, tmp_path, rows):
    expected = table(1000)
    pq.write_table(pa.Table.from_pandas(expected), tmp_path / "t.parquet", row_group_size=rows)
    same(read(tmp_path / "t.parquet").frame, expected)


def numbers(rows):
    """Numbers of several types, some missing: what polars decodes."""
    frame = table(rows).drop(columns="t").assign(flag=np.arange(rows) % 3 == 0)
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    gaps = pa.array([None if k % 11 == 0 else k for k in range(rows)], pa.int16())
    return arrow.append_column("gaps", gaps)


@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False, "compression": "zstd"}, {"data_page_version": "2.0"}]
)
@pytest.mark.parametrize("rows", [7, 900])
def test_whether_polars_or_arrow_decodes_no_bit_and_no_batch_differs(tmp_path, monkeypatch, options, rows):
    pq.write_table(numbers(3000), tmp_path / "t.parquet", row_group_size=rows, **options)
    monkeypatch.setattr(parquet, "PART_ROWS", 1000)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 400)
    asked, scanned = [], parquet._scanned
    monkeypatch.setattr(parquet, "_scanned", lambda *file: asked.append(file) or scanned(*file))

    def batches():
        source = open_source(tmp_path / "t.parquet")
        return [batch for part in source.parts(make_plan(source, "y")) for batch in part.batches()]

    by_polars = batches()
    parts = len(asked)
    assert parts > 1
    monkeypatch.setattr(parquet, "_WHOLE_NUMBERS", 0)
    by_arrow = batches()
    assert len(asked) == parts
    assert len(by_polars) == len(by_arrow) > 3
    for one, other in zip(by_polars, by_arrow, strict=True):
        assert (one.columns, one.start, one.missing_by) == (other.columns, other.start, other.missing_by)
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_array_equal(one.y, other.y)
        np.testing.assert_array_equal(one.blocks, other.blocks)


def test_checksums_of_numbers_are_verified(read, tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    monkeypatch.setattr(parquet, "PART_ROWS", 500)
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(numbers(2000), path, row_group_size=500, **options)
    data = bytearray(path.read_bytes())
    data[pq.read_metadata(path).row_group(3).column(0).data_page_offset + 2000] ^= 1  # a number, and then another
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"t\.parquet is not a readable Parquet file .*CRC"):
        read(path)


def test_what_polars_cannot_read_arrow_reads(read, tmp_path, monkeypatch):
    pq.write_table(numbers(100), tmp_path / "t.parquet")
    expected = read(tmp_path / "t.parquet").frame
    asked = []

    def scanned(path, stamp):
        asked.append(path)
        raise pl.exceptions.ComputeError("not like this")

    monkeypatch.setattr(parquet, "_scanned", scanned)
    pd.testing.assert_frame_equal(read(tmp_path / "t.parquet").frame, expected)
    assert asked


def test_parquet_of_polars_and_of_no_ending(read, tmp_path):
    expected = table(70000)
    pl.from_pandas(expected).write_parquet(tmp_path / "t", row_group_size=20000)
    source = open_source(tmp_path / "t")
    assert source.rows == 70000
    parts = list(source.parts(make_plan(source, "y")))
    assert [part.rows for part in parts] == [40000, 30000]
    assert [part.place.first for part in parts] == [0, 40000]
    same(read(source).frame, expected)


def test_folders_globs_and_lists_are_one_table_in_the_order_of_names(read, tmp_path):
    whole = table(3000)
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for k, name in enumerate(("data/1.parquet", "data/2.parquet", "data/deep/3.parquet")):
        whole.iloc[1000 * k : 1000 * (k + 1)].to_parquet(tmp_path / name)
    for ignored in ("_SUCCESS", "_common.parquet", ".hidden.parquet", "notes.md"):
        (tmp_path / "data" / ignored).write_text("x")
    same(read(tmp_path / "data").frame, whole)
    same(read(str(tmp_path / "data" / "**" / "[123].parquet")).frame, whole)
    listed = read([tmp_path / "data" / "2.parquet", str(tmp_path / "data" / "1.parquet")]).frame
    same(listed, pd.concat([whole.iloc[1000:2000], whole.iloc[:1000]], ignore_index=True))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_arrow_files_and_streams_are_read(read, tmp_path, compression):
    expected = table(3000)
    arrow = pa.Table.from_pandas(expected)
    pa.feather.write_feather(arrow, tmp_path / "t.feather", compression=compression or "uncompressed", chunksize=999)
    same(read(tmp_path / "t.feather").frame, expected)
    with pa.ipc.new_stream(tmp_path / "t.arrows", arrow.schema) as writer:
        writer.write_table(arrow, max_chunksize=500)
    same(read(tmp_path / "t.arrows").frame, expected)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("damage", ["cut", "middle", "zeros", "text", "empty"])
def test_damaged_files_are_refused_by_name(read, tmp_path, kind, damage):
    path = tmp_path / f"t.{kind}"
    frame = table(5000)
    arrow = pa.Table.from_pandas(frame)
    pq.write_table(arrow, path, write_page_checksum=True) if kind == "parquet" else pa.feather.write_feather(
        arrow, path
    )
    data = bytearray(path.read_bytes())
    data = {
        "cut": data[: len(data) // 2],
        "middle": data[:2000] + bytes(range(256)) * 40 + data[2000 + 40 * 256 :],
        "zeros": bytes(len(data)),
        "text": b"a,y\n1,2\n",
        "empty": b"",
    }[damage]
    path.write_bytes(bytes(data))
    if (kind, damage) == ("arrow", "middle"):
        pytest.skip("Arrow files without compression carry no checksum")
    with pytest.raises(ValueError, match=r"t\.(parquet|arrow) (is not a readable|is empty)"):
        read(path)


def test_bytes_written_by_an_enemy_end_in_an_error_not_in_a_crash(read, tmp_path):
    table(500).to_parquet(tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(25):
        bad = bytearray(data)
        for at in generator.integers(4, len(data) - 8, 20):
            bad[at] = generator.integers(256)
        (tmp_path / "bad.parquet").write_bytes(bytes(bad))
        try:
            read(tmp_path / "bad.parquet")
        except ValueError:
            refused += 1
    assert refused > 12


@pytest.mark.parametrize("rows", [30, 10**5])
def test_a_row_is_named_by_its_file(read, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(parquet, "BATCH_ROWS", rows)
    for k in range(3):
        frame = table(300, seed=k)
        if k == 1:
            frame.loc[250, "a"] = np.inf
        pq.write_table(pa.Table.from_pandas(frame), tmp_path / f"{k}.parquet", row_group_size=100)
    with pytest.raises(ValueError, match=r"column 'a' is infinite \(inf\) in row 251 of .*1.parquet"):
        read(tmp_path)


def test_only_the_needed_columns_are_read(read, tmp_path):
    # The other column is damaged, which nobody notices who does not read it.
    frame = pd.DataFrame({"a": np.arange(5.0), "y": np.ones(5), "broken": ["some text"] * 5})
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "t.parquet", compression=None, use_dictionary=False)
    meta = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0).column(2)
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[meta.data_page_offset : meta.data_page_offset + 20] = b"\xff" * 20
    (tmp_path / "t.parquet").write_bytes(bytes(data))
    assert len(read(tmp_path / "t.parquet", features=["a"]).frame) == 5
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read(tmp_path / "t.parquet")


def test_files_with_other_columns_are_refused_by_name(tmp_path):
    table(10).to_parquet(tmp_path / "1.parquet")
    table(10).drop(columns="n").to_parquet(tmp_path / "2.parquet")
    with pytest.raises(ValueError, match=r"2.parquet has no column 'n', which .*1.parquet has"):
        open_source(tmp_path)
    table(10).assign(n="text").to_parquet(tmp_path / "2.parquet")
    with pytest.raises(ValueError, match=r"column 'n' holds number in .*1.parquet, but text in .*2.parquet"):
        open_source(tmp_path)


def test_a_column_that_is_empty_in_one_file_fits_any_other(read, tmp_path):
    table(10).assign(t=None).to_parquet(tmp_path / "1.parquet")
    table(10).to_parquet(tmp_path / "2.parquet")
    kept = read(tmp_path, features=["a", "t"], categorical=["t"])
    assert len(kept.frame) == 10
    assert kept.missing == 10


def test_csv_files_of_a_folder_need_the_same_names_in_any_order(read, tmp_path):
    first, second = table(50), table(50, seed=1)
    first.to_csv(tmp_path / "1.csv", index=False)
    second[["y", "t", "n", "b.c", "a"]].to_csv(tmp_path / "2.csv", index=False)
    expected = pd.concat([first, second], ignore_index=True)
    frame = read(tmp_path).frame
    assert np.array_equal(frame["a"], expected["a"])
    assert np.array_equal(frame["<y>"], expected["y"])
    second.drop(columns="n").to_csv(tmp_path / "2.csv", index=False)
    with pytest.raises(ValueError, match=r"2.csv has no column 'n', which .*1.csv has"):
        read(tmp_path)


def test_what_is_not_there_is_said_with_close_names(tmp_path):
    (tmp_path / "houses.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"there is no .*house.parquet; did you mean .*houses.parquet\?"):
        open_source(str(tmp_path / "house.parquet"))
    with pytest.raises(ValueError, match=r"no file is named like .*\*.csv"):
        open_source(str(tmp_path / "*.csv"))
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"none holds no file named \*.parquet"):
        open_source(tmp_path / "none")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"t.xlsx is no file that is known here: give it one of the endings .parquet"):
        open_source(tmp_path / "t.xlsx")


def test_files_of_several_kinds_are_refused(tmp_path):
    table(10).to_parquet(tmp_path / "1.parquet")
    table(10).to_csv(tmp_path / "2.csv")
    with pytest.raises(ValueError, match=r"several kinds \(1.parquet, 2.csv\): choose one by a glob"):
        open_source(tmp_path)


def test_a_file_that_changes_while_it_is_read_is_refused(read, tmp_path):
    path = tmp_path / "t.parquet"
    table(100).to_parquet(path)
    source = open_source(path)
    table(120).to_parquet(path)
    with pytest.raises(ValueError, match=r"t.parquet has changed while it was being read"):
        read(source)


def test_batches_say_where_they_start_and_blocks_do_not_depend_on_them(tmp_path, monkeypatch):
    pq.write_table(pa.Table.from_pandas(table(5000)), tmp_path / "t.parquet", row_group_size=1500)
    source = open_source(tmp_path / "t.parquet")
    plan = make_plan(source, "y")
    (part,) = source.parts(plan)
    whole = np.concatenate([batch.blocks for batch in part.batches()])
    monkeypatch.setattr(parquet, "BATCH_ROWS", 400)
    monkeypatch.setattr(encoded, "BATCH_ROWS", 300)
    batches = list(part.batches())
    assert len(batches) > 12
    assert [batch.start for batch in batches] == np.cumsum([0] + [len(batch.y) for batch in batches[:-1]]).tolist()
    assert np.concatenate([batch.blocks for batch in batches]).tolist() == whole.tolist()


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_folds_of_a_file_are_looked_up(read, tmp_path, suffix):
    frame = table(600).assign(year=np.repeat([2021, 2019, 2020], 200))
    path = tmp_path / f"t.{suffix}"
    frame.to_parquet(path) if suffix == "parquet" else frame.to_csv(path, index=False)
    blocks = read(path, fold_column="year").frame["<block>"]
    assert (blocks % 3).tolist() == (frame["year"] - 2019).tolist()


def test_reading_needs_no_torch(tmp_path):
    table(10).to_parquet(tmp_path / "t.parquet")
    script = (
        "import sys; from lsdr.regression.sources.open import open_source; "
        "from lsdr.regression.plan import make_plan; "
        f"source = open_source({str(tmp_path)!r}); source.peek(make_plan(source, 'y')); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
