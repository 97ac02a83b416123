import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from lsdr.representation.data import images as image_module
from lsdr.representation.data.block_order import Layout
from lsdr.representation.data.chunks import ChunkReader, Groups
from lsdr.representation.data.open import open_data
from lsdr.representation.data.representation_data import examples
from lsdr.training.order import StepSampler, share


@pytest.fixture(scope="module")
def blocks(large):
    return open_data(str(large[0]), in_memory=0, holdout=0.1, label="label")


def test_rows_are_those_of_the_file(blocks, large):
    table = large[1]
    fields = blocks.fields
    assert fields.numeric == ("row", "x")
    assert fields.categorical == ("word",)
    assert (len(blocks.train), len(blocks.heldout), blocks.classes) == (900, 100, 3)
    batch = blocks.train.__getitems__([899, 0, 450, 17])
    index = batch["index"].numpy()
    assert len(set(index.tolist())) == 4
    x = table.column("x").to_numpy()[index]
    np.testing.assert_allclose(batch["numeric"][:, 1], (x - fields.mean[1]) / fields.deviation[1], rtol=1e-5)
    words = [fields.levels[0][code - 1] for code in batch["categorical"][:, 0].tolist()]
    assert words == [table.column("word")[int(each)].as_py() for each in index]
    assert batch["label"].tolist() == table.column("label").to_numpy()[index].tolist()
    assert not batch["missing"].any()
    whole = open_data(str(large[0]), holdout=0, label="label").train.__getitems__([5])
    assert {name: value.dtype for name, value in batch.items()} == {name: each.dtype for name, each in whole.items()}
    assert blocks.name(int(index[0])) == f"part-1.parquet#{index[0] - 500}"
    assert f"row={index[1]}, x={x[1]:.4g}" in blocks.show(int(index[1]))


def test_held_out_rows_are_in_no_batch_of_an_epoch(blocks):
    order = blocks.train.order(32, seed=3)
    seen = [blocks.train.__getitems__(order.batch(step))["index"] for step in range(order.epoch)]
    seen = torch.cat(seen).tolist()
    held = blocks.heldout.__getitems__(list(range(100)))["index"].tolist()
    assert len(seen) == len(set(seen)) == 28 * 32
    assert not set(seen) & set(held)
    assert set(seen) | set(held) <= set(range(1000))


def batches(data, start, count, workers=0):
    order = data.train.order(24, seed=0)
    sampler = StepSampler(order, start, 0, 1)
    context = None if workers == 0 else "fork"
    loader = iter(
        DataLoader(
            data.train, batch_sampler=sampler, num_workers=workers, collate_fn=dict, multiprocessing_context=context
        )
    )
    return [next(loader) for _ in range(count)]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_resumed_and_with_workers_and_after_a_pickle_the_same_rows_come(blocks):
    whole = batches(blocks, 0, 50)
    anew = pickle.loads(pickle.dumps(blocks))
    for step, batch in zip(range(41, 50), batches(anew, 41, 9), strict=True):
        assert same(batch, whole[step])
    for step, batch in zip(range(7, 15), batches(blocks, 7, 8, workers=2), strict=True):
        assert same(batch, whole[step])


def test_ranks_together_read_what_one_process_does(blocks):
    order = blocks.train.order(10, seed=0)
    for step in range(20):
        whole = blocks.train.__getitems__(order.batch(step))
        parts = [blocks.train.__getitems__(share(order.batch(step), rank, 4)) for rank in range(4)]
        assert torch.equal(torch.cat([part["numeric"] for part in parts]), whole["numeric"])


def test_memory_does_not_grow_with_rows(blocks):
    """What is kept is bounded by the layout, and row groups are read once an epoch, or twice at the ends of runs."""
    data = pickle.loads(pickle.dumps(blocks))
    reader, layout = data.train.reader, data.train.part.layout
    decoded, decode = [], reader._decode
    reader._decode = lambda table, begin: (decoded.append(table.num_rows), decode(table, begin))[1]
    order = data.train.order(16, seed=0)
    for step in range(order.epoch):
        data.train.__getitems__(order.batch(step))
        assert len(reader._chunks) <= (layout.streams * layout.lanes + 2) * layout.mix
        assert len(reader._open) <= (layout.streams * layout.lanes + 2) * layout.mix
    assert 900 <= sum(decoded) <= 1000 + 25 * layout.streams * layout.lanes


def test_chunks_of_a_large_row_group_are_read_in_turn_and_back(tmp_path):
    count = 100_000
    pq.write_table(pa.table({"x": np.arange(count, dtype=np.float64)}), tmp_path / "a.parquet", row_group_size=count)
    data = open_data(str(tmp_path / "a.parquet"), in_memory=0, holdout=0)
    assert data.train.part.layout.chunk < count
    opened, tables = [], data.train.reader._tables
    data.train.reader._tables = lambda group: (opened.append(group), tables(group))[1]
    order = data.train.order(1000, seed=0)
    rows = [data.train.__getitems__(order.batch(step)) for step in range(order.epoch)]
    assert opened == [0]
    index = torch.cat([batch["index"] for batch in rows])
    x = torch.cat([batch["numeric"] for batch in rows])[:, 0].double() * data.fields.deviation[0] + data.fields.mean[0]
    assert torch.equal(x.round().long(), index)
    assert len(set(index.tolist())) == count
    assert data.train.__getitems__([5])["index"].tolist() == [5]


