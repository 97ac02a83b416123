import json
import random
import struct
import sys
import threading

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file


def write(path, header, data=b"", *, length=None):
    """A file with this header, an object or the bytes themselves, and a length that may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(shape=(2, 2), begin=0, end=16, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


ALL_DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


def _bytes(value):
    return value.contiguous().flatten().view(torch.uint8)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_every_type_is_read_as_safetensors_reads_it(open_checkpoint, tmp_path, dtype):
    # Large enough for a mapping and small enough for a copy.
    stored = {name: torch.randint(0, 2, shape).to(dtype) for name, shape in (("big", (1200, 1100)), ("small", (3, 5)))}
    save_file(stored, tmp_path / "a.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        for name, value in stored.items():
            entry = checkpoint.entries[name]
            assert (entry.shape, entry.dtype) == (tuple(value.shape), dtype)
            assert entry.nbytes == value.numel() * value.itemsize
            loaded = checkpoint.load(name)
            assert loaded.dtype == dtype
            assert torch.equal(_bytes(loaded), _bytes(value))
            assert torch.equal(_bytes(checkpoint.rows(name, 1, 3)), _bytes(value[1:3]))


def test_values_metadata_files_and_order(open_checkpoint, tmp_path):
    generator = torch.Generator().manual_seed(0)
    stored = {f"layers.{i}.weight": torch.randn(4, i + 1, generator=generator) for i in range(12)}
    file = tmp_path / "model.safetensors"
    save_file(stored, file, metadata={"format": "pt", "who": "test"})
    checkpoint = open_checkpoint(str(file))
    assert checkpoint.format == "safetensors"
    assert checkpoint.metadata == {"format": "pt", "who": "test"}
    assert checkpoint.files == [file]
    assert checkpoint.notes == []
    assert {entry.file for entry in checkpoint.entries.values()} == {file}
    with safe_open(file, "pt") as theirs:
        assert set(checkpoint.entries) == set(theirs.keys())
        for name in checkpoint.entries:
            assert torch.equal(checkpoint.load(name), theirs.get_tensor(name))
    assert all(name == entry.name for name, entry in checkpoint.entries.items())


def test_entries_are_in_the_order_of_their_bytes(open_checkpoint, tmp_path):
    header = {"b": tensor((1,), 8, 12), "a": tensor((1,), 4, 8), "c": tensor((1,), 0, 4)}
    file = write(tmp_path / "a.safetensors", header, struct.pack("<3f", 1, 2, 3))
    checkpoint = open_checkpoint(file)
    assert list(checkpoint.entries) == ["c", "a", "b"]
    assert [float(checkpoint.load(name)) for name in "cab"] == [1, 2, 3]


def test_zero_sizes_scalars_and_nothing(open_checkpoint, tmp_path):
    stored = {"empty": torch.zeros(0, 7), "scalar": torch.tensor(3.0), "flat": torch.arange(3)}
    save_file(stored, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.entries["empty"].shape == (0, 7)
    assert checkpoint.load("empty").shape == (0, 7)
    assert checkpoint.rows("empty", 0, 0).shape == (0, 7)
    assert checkpoint.load("scalar") == 3.0
    with pytest.raises(ValueError, match=r"shape \(\); its rows 0 to 1"):
        checkpoint.rows("scalar", 0, 1)
    with pytest.raises(ValueError, match="rows 2 to 4"):
        checkpoint.rows("flat", 2, 4)
    with pytest.raises(ValueError, match="no tensor 'other' in this checkpoint of 3"):
        checkpoint.load("other")
    save_file({}, tmp_path / "b.safetensors")
    nothing = open_checkpoint(tmp_path / "b.safetensors")
    assert nothing.entries == {}
    assert nothing.notes == ["there are no tensors in it"]


def test_a_header_of_odd_length_gives_aligned_tensors(open_checkpoint, tmp_path):
    data = torch.randn(1024, 300)
    text = b'{"a":{"dtype":"F32","shape":[1024,300],"data_offsets":[0,1228800]}}'
    text += b" " * (len(text) % 2 == 0)
    file = write(tmp_path / "a.safetensors", text, data.numpy().tobytes())
    loaded = open_checkpoint(file).load("a")
    assert torch.equal(loaded, data)
    assert loaded.data_ptr() % 4 == 0


def test_writing_to_a_tensor_leaves_the_file_alone(open_checkpoint, tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(600, 600)}, file)
    before = file.read_bytes()
    checkpoint = open_checkpoint(file)
    checkpoint.load("a").add_(1)
    assert file.read_bytes() == before
    assert checkpoint.load("a").sum() == 0


def test_tensors_outlive_the_checkpoint(open_checkpoint, tmp_path):
    save_file({"a": torch.ones(600, 600), "b": torch.ones(2)}, tmp_path / "a.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        big, small = checkpoint.load("a"), checkpoint.load("b")
    assert big.sum() + small.sum() == 360_002
    with pytest.raises(ValueError, match="the checkpoint is closed"):
        checkpoint.load("a")


def test_threads_may_read_at_once(open_checkpoint, tmp_path):
    stored = {str(i): torch.full((50, 50), float(i)) for i in range(200)}
    save_file(stored, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    wrong = []

    def read(names):
        wrong.extend(name for name in names if not bool((checkpoint.load(name) == float(name)).all()))

    threads = [threading.Thread(target=read, args=(list(stored),)) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads do come between each other's steps
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_ten_thousand_tensors(open_checkpoint, tmp_path):
    header = {f"blocks.{i}.bias": tensor((2,), 8 * i, 8 * i + 8) for i in range(10_000)}
    file = write(tmp_path / "a.safetensors", header, struct.pack("<20000f", *range(20_000)))
    with open_checkpoint(file) as checkpoint:
        assert len(checkpoint.entries) == 10_000
        assert checkpoint.load("blocks.9999.bias").tolist() == [19998.0, 19999.0]


def test_a_file_that_became_shorter_is_an_error_and_not_a_crash(open_checkpoint, tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(600, 600)}, file)
    checkpoint = open_checkpoint(file)
    with file.open("r+b") as raw:
        raw.truncate(1000)
    with pytest.raises(ValueError, match="became shorter while it was read"):
        checkpoint.load("a")


LIES = {
    "a length beyond the file": ({"header": {"a": tensor()}, "length": 10**9}, "header is 1,000,000,000 bytes long"),
    "a length of 2**63": ({"header": {"a": tensor()}, "length": 2**63}, "header is 9,223,372,036,854,775,808 bytes"),
    "no JSON": ({"header": b"{not json}"}, "not readable JSON"),
    "not UTF-8": ({"header": b'{"\xff\xfe": 1}'}, "not UTF-8"),
    "UTF-16": ({"header": '{"a": 1}'.encode("utf-16")}, "not UTF-8"),
    "a list": ({"header": b"[1, 2]"}, "a JSON list; expected an object"),
    "deep nesting": ({"header": b'{"a":' + b"[" * 100_000}, "nested too deeply"),
    "deep objects": ({"header": b'{"a":' * 100_000}, "nested too deeply"),
    "millions of values": ({"header": b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"}, "JSON values; up to"),
    "a huge number": ({"header": b'{"a":' + b"9" * 10_000 + b"}"}, "not readable JSON"),
    "NaN": ({"header": b'{"a": NaN}'}, "NaN is not JSON"),
    "a key twice": ({"header": b'{"a": 1, "b": 2, "a": 3}'}, "the key 'a' is there twice"),
    "a number for a tensor": ({"header": {"a": 5}}, "'a' is described by 5"),
    "no dtype": ({"header": {"a": {"shape": [1], "data_offsets": [0, 4]}}}, "expected dtype, shape"),
    "unknown dtype": ({"header": {"a": tensor(dtype="F31")}}, "unknown type 'F31'"),
    "a list as dtype": ({"header": {"a": tensor(dtype=["F32"])}}, "unknown type"),
    "four bits": ({"header": {"a": tensor(dtype="F4")}}, "packed 4- and 6-bit weights are not read"),
    "negative size": ({"header": {"a": tensor((-2, -2))}}, "expected a list of sizes"),
    "fractional size": ({"header": {"a": tensor((2.0, 2))}}, "expected a list of sizes"),
    "true as size": ({"header": {"a": tensor((True, 4))}}, "expected a list of sizes"),
    "a huge product": ({"header": {"a": tensor((2**62, 2**62))}}, "expected a list of sizes"),
    "a huge product with zero": ({"header": {"a": tensor((2**62, 2**62, 0), 0, 0)}}, "expected a list of sizes"),
    "a thousand axes": ({"header": {"a": tensor([1] * 1000, 0, 4)}}, "expected a list of sizes"),
    "a huge shape": ({"header": {"a": tensor((2**20, 2**20), 0, 16)}}, "needs 4,398,046,511,104 bytes"),
    "negative offsets": ({"header": {"a": tensor(begin=-16, end=0)}}, "offsets [-16, 0]"),
    "offsets backwards": ({"header": {"a": tensor(begin=16, end=0)}}, "offsets [16, 0]"),
    "three offsets": ({"header": {"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4, 8]}}}, "expected [begin"),
    "overlap": (
        {"header": {"a": tensor(), "b": tensor(begin=8, end=24)}, "data": bytes(24)},
        "'a' and 'b' share bytes",
    ),
    "the same bytes": ({"header": {"a": tensor(), "b": tensor()}, "data": bytes(16)}, "share bytes"),
    "too few bytes for the shape": ({"header": {"a": tensor(end=12)}, "data": bytes(16)}, "needs 16 bytes"),
    "too many bytes for the shape": ({"header": {"a": tensor(end=20)}, "data": bytes(20)}, "needs 16 bytes"),
    "truncated": ({"header": {"a": tensor()}, "data": bytes(9)}, "7 bytes are missing"),
    "no data": ({"header": {"a": tensor()}}, "16 bytes are missing"),
    "a name that is no text": ({"header": b'{"\\ud800": {"dtype":"F32","shape":[],"data_offsets":[0,4]}}'}, "no text"),
    "a name without end": ({"header": {"a" * 5000: tensor((), 0, 4)}, "data": bytes(4)}, "a name of 5,000 characters"),
    "metadata of numbers": ({"header": {"__metadata__": [1]}}, "__metadata__ is a JSON list"),
}


@pytest.mark.parametrize(("arguments", "message"), LIES.values(), ids=LIES)
def test_lies_are_refused(open_checkpoint, tmp_path, arguments, message):
    file = write(tmp_path / "a.safetensors", **arguments)
    with pytest.raises(ValueError, match=r"a\.safetensors") as caught:
        open_checkpoint(file)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_header_above_the_limit_is_not_read(open_checkpoint, tmp_path):
    file = tmp_path / "a.safetensors"
    with file.open("wb") as raw:
        raw.write((200_000_000).to_bytes(8, "little") + b"{")
        raw.truncate(300_000_000)
    with pytest.raises(ValueError, match="a header of 200,000,000 bytes; safetensors allows 100,000,000"):
        open_checkpoint(file)


@pytest.mark.parametrize("size", range(1, 8))
def test_shorter_than_a_length(open_checkpoint, tmp_path, size):
    (tmp_path / "a.safetensors").write_bytes(bytes(size))
    with pytest.raises(ValueError, match=f"has {size} bytes, less than the 8"):
        open_checkpoint(tmp_path / "a.safetensors")


def test_every_truncation_is_an_error(open_checkpoint, tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(3, 2), "b": torch.ones(2, dtype=torch.int64)}, file)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"download|missing"):
            open_checkpoint(file)


def test_damaged_bytes_give_an_error_or_a_checkpoint(open_checkpoint, tmp_path):
    """Whatever is in the header: a ValueError, or tensors that can be read."""
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(3, 2), "bb": torch.ones(2, dtype=torch.int64)}, file)
    whole = file.read_bytes()
    chance = random.Random(0)
    opened = 0
    for _ in range(600):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5))):
            damaged[chance.randrange(len(whole) - 40)] = chance.choice((chance.randrange(256), *b'0123456789[]{}",:'))
        file.write_bytes(damaged)
        try:
            checkpoint = open_checkpoint(file)
        except ValueError:
            continue
        opened += 1
        for name, entry in checkpoint.entries.items():
            assert checkpoint.load(name).shape == entry.shape
    assert 0 < opened < 400


def test_bytes_of_no_tensor_are_noted(open_checkpoint, tmp_path):
    file = write(tmp_path / "a.safetensors", {"a": tensor((1,), 4, 8), "b": tensor((1,), 8, 12)}, bytes(15))
    assert open_checkpoint(file).notes == ["7 bytes of a.safetensors belong to no tensor"]


def test_float8_with_scales_and_packed_weights(open_checkpoint, tmp_path):
    small = torch.ones(2, 2).to(torch.float8_e4m3fn)
    save_file({"a.weight": small, "a.weight_scale": torch.ones(1)}, tmp_path / "a.safetensors")
    assert (
        "1 float8 tensors have scales beside them (a.weight_scale"
        in open_checkpoint(tmp_path / "a.safetensors").notes[0]
    )
    packed = {"a.weight": torch.ones(2, 1, dtype=torch.uint8), "a.weight.quant_state.bitsandbytes__nf4": torch.ones(1)}
    save_file(packed, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="1 weights packed into a few bits by bitsandbytes"):
        open_checkpoint(tmp_path / "b.safetensors")
