"""One call for every kind of source, and what it says of sources that cannot be used."""

import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lsdr.representation.data.fields import fields_from_json, fields_to_json
from lsdr.representation.data.open import open_data
from lsdr.representation.data.representation_data import examples, prepare

CPU = torch.device("cpu")


def csv(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def kinds(data):
    return {each["kind"]: each["examples"] for each in data.problems()}


@pytest.mark.parametrize(
    ("source", "modality", "sizes", "classes", "names"),
    [
        ("digits", "image", (1617, 180), 10, {"image": torch.float32}),
        ("patches", "image", (6300, 770), None, {"image": torch.float32}),
        *(
            (
                name,
                "table",
                sizes,
                classes,
                {"numeric": torch.float32, "categorical": torch.int64, "missing": torch.bool},
            )
            for name, sizes, classes in (
                ("breast-cancer", (512, 57), 2),
                ("wine", (160, 18), 3),
                ("digits-table", (1617, 180), 10),
            )
        ),
    ],
)
def test_what_comes_with_scikit_learn(source, modality, sizes, classes, names):
    data = open_data(source)
    assert (data.modality, len(data.train), len(data.heldout), data.classes) == (modality, *sizes, classes)
    inputs, labels, index = examples(data.train, data.fields, 40, CPU)
    assert {name: value.dtype for name, value in inputs.items()} == names
    assert (labels is None) == (classes is None)
    assert torch.equal(index, examples(data.train, data.fields, 40, CPU)[2])
    held = examples(data.heldout, data.fields, 10**6, CPU)[2]
    assert not set(held.tolist()) & set(examples(data.train, data.fields, 10**6, CPU)[2].tolist())
    assert json.loads(json.dumps(data.describe(source)))["count"] == sizes[0]
    assert fields_from_json(json.loads(json.dumps(fields_to_json(data.fields)))) == data.fields
    anew = pickle.loads(pickle.dumps(data))
    assert torch.equal(anew.train.__getitems__([3])["index"], data.train.__getitems__([3])["index"])


def test_fields_say_what_training_examples_are_like():
    digits, wine = open_data("digits"), open_data("wine")
    image = examples(digits.train, digits.fields, 512, CPU)[0]["image"]
    assert 0 <= image.min() < image.max() <= 1
    assert digits.fields.mean[0] == pytest.approx(float(image.mean()), abs=0.01)
    assert digits.fields.deviation[0] == pytest.approx(float(image.std()), abs=0.01)
    numeric = examples(wine.train, wine.fields, 160, CPU)[0]["numeric"].double()
    torch.testing.assert_close(numeric.mean(0), torch.zeros(13).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(numeric.var(0, correction=0), torch.ones(13).double(), atol=1e-5, rtol=0)


def test_the_documentation_of_scipy():
    data = open_data("scipy-docs", vocabulary=512, length=24)
    assert data.modality == "text"
    assert data.classes >= 8
    assert len(data.train) > 3000
    train = examples(data.train, data.fields, 10**6, CPU)
    held = examples(data.heldout, data.fields, 10**6, CPU)
    assert 0.05 < len(held[2]) / len(train[2]) < 0.2
    # split by object: no function has paragraphs in both parts
    assert not {data.name(int(each)) for each in held[2]} & {data.name(int(each)) for each in train[2]}
    assert train[0]["tokens"].shape[1] == 24
    assert 2 < int(train[0]["tokens"].max()) < data.fields.vocabulary <= 512
    number = int(train[2][7])
    assert data.class_names[int(train[1][7])] == data.name(number).split(".")[0]
    assert data.fields == open_data("scipy-docs", vocabulary=512, length=24).fields


@pytest.fixture
def folder(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for each in range(8):
            (tmp_path / name / f"{each}.txt").write_text(f"the {name} say {each}", encoding="utf-8")
    return tmp_path


def test_a_folder_of_texts_in_several_encodings(folder):
    for name, raw in {
        "utf8": "café ü".encode(),
        "mark": "café ü".encode("utf-8-sig"),
        "windows": "café ü €".encode("cp1252"),
        "utf16": "café ü".encode("utf-16"),
        "odd": b"caf\xe9 \xfc \x81",  # no Windows-1252
        "empty": b"",
        "blank": b" \n\t ",
        "zeros": b"PNG\0\0\1",
    }.items():
        (folder / "cats" / f"{name}.txt").write_bytes(raw)
    data = open_data(str(folder), holdout=0, vocabulary=300)
    shown = {data.name(int(index)): data.show(int(index)) for index in examples(data.train, data.fields, 99, CPU)[2]}
    assert len(shown) == 21
    assert {shown[f"cats/{name}.txt"] for name in ("utf8", "mark", "utf16")} == {"café ü"}
    assert shown["cats/windows.txt"] == "café ü €"
    assert shown["cats/odd.txt"].startswith("café ü")
    assert data.class_names == ("cats", "dogs")
    assert kinds(data)["not_text"] == ["cats/zeros.txt"]
    assert {"cats/empty.txt", "cats/blank.txt"} <= set(kinds(data)["empty"])
    with pytest.raises(ValueError, match=r"zeros\.txt cannot be used"):
        open_data(str(folder), on_bad="refuse")
    assert open_data(str(folder), label="").classes is None


def test_texts_without_a_word(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds no text \(1 empty\)"):
        open_data(str(tmp_path))
    (tmp_path / "b.txt").write_text("one")
    with pytest.raises(ValueError, match="leaves none to train on"):
        open_data(str(tmp_path))
    with pytest.raises(ValueError, match="vocabulary=100 must be at least 300"):
        open_data(str(tmp_path), holdout=0, vocabulary=100)
    with pytest.raises(ValueError, match="length=1 must be at least 2"):
        open_data(str(tmp_path), holdout=0, length=1)


def test_columns_of_a_csv_file(tmp_path):
    rows = [
        f"key{n},{n * 0.5},{'xy'[n % 2]},7,,{'oops' if n % 10 == 0 else n},2020-01-{n % 28 + 1:02},"
        f"{'NaN' if n % 3 else n},{'pq'[n % 2]}"
        for n in range(60)
    ]
    file = csv(tmp_path / "a.csv", "id,num,cat,same,nothing,mixed,day,holes,label", rows)
    data = open_data(str(file), holdout=0)
    assert data.fields.numeric == ("num", "mixed", "day", "holes")
    assert data.fields.categorical == ("cat",)
    assert data.class_names == ("p", "q")
    assert kinds(data) == {
        "identifier": ["id"],
        "constant": ["same"],
        "no_values": ["nothing"],
        "not_a_number": ["mixed"],
    }
    batch = data.train.__getitems__([0, 1, 2])
    assert batch["missing"].tolist() == [
        [False, True, False, False, False],
        [False, False, False, True, False],
        [False, False, False, True, False],
    ]
    assert torch.isfinite(batch["numeric"]).all()
    assert batch["numeric"][1, 3] == 0
    assert data.show(1).startswith("id=key1, num=0.5, cat=y, same=7, nothing=, mixed=1")
    assert data.name(1) == "a.csv#1"
    dropped = open_data(str(file), holdout=0, drop=("cat", "day"), label="")
    assert "label" in dropped.fields.categorical
    assert not {"cat", "day"} & {*dropped.fields.numeric, *dropped.fields.categorical}


def test_dialects_and_encodings_of_csv(tmp_path):
    (tmp_path / "a.csv").write_bytes("gr\u00f6\u00dfe;art\n".encode("cp1252") + b"".join(
        f"{n},5;\u00e4{n % 2}\n".encode("cp1252") for n in range(20)
    ))  # fmt: skip
    data = open_data(str(tmp_path / "a.csv"), holdout=0)
    assert data.fields.numeric == ("gr\u00f6\u00dfe",)
    assert data.fields.mean == (10.0,)
    assert data.fields.levels == (("\u00e40", "\u00e41"),)


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("", {}, "is empty"),
        ("a,b\n", {}, "has no rows"),
        ("a,b\n" + "1,2\n" * 9, {}, "no column is left to learn from: the column 'a' is 1 in every row"),
        ("a,b\n1,2\n3,4,5\n", {}, "has 3 fields instead of 2"),
        ("a,b\n1,2\n3,4\n", {"label": "c"}, "no column 'c'; its columns are a, b"),
        ("a,b\n1,2\n3,4\n", {"drop": ("c",)}, "no column 'c'"),
        ("a,b\n1.5,2\n3.5,4\n", {"label": "a"}, "labels are classes"),
        ("a,b\n" + "".join(f"{n},{n}.5\n" for n in range(50)), {"label": "a"}, "50 different values in 50 rows"),
        ("a,b\n1,2\n3,4\n", {"text": "c"}, "no column 'c'"),
        ("a,b\n1,2\n3,4\n", {"modality": "text"}, "no column of text"),
        ("a,b\n1,2\n3,4\n5,6\n", {"modality": "image"}, "holds tables, not images"),
        ("a,b\n1,2\n3,4\n", {"holdout": 2}, "leaves none to train on"),
        ("a,b\n1,2\n3,4\n", {"holdout": -1}, "must be a fraction"),
        ("a,b\n1,2\n3,4\n", {"holdout": 1.0}, "must be a fraction"),
        ("a,b\n1,2\n3,4\n", {"limit": 0}, "limit=0"),
        ("a,b\n1,2\n3,4\n", {"in_memory": 1}, "write it as Parquet"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, content, options, said):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError, match=said):
        open_data(str(tmp_path / "a.csv"), **options)


def test_labels_of_one_class_and_of_none(tmp_path):
    one = open_data(str(csv(tmp_path / "a.csv", "a,label", [f"{n},x" for n in range(20)])))
    assert (one.classes, list(kinds(one))) == (None, ["one_class"])
    assert one.fields.numeric + one.fields.categorical == ("a",)
    target = open_data(str(csv(tmp_path / "b.csv", "a,y", [f"{n},{n * n}" for n in range(40)])))
    assert (target.classes, kinds(target), target.fields.numeric) == (None, {"no_classes": ["y"]}, ("a", "y"))
    some = open_data(
        str(csv(tmp_path / "c.csv", "a,label", [f"{n},{'' if n % 3 else n % 2}" for n in range(30)])), holdout=0
    )
    assert some.train.__getitems__([0, 1, 3])["label"].tolist() == [0, -1, 1]


def test_tables_of_other_formats(tmp_path):
    table = pa.table(
        {
            "x": [0.5, None, float("inf"), 2.0] * 10,
            "kind": pa.array(["u", None, "v", "w"] * 10).dictionary_encode(),
            "flag": [True, False] * 20,
            "time": pa.array(range(40), pa.timestamp("s")),
            "list": [[1]] * 40,
        }
    )
    pq.write_table(table.slice(0, 20), tmp_path / "a.parquet")
    pq.write_table(table.slice(20), tmp_path / "b.parquet")
    with pa.OSFile(str(tmp_path / "c.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    found = [open_data(str(tmp_path / name), holdout=0) for name in ("*.parquet", "c.arrow")]
    for data in found:
        assert data.fields.numeric == ("x", "time")
        assert data.fields.categorical == ("kind", "flag")
        assert data.fields.cardinalities == (4, 3)
        assert kinds(data) == {"unknown_kind": ["list"]}
        assert data.train.__getitems__([1, 2])["missing"].tolist() == [
            [True, False, True, False],
            [True, False, False, False],
        ]
    batches = [data.train.__getitems__(list(range(40))) for data in found]
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])
    with pytest.raises(ValueError, match="several kinds"):
        open_data(str(tmp_path))


def test_a_column_of_texts(tmp_path):
    lines = [json.dumps({"body": f"a sentence that says {n} in so many words", "label": n % 2}) for n in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = open_data(str(tmp_path / "a.jsonl"), holdout=0)
    assert (data.modality, data.classes, data.show(3)) == ("text", 2, "a sentence that says 3 in so many words")
    table = pa.table({"word": ["a", "b"] * 20, "notes": ["many words " * 10] * 39 + [None]})
    pq.write_table(table, tmp_path / "b.parquet")
    assert open_data(str(tmp_path / "b.parquet")).modality == "text"
    assert open_data(str(tmp_path / "b.parquet"), modality="table").fields.categorical == ("word",)
    (tmp_path / "c.jsonl").write_text("{no")
    with pytest.raises(ValueError, match="cannot be read as jsonl"):
        open_data(str(tmp_path / "c.jsonl"))


def test_a_tokenizer_from_disk(tmp_path, folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"<s>": 0, "<pad>": 1, "<unk>": 2, "the": 3, "cats": 4}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "made").mkdir()
    made.save(str(tmp_path / "made" / "tokenizer.json"))
    data = open_data(str(folder), holdout=0, tokenizer=str(tmp_path / "made"), length=5)
    assert (data.fields.padding, data.fields.unknown, data.fields.mask, data.fields.vocabulary) == (1, 2, 5, 6)
    assert data.train.__getitems__([0])["tokens"].tolist() == [[3, 4, 2, 2, 1]]
    with pytest.raises(ValueError, match="there is no"):
        open_data(str(folder), tokenizer=str(tmp_path / "other"))
    (tmp_path / "made" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read as a tokenizer"):
        open_data(str(folder), tokenizer=str(tmp_path / "made"))


def test_names_that_are_not_there(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(ValueError, match=r"did you mean .*flowers"):
        open_data(str(tmp_path / "flower"))
    with pytest.raises(ValueError, match="holds no images"):
        open_data(str(tmp_path / "flowers"))
    with pytest.raises(ValueError, match="no file is named like"):
        open_data(str(tmp_path / "*.csv"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        open_data(str(tmp_path / "bad.parquet"))


def test_pictures_of_8_and_16_bits(tmp_path, png):
    for name in ("a", "b"):
        (tmp_path / "grey" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((8, 8), 1000 * number, dtype=np.uint16)
            Image.fromarray(pixels).save(tmp_path / "grey" / name / f"{number}.png")
    data = open_data(str(tmp_path / "grey"), holdout=0)
    assert (data.class_names, data.fields.shape, data.fields.largest) == (("a", "b"), (1, 8, 8), 8191 * 2 + 1)
    batch = data.train.__getitems__([0, 5, 6])
    assert batch["image"].dtype == torch.int32
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 5000, 0]
    assert prepare(batch, data.fields)["image"][1].max() == pytest.approx(5000 / 16383)
    (tmp_path / "colour").mkdir()
    for number in range(5):
        (tmp_path / "colour" / f"{number}.png").write_bytes(png(number))
        (tmp_path / "colour" / f"{number}.txt").write_text("its caption")
    assert open_data(str(tmp_path / "colour")).fields.shape == (3, 8, 8)
    assert open_data(str(tmp_path / "colour"), modality="text").modality == "text"
    first = np.asarray(Image.open(io.BytesIO(png(0))))
    read = open_data(str(tmp_path / "colour"), holdout=0).train.__getitems__([0])["image"][0]
    np.testing.assert_array_equal(read.permute(1, 2, 0), first)
