"""Streams: in order, shuffled, resumed, shared; from the packages datasets and webdataset."""

import io
import pickle
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from lsdr.representation.data.open import open_data
from lsdr.representation.data.stream import StreamOrder, StreamPart
from lsdr.training.order import StepSampler, share

datasets = pytest.importorskip("datasets")
pytest.importorskip("webdataset")


class Numbers:
    """Parts of so many rows each: row r of part p is 1000 p + r."""

    def __init__(self, *sizes):
        self.sizes, self.parts, self.opened, self.read = sizes, len(sizes), 0, 0

    def rows(self, part, skip):
        self.opened += 1
        for row in range(skip, self.sizes[part]):
            self.read += 1
            yield {"x": 1000 * part + row}

    def name(self, part, row):
        return f"{part}:{row}"


def decode(rows, index):
    return {"x": torch.tensor([row["x"] for row in rows]), "index": index}


def part(source, streams=2, lanes=2, window=4, held=1):
    return StreamPart(source, streams, lanes, window, held, decode, known=20)


def test_the_order_is_one_of_windows():
    order = StreamOrder(streams=2, lanes=2, window=4, batch_size=6, seed=0)
    batches = [order.batch(step) for step in range(16)]
    assert [StreamOrder(2, 2, 4, 6, 0).batch(step) for step in (15, 0, 7)] == [batches[15], batches[0], batches[7]]
    assert batches != [StreamOrder(2, 2, 4, 6, 1).batch(step) for step in range(16)]
    for step, batch in enumerate(batches):
        streams = [number % 4 for number in batch]
        assert streams == [2 * (step % 2)] * 3 + [2 * (step % 2) + 1] * 3
    rows = [number // 4 for batch in batches for number in batch if number % 4 == 0]
    assert rows != sorted(rows)
    assert [sorted(rows[at : at + 4]) for at in range(0, 24, 4)] == [list(range(at, at + 4)) for at in range(0, 24, 4)]


def test_streams_end_and_begin_again_and_resume_anywhere():
    """Parts of 9, 6, 9 and 9 rows to train on; the first row of each is held out."""
    source = Numbers(10, 7, 10, 10)
    data = part(source)
    order = data.order(4, seed=0)
    batches = [data.__getitems__(order.batch(step)) for step in range(40)]
    first = [x for batch in batches for x in batch["x"].tolist() if x < 1000]
    assert len(first) == 40
    for window in range(0, 40, 4):
        assert sorted(first[window : window + 4]) == sorted(1 + row % 9 for row in range(window, window + 4))
    second = {x for batch in batches for x in batch["x"].tolist() if 1000 <= x < 2000}
    assert second == set(range(1001, 1007))
    anew = part(Numbers(10, 7, 10, 10))
    for step in (37, 11, 38):
        assert torch.equal(anew.__getitems__(order.batch(step))["x"], batches[step]["x"])
    assert source.read < 40 * 4 + 4 * 10 * 3  # one after the other, not from the start each time
    with pytest.raises(ValueError, match="no more rows to train on"):
        part(Numbers(1, 9, 9, 9)).__getitems__([0])


def test_ranks_read_streams_of_their_own():
    sources = [Numbers(50, 50, 50, 50) for _ in range(2)]
    parts = [part(source) for source in sources]
    order = parts[0].order(8, seed=0)
    for rank, data in enumerate(parts):
        for step in range(10):
            found = data.__getitems__(share(order.batch(step), rank, 2))
            assert {x // 1000 % 2 for x in found["x"].tolist()} == {rank}
    assert all(source.opened == 2 for source in sources)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A data set in five files, as the package datasets reads it."""
    root = tmp_path_factory.mktemp("hub")
    for number in range(5):
        rows = range(number * 40, number * 40 + 40)
        texts = ["" if row % 7 == 3 else f"the row {row} says this and that" for row in rows]
        table = pa.table({"text": texts, "x": [row * 0.5 for row in rows], "label": [row % 3 for row in rows]})
        pq.write_table(table, root / f"train-{number}.parquet")
    return root


def test_hugging_face_texts(hub):
    data = open_data(f"hf-stream:{hub}", holdout=20, length=12, vocabulary=300)
    assert (data.modality, data.classes, len(data.heldout)) == ("text", 3, 16)  # empty ones are left out
    order = data.train.order(8, seed=0)
    batches = [data.train.__getitems__(order.batch(step)) for step in range(50)]
    shown = [data.show(index) for index in batches[3]["index"].tolist()]
    assert all(text.startswith("the row") for text in shown)
    assert [int(text.split()[2]) % 3 for text in shown] == batches[3]["label"].tolist()
    held = data.heldout.__getitems__(list(range(16)))["index"].tolist()
    assert all(index < 0 for index in held)
    assert not {data.show(index) for index in held} & {
        data.show(index) for batch in batches[:12] for index in batch["index"].tolist()
    }
    anew = pickle.loads(pickle.dumps(data))
    sampler = StepSampler(order, 41, 0, 1)
    loader = DataLoader(
        anew.train, batch_sampler=sampler, num_workers=2, collate_fn=dict, multiprocessing_context="fork"
    )
    for step, batch in zip(range(41, 44), loader, strict=False):
        assert torch.equal(batch["tokens"], batches[step]["tokens"])
        assert torch.equal(batch["index"], batches[step]["index"])


def test_hugging_face_tables(hub):
    streamed = open_data(f"hf-stream:{hub}", modality="table", holdout=20, drop=("text",))
    whole = open_data(f"hf:{hub}", modality="table", holdout=20, drop=("text",))
    assert streamed.fields.numeric == whole.fields.numeric == ("x",)
    batch = streamed.train.__getitems__([0, 4, 8])
    x = batch["numeric"][:, 0] * streamed.fields.deviation[0] + streamed.fields.mean[0]
    assert [f"x={value:.4g}" in streamed.show(i) for value, i in zip(x.tolist(), batch["index"].tolist(), strict=True)]
    assert (len(whole.train), len(whole.heldout), whole.classes) == (180, 20, 3)


def test_hugging_face_images(tmp_path, png):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y", "z"])})
    pictures = [{"bytes": b"junk" if number == 30 else png(number), "path": None} for number in range(60)]
    made = datasets.Dataset.from_dict({"image": pictures, "label": [n % 3 for n in range(60)]}, features=features)
    made.to_parquet(tmp_path / "train-0.parquet")
    data = open_data(f"hf-stream:{tmp_path}", holdout=6)
    assert (data.modality, data.fields.shape, data.class_names) == ("image", (3, 8, 8), ("x", "y", "z"))
    batch = data.train.__getitems__([23, 24, 25])
    assert batch["index"].tolist() == [23, 25, 25]  # row 24 to train on is row 30
    assert batch["label"].tolist() == [29 % 3, 31 % 3, 31 % 3]
    whole = open_data(f"hf:{tmp_path}", holdout=0)
    assert torch.equal(whole.train.__getitems__([31])["image"], batch["image"][1:2])


def test_what_cannot_be_streamed(hub, tmp_path):
    with pytest.raises(ValueError, match="cannot be opened"):
        open_data(f"hf-stream:{tmp_path}/nothing")
    with pytest.raises(ValueError, match="has the splits train; name one"):
        open_data(f"hf-stream:{hub}:test")
    with pytest.raises(ValueError, match="limit=5 is for data of known size"):
        open_data(f"hf-stream:{hub}", limit=5)
    with pytest.raises(ValueError, match="no column 'words'; its columns are text, x, label"):
        open_data(f"hf-stream:{hub}", text="words")
    with pytest.raises(ValueError, match="hold fewer out"):
        open_data(f"hf-stream:{hub}", holdout=500)


def tar(path, samples):
    with tarfile.open(path, "w") as file:
        for name, content in samples:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def test_webdataset(tmp_path, png):
    for shard in range(3):
        samples = []
        for number in range(20):
            key = f"{shard}_{number:03}"
            samples += [(f"{key}.png", png(20 * shard + number)), (f"{key}.cls", f"{number % 2}".encode())]
        tar(tmp_path / f"w{shard}.tar", samples)
    data = open_data(str(tmp_path), holdout=6)
    assert (data.modality, data.fields.shape, data.class_names, data.train.streams) == (
        "image",
        (3, 8, 8),
        ("0", "1"),
        3,
    )
    order = data.train.order(6, seed=0)
    batches = [data.train.__getitems__(order.batch(step)) for step in range(9)]
    assert len({index for batch in batches for index in batch["index"].tolist()}) == 54
    assert data.name(int(batches[0]["index"][0])).startswith("w0.tar, sample ")
    anew = pickle.loads(pickle.dumps(data))
    assert torch.equal(anew.train.__getitems__(order.batch(7))["image"], batches[7]["image"])
    (tmp_path / "bad.tar").write_bytes(b"x" * 4000)
    with pytest.raises(ValueError, match=r"bad\.tar cannot be read as a tar file"):
        open_data(str(tmp_path / "bad.tar"))


def test_texts_in_tar_files(tmp_path):
    tar(tmp_path / "a.tar", [(f"{number}.txt", f"caf\u00e9 number {number}".encode("cp1252")) for number in range(30)])
    data = open_data(str(tmp_path / "a.tar"), holdout=0, vocabulary=300)
    assert (data.modality, data.classes, len(data.heldout)) == ("text", None, 0)
    assert data.show(12) == "caf\u00e9 number 12"
