import dataclasses
import errno
import importlib.util
import io
import json
import pickle
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lsdr.data.decode import decode
from lsdr.stable_diffusion import cache as cache_module
from lsdr.stable_diffusion import encoded as encoded_module
from lsdr.stable_diffusion.cache import module_digest, part_key, part_path, read_part, tokenizer_digest, write_part
from lsdr.stable_diffusion.encoded import encode_dataset, sizes_for
from lsdr.stable_diffusion.latents import encode_pixels
from lsdr.stable_diffusion.pipeline import load_pipeline
from lsdr.stable_diffusion.text import encode_captions

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

SIZES = ((96, 96), (96, 64), (64, 96), (128, 96))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")

    class Folders(dict):
        def __missing__(self, family):
            self[family] = tiny.make(root / family, family)
            return self[family]

    return Folders()


@pytest.fixture(scope="module")
def sd(folders):
    return load_pipeline(folders["sd"])


@pytest.fixture
def photos(tmp_path):
    return tiny.photos(tmp_path / "photos", count=6, sizes=SIZES)


@pytest.fixture
def encode(sd, photos, tmp_path):
    def run(source=photos, pipeline=sd, **options):
        options = {"resolution": 64, "buckets": True, "cache": tmp_path / "cache"} | options
        return encode_dataset(pipeline, source, **options)

    return run


@pytest.fixture
def calls(monkeypatch):
    """What was really encoded: shapes of pixels and captions."""
    made = {"pixels": [], "captions": []}

    def pixels(vae, given):
        made["pixels"].append(tuple(given.shape[2:]))
        return encode_pixels(vae, given)

    def captions(pipeline, given):
        made["captions"].extend(given)
        return encode_captions(pipeline, given)

    monkeypatch.setattr(encoded_module, "encode_pixels", pixels)
    monkeypatch.setattr(encoded_module, "encode_captions", captions)
    return made


def counts(dataset):
    return {each["kind"]: each["count"] for each in dataset.problem_summary()}


def pixels_of(file, size):
    """The image as it is to be encoded, by other means: scaled to cover, then the centre cut by whole pixels."""
    image = Image.open(file).convert("RGB")
    scale = max(size[0] / image.height, size[1] / image.width)
    scaled = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (scaled.width - size[1]) // 2, (scaled.height - size[0]) // 2
    cut = scaled.crop((left, top, left + size[1], top + size[0]))
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1)[None] / 127.5 - 1


def test_examples_are_what_the_parts_of_the_pipeline_give(encode, sd, photos):
    dataset = encode()
    assert len(dataset) == 6
    expected = [(64, 64), (80, 48), (48, 80), (80, 48), (64, 64), (80, 48)]
    for index, size in enumerate(expected):
        assert dataset.name(index) == f"{index:03d}.png"
        caption = (photos / f"{index:03d}.txt").read_text().strip()
        assert dataset.caption(index) == caption
        batch = dataset.__getitems__([index])
        mean, std = encode_pixels(sd.vae, pixels_of(photos / dataset.name(index), size))
        # The cut is to a fraction of a pixel here and to whole pixels there.
        assert batch["mean"].shape == mean.shape == (1, 4, size[0] // 8, size[1] // 8)
        if index in (0, 4):
            assert torch.allclose(batch["mean"], mean, atol=1e-4)
            assert torch.allclose(batch["std"], std, atol=1e-5)
        else:
            assert (batch["mean"] - mean).square().mean() < 0.1 * mean.square().mean()
        text = encode_captions(sd, [caption])["encoder_hidden_states"]
        assert torch.equal(batch["encoder_hidden_states"], text)
    assert counts(dataset) == {}
    assert dataset.problems == []
    assert (dataset.latent_channels, dataset.largest) == (4, 4 * 8 * 8)
    assert torch.equal(dataset.empty["encoder_hidden_states"], encode_captions(sd, [""])["encoder_hidden_states"])


def test_batches(encode):
    dataset = encode()
    assert dataset.groups == [[0, 4], [2], [1, 3, 5]]
    batch = dataset.__getitems__(torch.tensor([5, 1]))
    assert set(batch) == {"index", "mean", "std", "encoder_hidden_states", "prior"}
    assert batch["index"].tolist() == [5, 1]
    assert batch["index"].dtype == torch.int64
    assert batch["prior"].tolist() == [False, False]
    assert batch["mean"].shape == batch["std"].shape == (2, 4, 10, 6)
    assert batch["mean"].dtype == batch["encoder_hidden_states"].dtype == torch.float32
    assert not batch["mean"].requires_grad
    for key in batch:
        assert torch.equal(batch[key][1], dataset[1][key])
    with pytest.raises(ValueError, match="expected a batch of latents of one shape"):
        dataset.__getitems__([0, 1])
    with pytest.raises(IndexError, match="index 6 is not in a data set of 6"):
        dataset.__getitems__([6])
    with pytest.raises(IndexError):
        dataset.__getitems__([-1])
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3]["mean"], dataset[3]["mean"])