def test_chunks_are_cut_anywhere(tmp_path):
    for number in range(2):
        file = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"x": np.arange(12_000) + 12_000 * number}), file, row_group_size=12_000)
    groups = Groups([str(tmp_path / "0.parquet"), str(tmp_path / "1.parquet")])
    reader = ChunkReader(groups, ["x"], 5000, lambda table, begin: {"x": table.column("x").to_numpy()}, kept=1)
    for group, number in ((0, 0), (0, 1), (1, 0), (0, 2), (1, 2), (0, 1), (1, 1)):
        first = 12_000 * group + 5000 * number
        expected = np.arange(first, min(first + 5000, 12_000 * (group + 1)))
        np.testing.assert_array_equal(reader.get(group, number)["x"], expected)


def test_examples_are_few_rows_of_many_row_groups(blocks):
    _, labels, index = examples(blocks.train, blocks.fields, 60, torch.device("cpu"))
    again = examples(blocks.train, blocks.fields, 60, torch.device("cpu"))[2]
    assert torch.equal(index, again)
    assert len(set(index.tolist())) == len(labels) == 60
    assert len({each // 25 for each in index.tolist()}) >= 15
    assert len(examples(blocks.heldout, blocks.fields, 5000, torch.device("cpu"))[2]) == 100
    assert len(blocks.train.draw(899, 0)) == 899


def test_a_limit_is_spread_over_the_row_groups(large):
    data = open_data(str(large[0]), in_memory=0, limit=200, holdout=0)
    assert len(data.train) == 200
    assert data.train.__getitems__(list(range(200)))["index"].tolist() == list(range(200))
    rows = data.train.__getitems__([0, 5, 199])["numeric"][:, 0].double() * data.fields.deviation[0]
    assert (rows + data.fields.mean[0]).round().tolist() == [0, 25, 979]


def test_empty_texts_are_replaced_by_the_next(tmp_path):
    texts = [
        "" if number % 3 == 1 else f"the word {number} again and again, at some length, {number}" * 3
        for number in range(90)
    ]
    texts[4] = None
    pq.write_table(
        pa.table({"text": texts, "label": [number % 2 for number in range(90)]}),
        tmp_path / "a.parquet",
        row_group_size=30,
    )
    data = open_data(str(tmp_path / "a.parquet"), in_memory=0, holdout=0, length=16, vocabulary=300)
    assert data.modality == "text"
    batch = data.train.__getitems__(list(range(90)))
    assert batch["index"][:6].tolist() == [0, 2, 2, 3, 5, 5]
    assert batch["label"][:6].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch["tokens"].shape == (90, 16)
    assert torch.equal(batch["tokens"][1], batch["tokens"][2])
    assert data.show(3).startswith("the word 3 again")


@pytest.mark.parametrize("chunk", [3, 16384])
def test_large_files_of_images(tmp_path, png, monkeypatch, chunk):
    monkeypatch.setattr(image_module, "lay_out", lambda *_: Layout(streams=2, lanes=2, mix=2, chunk=chunk))
    images = [{"bytes": png(number) if number != 21 else b"no picture", "path": ""} for number in range(64)]
    table = pa.table({"image": images, "label": [number % 3 for number in range(64)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=8)
    held = open_data(str(tmp_path / "a.parquet"), holdout=0)
    data = open_data(str(tmp_path / "a.parquet"), in_memory=0, holdout=8)
    assert (data.modality, data.fields.shape, len(data.train), len(data.heldout)) == ("image", (3, 8, 8), 56, 8)
    order = data.train.order(8, seed=0)
    found = [data.train.__getitems__(order.batch(step)) for step in range(order.epoch)]
    index = torch.cat([batch["index"] for batch in found])
    assert set(index.tolist()) == set(range(64)) - set(range(0, 64, 8)) - {21}
    assert torch.equal(torch.cat([batch["image"] for batch in found]), held.train.__getitems__(index.tolist())["image"])
    assert [each["kind"] for each in data.problems()] == ["not_an_image"]
    anew = pickle.loads(pickle.dumps(data))
    assert same(anew.train.__getitems__(order.batch(2)), found[2])


def test_labels_that_are_none(tmp_path):
    table = pa.table({"x": np.arange(60.0), "label": ["one"] * 60})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=20)
    data = open_data(str(tmp_path / "a.parquet"), in_memory=0)
    assert data.classes is None
    assert data.fields.categorical == ()
    assert [each["kind"] for each in data.problems()] == ["one_class"]


def test_files_that_do_not_fit_or_change(large, tmp_path):
    pq.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"y": [1.0, 2.0]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b.parquet has no column 'x'"):
        open_data(str(tmp_path), in_memory=0)
    file = tmp_path / "c.parquet"
    pq.write_table(large[1], file, row_group_size=100)
    data = open_data(str(file), in_memory=0)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cut short or have been changed"):
        data.train.__getitems__([500])
    with pytest.raises(IndexError, match="not all in a part of 900"):
        data.train.__getitems__([900])
