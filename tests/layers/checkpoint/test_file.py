import gzip
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def _zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


def _npy():
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


WRONG = {
    "empty": (b"", "is empty; download or save it again"),
    "lfs": (LFS, "a Git LFS pointer, not the file: run git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page, the answer to a download that failed"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(64), "a GGUF file"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    "npy": (_npy(), "a NumPy array"),
    "gzip": (gzip.compress(b"hello"), "compressed with gzip"),
    "tar": (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt", ".bin"])
@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_checkpoint_is_named(open_checkpoint, tmp_path, content, message, suffix):
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.") as caught:
        open_checkpoint(file)
    assert message in str(caught.value)


def test_a_zip_is_named_by_what_is_in_it(open_checkpoint, tmp_path):
    (tmp_path / "a.pt").write_bytes(_zip())
    with pytest.raises(ValueError, match=r"zip archive that torch.save did not write; it holds readme.txt"):
        open_checkpoint(tmp_path / "a.pt")
    (tmp_path / "a.safetensors").write_bytes(_zip())
    with pytest.raises(ValueError, match="rename it to"):
        open_checkpoint(tmp_path / "a.safetensors")


def test_random_bytes_say_what_is_read(open_checkpoint, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\x01\x02random bytes and nothing more")
    with pytest.raises(ValueError, match="neither safetensors nor a file of torch"):
        open_checkpoint(tmp_path / "a.bin")


def test_content_counts_and_not_the_ending(open_checkpoint, tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.bin")
    assert open_checkpoint(tmp_path / "a.bin").format == "safetensors"
    torch.save({"a": torch.ones(2)}, tmp_path / "noending")
    assert open_checkpoint(tmp_path / "noending").format == "torch"


def test_nothing_there(open_checkpoint, tmp_path):
    with pytest.raises(ValueError, match="there is no file or folder"):
        open_checkpoint(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"a link to .*gone, which is not there"):
        open_checkpoint(tmp_path / "b.safetensors")


class Payload:
    """What an attacker would save."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def _as_pickle(value, file):
    file.write_bytes(pickle.dumps(value))


def _as_old_torch(value, file):
    torch.save(value, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [torch.save, _as_old_torch, _as_pickle], ids=["torch", "old torch", "pickle"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors"])
def test_a_payload_is_not_executed(open_checkpoint, tmp_path, write, nested, suffix):
    trace, file = tmp_path / "trace", tmp_path / f"model{suffix}"
    payload = Payload(trace)
    write({"weight": torch.ones(2), "more": [payload]} if nested else payload, file)
    with pytest.raises(ValueError, match=r"model\.") as caught:
        open_checkpoint(file)
    assert not trace.exists()
    if suffix != ".safetensors" and write is not _as_pickle:
        assert "holds Python code" in str(caught.value)
        assert "open) and not only tensors" in str(caught.value)
    if suffix != ".safetensors":
        assert "safetensors" in str(caught.value)


def test_the_payload_of_these_tests_would_fire(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "trace"))).close()
    assert (tmp_path / "trace").exists()


def test_a_payload_in_a_shard_or_a_component_is_not_executed(open_checkpoint, tmp_path):
    trace = tmp_path / "trace"
    (tmp_path / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DModel"]}')
    (tmp_path / "unet").mkdir()
    torch.save(Payload(trace), tmp_path / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="holds Python code"):
        open_checkpoint(tmp_path)
    torch.save(Payload(trace), tmp_path / "shard.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "shard.bin"}}')
    with pytest.raises(ValueError, match="holds Python code"):
        open_checkpoint(tmp_path / "pytorch_model.bin.index.json")
    assert not trace.exists()