def test_without_buckets_all_are_squares(encode):
    dataset = encode(buckets=False)
    assert dataset.groups == [list(range(6))]
    assert dataset.__getitems__(range(6))["mean"].shape == (6, 4, 8, 8)


def test_a_batch_does_not_share_memory_with_what_is_kept(encode):
    dataset = encode()
    before = dataset[0]["mean"].clone()
    dataset.__getitems__([0])["mean"].zero_()
    dataset[0]["mean"].zero_()
    assert torch.equal(dataset[0]["mean"], before)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family(folders, family, encode):
    pipeline = load_pipeline(folders[family])
    dataset = encode(pipeline=pipeline)
    batch = dataset.__getitems__([1, 3])
    embeddings = {"sd": set(), "sd2": set(), "sdxl": {"text_embeds", "time_ids"}}.get(family, {"pooled_projections"})
    assert set(batch) == {"index", "mean", "std", "prior", "encoder_hidden_states"} | embeddings
    assert batch["mean"].shape == (2, 16 if family in ("sd3", "flux") else 4, 10, 6)
    for name, value in encode_captions(pipeline, [dataset.caption(1), dataset.caption(3)]).items():
        assert torch.allclose(batch[name], value, atol=1e-5)
        assert dataset.empty[name].shape == (1, *value.shape[1:])
    assert set(dataset.empty) == set(encode_captions(pipeline, ["x"]))
    if family == "sdxl":
        # Scaled to 80 x 53.3 and to 80 x 60.
        assert batch["time_ids"].tolist() == [[96, 64, 0, 2, 80, 48], [128, 96, 0, 6, 80, 48]]
    # What the tiny VAEs are calibrated for: the scale and the shift are applied.
    mean = torch.cat([dataset[index]["mean"].flatten() for index in range(6)])
    assert 0.5 < mean.std() < 2
    assert abs(mean.mean()) < 0.5


@pytest.mark.parametrize("forced", [True, False, None])
def test_the_empty_caption_of_sdxl_is_what_its_guidance_uses(folders, encode, tmp_path, forced):
    folder = shutil.copytree(folders["sdxl"], tmp_path / "sdxl")
    index = json.loads((folder / "model_index.json").read_text())
    index.pop("force_zeros_for_empty_prompt", None)
    if forced is not None:
        index["force_zeros_for_empty_prompt"] = forced
    (folder / "model_index.json").write_text(json.dumps(index))
    pipeline = load_pipeline(folder)
    empty = encode(pipeline=pipeline).empty
    wanted = encode_captions(pipeline, [""])
    for name, value in empty.items():
        assert torch.equal(value, torch.zeros_like(value) if forced is not False else wanted[name])


def test_mirrored_images_are_examples_of_their_own(encode, sd, photos, calls):
    dataset = encode(flip=True)
    assert len(dataset) == 12
    assert len(calls["pixels"]) == 12
    assert len(calls["captions"]) == 7  # each caption once, and the empty one
    assert [dataset.name(index) for index in (0, 1, 2)] == ["000.png", "000.png (mirrored)", "001.png"]
    plain, mirrored = dataset[0]["mean"], dataset[1]["mean"]
    mean, _ = encode_pixels(sd.vae, pixels_of(photos / "000.png", (64, 64)).flip(3))
    assert torch.allclose(mirrored, mean[0], atol=1e-4)
    assert not torch.allclose(plain, mirrored, atol=1e-2)
    assert torch.equal(encode()[0]["mean"], plain)


def test_repeats_and_prior(encode, tmp_path):
    prior = tiny.photos(tmp_path / "prior", count=2, sizes=((96, 96),), seed=9)
    dataset = encode(repeats=3, prior=prior)
    assert len(dataset) == 3 * 6 + 2
    batch = dataset.__getitems__(dataset.groups[0])
    assert batch["prior"].sum() == 2
    assert sorted(dataset.name(index) for index in range(20)) == sorted(
        [f"{i:03d}.png" for i in range(6)] * 3 + ["000.png", "001.png"]
    )
    assert sorted(index for group in dataset.groups for index in group) == list(range(20))
    with pytest.raises(ValueError, match="repeats=0"):
        encode(repeats=0)


def test_nothing_is_encoded_twice(encode, calls):
    first = encode()
    assert (len(calls["pixels"]), len(calls["captions"])) == (6, 7)
    again = encode(progress=reversed)
    assert (len(calls["pixels"]), len(calls["captions"])) == (6, 7)
    assert torch.equal(again[5]["mean"], first[0]["mean"])


def test_what_changed_is_encoded_again_and_nothing_else(encode, calls, photos, folders, tmp_path):
    encode()

    def made():
        found = len(calls["pixels"]), len(calls["captions"])
        calls["pixels"].clear()
        calls["captions"].clear()
        return found

    made()
    (photos / "002.txt").write_text("another caption")
    assert encode().caption(2) == "another caption"
    assert made() == (0, 1)
    picture = np.asarray(Image.open(photos / "003.png")).copy()
    picture[5, 5] ^= 1
    Image.fromarray(picture).save(photos / "003.png")
    encode()
    assert made() == (1, 0)
    encode(buckets=False)
    assert made() == (6, 0)  # the squares too: another list of sizes
    encode(resolution=80)
    assert made()[1] == 0
    (photos / "003.png").rename(photos / "009.png")
    (photos / "003.txt").rename(photos / "009.txt")
    assert encode().name(5) == "009.png"
    assert made() == (0, 0)

    pipeline = load_pipeline(folders["sd"])
    with torch.no_grad():
        pipeline.vae.encoder.conv_in.weight[0, 0, 0, 0] += 1e-3
    encode(pipeline=pipeline)
    assert made() == (6, 0)
    pipeline = load_pipeline(folders["sd"])
    pipeline.vae.register_to_config(scaling_factor=0.2)
    scaled = encode(pipeline=pipeline)
    assert made() == (6, 0)
    assert torch.allclose(scaled[0]["mean"], encode()[0]["mean"] * (0.2 / 0.18215), atol=1e-5)
    assert made() == (0, 0)
    pipeline = load_pipeline(folders["sd"])
    with torch.no_grad():
        next(pipeline.text_encoders[0].parameters())[0, 0] += 1e-3
    encode(pipeline=pipeline)
    assert made() == (0, 7)
    encode(pipeline=load_pipeline(folders["sd"]))
    assert made() == (0, 0)


def test_tokenizers_and_configurations_are_part_of_the_key(folders):
    pipeline = load_pipeline(folders["sd"])
    tokenizer, encoder = pipeline.tokenizers[0], pipeline.text_encoders[0]
    before = tokenizer_digest(tokenizer), module_digest(encoder)
    tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=3)  # which the tokenizer remembers
    assert (tokenizer_digest(tokenizer), module_digest(encoder)) == before
    tokenizer.pad_token = "!"
    assert tokenizer_digest(tokenizer) != before[0]
    encoder.config.hidden_act = "gelu"
    assert module_digest(encoder) != before[1]
    assert tokenizer_digest(None) == tokenizer_digest(None)
    assert module_digest(None) != module_digest(torch.nn.Identity())


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "swap", "header", "folder"])
def test_damaged_cache_files_are_made_again(encode, calls, tmp_path, damage):
    first = encode()
    wanted = [{key: value.clone() for key, value in first[index].items()} for index in range(6)]
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == 13
    for file, other in zip(files, files[1:] + files[:1], strict=True):
        raw = bytearray(file.read_bytes())
        if damage == "cut":
            raw = raw[: len(raw) // 2]
        elif damage == "flip":
            raw[-5] ^= 4
        elif damage == "empty":
            raw = b""
        elif damage == "header":
            raw[:8] = (2**60).to_bytes(8, "little")
        elif damage == "swap":
            raw = other.read_bytes() if file is not files[-1] else raw
        file.unlink()
        if damage == "folder":
            file.mkdir()
        else:
            file.write_bytes(raw)
    calls["pixels"].clear()
    calls["captions"].clear()
    if damage == "folder":
        with pytest.raises(OSError, match="directory"):
            encode()
        return
    again = encode()
    assert len(calls["pixels"]) + len(calls["captions"]) == (12 if damage == "swap" else 13)
    for index in range(6):
        assert all(torch.equal(again[index][key], value) for key, value in wanted[index].items())


def test_a_file_that_is_damaged_later_is_noticed(encode, tmp_path):
    dataset = encode()
    for file in (tmp_path / "cache").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="is gone or was damaged after it was checked; start again"):
        dataset[0]


def test_it_goes_on_after_a_kill(encode, calls, monkeypatch, tmp_path):
    class KilledError(BaseException):
        pass

    def stopping(numbers):
        for number in numbers:
            if number == 4:
                raise KilledError
            yield number

    with pytest.raises(KilledError):
        encode(progress=stopping)
    assert (len(calls["pixels"]), len(calls["captions"])) == (4, 4)
    # Killed between the writing of a file and its naming.
    (tmp_path / "cache/00").mkdir(exist_ok=True)
    (tmp_path / "cache/00/.x.safetensors.tmp").write_bytes(b"half")
    dataset = encode()
    assert (len(calls["pixels"]), len(calls["captions"])) == (6, 7)
    monkeypatch.undo()
    fresh = encode(cache=tmp_path / "other")
    assert all(torch.equal(dataset[index]["mean"], fresh[index]["mean"]) for index in range(6))


def test_a_full_disk(encode, monkeypatch, tmp_path):
    written = []

    def write(path, raw):
        written.append(path)
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, raw)

    original = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(
        OSError, match=r"the disk of the cache is full: .* free space or choose another folder"
    ) as caught:
        encode()
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "cache") in str(caught.value)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_bad_images_and_captions_are_counted_or_refused(encode, photos, calls):
    (photos / "000.png").write_bytes(b"no image")
    (photos / "001.txt").write_text(" \n")
    dataset = encode()
    assert counts(dataset) == {"not_an_image": 1, "empty_caption": 1}
    assert [each.name for each in dataset.problems] == ["000.png", "001.png"]
    assert [dataset.name(index) for index in range(len(dataset))] == [f"{number:03d}.png" for number in range(2, 6)]
    (photos / "001.txt").unlink()
    assert counts(encode()) == {"not_an_image": 1, "no_caption": 1}
    calls["pixels"].clear()
    with pytest.raises(ValueError, match=r'1 not_an_image: 000.png; 1 no_caption: 001.png.*on_bad="skip"'):
        encode(on_bad="refuse", flip=True)
    assert calls["pixels"] == []


def test_good_data_is_not_refused(encode, photos):
    (photos / "notes.md").write_text("beside the images")
    dataset = encode(on_bad="refuse")
    assert len(dataset) == 6
    assert counts(dataset) == {"ignored": 1}


def test_small_and_truncated_images(encode, photos):
    tiny.photos(photos, count=1, sizes=((40, 100),))
    whole = (photos / "001.png").read_bytes()
    (photos / "001.png").write_bytes(whole[: len(whole) // 2])
    dataset = encode()
    assert counts(dataset) == {"too_small": 1, "damaged": 1}
    assert "choose a lower resolution" in dataset.problems[0].message


def test_data_without_captions_is_refused(encode, tmp_path):
    bare = tiny.photos(tmp_path / "bare", count=3, captions=None)
    with pytest.raises(ValueError, match=r"only 0 of the 3 images .*3 no_caption.*a \.txt beside it"):
        encode(bare)
    with pytest.raises(ValueError, match=r"only 0 of the 3 images of .*bare"):
        encode(prior=bare)


def test_long_captions_are_counted_and_used(encode, photos):
    (photos / "004.txt").write_text("flower " * 100)
    dataset = encode()
    assert len(dataset) == 6
    assert counts(dataset) == {"long_caption": 1}
    assert dataset.problems[0].message == "the last 25 tokens of its caption are cut off"  # 102 with both marks, of 77
    assert counts(encode(on_bad="refuse")) == {"long_caption": 1}


def test_photographs_are_turned_upright(encode, sd, tmp_path, photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(2):
        source = Image.open(photos / "001.png")
        (photos / f"00{number + 2}.png").unlink()
        buffer = io.BytesIO()
        source.save(buffer, "JPEG", exif=exif if number else b"", quality=95)
        (photos / f"00{number + 2}.jpg").write_bytes(buffer.getvalue())
    dataset = encode()
    shapes = [tuple(dataset[index]["mean"].shape) for index in (2, 3)]
    assert shapes == [(4, 10, 6), (4, 6, 10)]
    upright = decode((photos / "003.jpg").read_bytes())
    assert upright.size == (96, 64)


def test_names_captions_and_bytes_of_any_kind(encode, photos, calls):
    (photos / "000.txt").write_text(unicodedata.normalize("NFD", "ein Café \U0001f600 ‮"))
    shutil.copy(photos / "001.png", photos / "zweimal.png")
    shutil.copy(photos / "001.txt", photos / "zweimal.txt")
    dataset = encode()
    assert len(dataset) == 7
    assert (len(calls["pixels"]), len(calls["captions"])) == (6, 7)
    assert torch.equal(dataset[6]["mean"], dataset[1]["mean"])


@pytest.mark.parametrize("part", ["vae", "text"])
def test_nan_is_not_cached(folders, encode, part, tmp_path):
    pipeline = load_pipeline(folders["sd"])
    model = pipeline.vae if part == "vae" else pipeline.text_encoders[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"gives? NaN or infinity for"):
        encode(pipeline=pipeline)
    for file in (tmp_path / "cache").rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in read_part(tmp_path / "cache", file.stem)[0].values())


def test_encoding_is_invisible(encode, sd):
    state = torch.random.get_rng_state()
    training = [module.training for module in (*sd.vae.modules(), *sd.text_encoders[0].modules())]
    digests = module_digest(sd.vae), module_digest(sd.text_encoders[0])
    encode()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in (*sd.vae.modules(), *sd.text_encoders[0].modules())] == training
    assert (module_digest(sd.vae), module_digest(sd.text_encoders[0])) == digests


def test_split(encode, photos, tmp_path):
    shutil.copy(photos / "001.png", photos / "twin.png")
    shutil.copy(photos / "001.txt", photos / "twin.txt")
    prior = tiny.photos(tmp_path / "prior", count=2, seed=9)
    dataset = encode(repeats=2, flip=True, prior=prior)
    assert dataset.split(0, 0) == (dataset, None)
    chosen = set()
    for seed in range(6):
        train, heldout = dataset.split(2, seed)
        names = [heldout.name(index) for index in range(len(heldout))]
        assert len(names) == len(set(names)) == 2
        assert not any("mirrored" in name for name in names)
        again = dataset.split(2, seed)[1]
        assert names == [again.name(index) for index in range(2)]
        chosen |= set(names)
        kept = [
            train.name(index).removesuffix(" (mirrored)") for index in range(len(train)) if not train[index]["prior"]
        ]
        # Two files with the same bytes are one picture.
        twins = {"001.png", "twin.png"}
        gone = set(names) | (twins if twins & set(names) else set())
        assert set(kept) == ({f"{number:03d}.png" for number in range(6)} | {"twin.png"}) - gone
        assert len(kept) == 4 * (7 - len(gone))
        assert sum(bool(train[index]["prior"]) for index in range(len(train))) == 4
        assert not any(bool(heldout[index]["prior"]) for index in range(2))
        assert train.largest == heldout.largest == dataset.largest
        for part in (train, heldout):
            assert sorted(index for group in part.groups for index in group) == list(range(len(part)))
            assert all(len({part[index]["mean"].shape for index in group}) == 1 for group in part.groups)
            assert part.empty.keys() == dataset.empty.keys()
    assert len(chosen) > 3
    with pytest.raises(ValueError, match="leaves none to train on"):
        dataset.split(6, 0)


def test_sizes(sd, folders):
    assert sizes_for(sd, 64, True) == [(48, 80), (64, 64), (80, 48)]
    assert sizes_for(sd, 64, False) == [(64, 64)]
    assert len(sizes_for(sd, 512, True)) == 5
    with pytest.raises(ValueError, match="takes multiples of 16 pixels; choose resolution=64"):
        sizes_for(sd, 70, False)
    with pytest.raises(ValueError, match="choose resolution=16"):
        sizes_for(sd, 8, True)
    deep = dataclasses.replace(sd, network=tiny._unet("sd", True, {}))
    assert sizes_for(deep, 256, True) == [(192, 320), (256, 256), (320, 192)]
    assert sizes_for(deep, 1024, True) == sizes_for(sd, 1024, True)


def test_keys_do_not_run_together(monkeypatch):
    assert len({part_key("ab", "c"), part_key("a", "bc"), part_key("abc"), part_key("abc", ""), part_key()}) == 5
    before = part_key("a")
    assert part_key(b"a") == before
    monkeypatch.setattr(cache_module, "_FORMAT", "another")
    assert part_key("a") != before


def test_parts_keep_types_and_notes(tmp_path):
    tensors = {
        "a": torch.randn(2, 3).bfloat16(),
        "b": torch.tensor(3.5),
        "c": torch.zeros(0, 4),
        "d": torch.eye(3).T[:, 1:],
    }
    write_part(tmp_path, part_key("x"), tensors, {"caption": "ü", "sizes": [1, 2]})
    found, notes = read_part(tmp_path, part_key("x"))
    assert notes == {"caption": "ü", "sizes": [1, 2]}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert read_part(tmp_path, part_key("y")) is None
    part_path(tmp_path, part_key("y")).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(part_path(tmp_path, part_key("x")), part_path(tmp_path, part_key("y")))
    assert read_part(tmp_path, part_key("y")) is None
