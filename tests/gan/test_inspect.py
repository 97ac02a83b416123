"""Planted generators, and what is said of them."""

import importlib.util
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file

from lsdr.data.grid import image_grid
from lsdr.gan import inspect as inspecting
from lsdr.gan.inspect import inspect_gan, inspect_generator
from lsdr.gan.inspect_modes import distinct, of_clusters
from lsdr.gan.inspect_samples import copies
from lsdr.gan.mixtures import MIXTURES
from lsdr.gan.run import run
from lsdr.gan.subject import InMemory
from lsdr.measures.feature_extractor import train_feature_extractor

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)

GRID = MIXTURES["grid"]
SOURCE = torch.Generator().manual_seed(0)
TRAIN, HELDOUT = GRID.sample(2000, SOURCE), GRID.sample(500, SOURCE)


def pick(z, examples):
    """One of some examples, by the first number of a latent."""
    return examples[(torch.special.ndtr(z[:, 0]) * len(examples)).long().clamp(max=len(examples) - 1)]


def perfect(z):
    """The grid's own distribution from three standard normal numbers."""
    return pick(z, GRID.means) + GRID.std * z[:, 1:3]


def points(generate, **options):
    return inspect_generator(generate, 3, TRAIN, HELDOUT, samples=1000, **{"mixture": GRID, **options})


def kinds(seen):
    return {each["kind"] for each in seen.found["findings"]}


def test_a_perfect_sampler_shows_no_sign():
    seen = points(perfect)
    assert seen.answer.startswith("No sign of mode collapse: 25 of 25 modes are captured")
    assert kinds(seen) == set()
    assert seen.found["modes"]["spread"] == pytest.approx(0.98, abs=0.05)
    assert len(seen.found["points"]["samples"]) == 1000
    assert seen.found["memorisation"]["nearest"][0]["train"].startswith("example ")


@pytest.mark.parametrize(
    ("generate", "kind", "answer"),
    [
        (lambda z: torch.zeros(len(z), 2), "one_image", "Yes, this is mode collapse: the generator returns one point"),
        (lambda z: pick(z, GRID.means[:3]) + GRID.std * z[:, 1:], "mode_collapse", "Yes, this is mode collapse: 3 of"),
        (lambda z: pick(z, GRID.means[:22]) + GRID.std * z[:, 1:], "missing_modes", "In part: 3 of 25 modes are"),
        (lambda z: pick(z, GRID.means) + 0.1 * GRID.std * z[:, 1:], "narrow_modes", "In part: samples within a mode"),
        (lambda z: pick(z, TRAIN), "memorises", "No sign of mode collapse: 25 of 25 modes are captured, and their"),
        (lambda z: torch.where(z[:, :1] > 0, torch.nan, 0) * z[:, 1:], "not_finite", "Yes, this is mode collapse"),
        (lambda z: torch.nan * z[:, 1:], "not_finite", "There is nothing to judge: 1000 of 1000 samples hold NaN"),
        (lambda z: 100 + z[:, 1:], "off_modes", "There is nothing to judge: none of the samples lies at"),
    ],
)
def test_what_is_planted_is_found(generate, kind, answer):
    seen = points(generate)
    assert seen.answer.startswith(answer)
    assert kind in kinds(seen)


def test_a_discriminator_that_knows_its_examples_is_found():
    def knows(x):
        return 3 * torch.exp(-1e6 * torch.cdist(x, TRAIN, compute_mode="donot_use_mm_for_euclid_dist").min(1).values)

    assert "discriminator_overfits" in kinds(points(perfect, discriminate=knows))
    fair = points(perfect, discriminate=lambda x: -x.square().sum(1))
    assert "discriminator_overfits" not in kinds(fair)
    broken = points(perfect, discriminate=lambda x: torch.nan * x.sum(1))
    assert "not_finite" in kinds(broken)


def test_everything_is_decided_by_the_seed_and_nothing_else_moves():
    state = torch.get_rng_state()
    first, again, other = (points(perfect, mixture=None, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert first.found == again.found
    assert first.found["modes"]["counts"] != other.found["modes"]["counts"]
    assert first.found["modes"]["kind"] == "cluster"
    assert first.answer.startswith("No sign")


@pytest.fixture(scope="module")
def images():
    """Soft bumps at random places: 400 to train on, 200 kept aside, 200 that nobody else has."""
    source = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    centres = 7 * torch.rand((800, 2, 1, 1), generator=source)
    bumps = 2 * torch.exp(-((y - centres[:, :1]) ** 2 + (x - centres[:, 1:]) ** 2) / 4) - 1
    return bumps[:400], bumps[400:600], bumps[600:]


def pictures(generate, images, **options):
    seen = inspect_generator(generate, 3, images[0], images[1], features=lambda x: x.flatten(1), samples=200, **options)
    assert set(seen.pictures) <= {"samples", "data", "nearest", "interpolation"}
    return seen


def test_images_are_compared_with_real_ones_kept_aside(images):
    fresh = pictures(lambda z: (pick(z, images[2]) + 0.02 * z[:, 1].view(-1, 1, 1, 1)).clamp(-1, 1), images)
    assert fresh.answer.startswith("No sign of mode collapse")
    assert kinds(fresh) <= {"uneven_modes"}
    assert fresh.found["fidelity"]["reference"]["precision"] > 0.9
    assert fresh.pictures["samples"].size == fresh.pictures["data"].size
    assert fresh.pictures["nearest"].size[0] == fresh.pictures["interpolation"].size[0]


@pytest.mark.parametrize(
    ("case", "kind", "answer"),
    [
        ("one", "one_image", "Yes, this is mode collapse: the generator returns one image: all 200 samples are alike."),
        ("five", "repeats", "Yes, this is mode collapse: of 200 samples only 5 differ."),
        ("memorises", "memorises", "No sign of mode collapse: 20 of 20 clusters are captured"),
        ("corner", "mode_collapse", "Yes, this is mode collapse: "),
        ("noise", "unrealistic", "There is nothing to judge: 0 % of the samples lie among the data"),
    ],
)
def test_planted_image_generators_are_found(case, kind, answer, images):
    train, _, fresh = images
    corner = fresh[(fresh[:, 0, :3, :3].mean((1, 2)) > -0.4)]
    generate = {
        "one": lambda z: train[:1].expand(len(z), -1, -1, -1),
        "five": lambda z: pick(z, train[:5]),
        "memorises": lambda z: pick(z, train),
        "corner": lambda z: pick(z, corner) + 0.05 * z[:, 1].view(-1, 1, 1, 1),
        "noise": lambda z: z[:, :1, None, None] * torch.linspace(-9, 9, 64).sin().view(1, 1, 8, 8) * 3,
    }[case]
    seen = pictures(generate, images)
    assert seen.answer.startswith(answer)
    assert kind in kinds(seen)


def test_a_copy_is_found_wherever_in_the_training_data_it_is(images):
    train, heldout, fresh = images
    many = torch.cat([fresh, train.repeat(8, 1, 1, 1) + torch.randn(3200, 1, 8, 8, generator=SOURCE), train[:4]])
    seen = copies(train[:4], heldout, InMemory(many), show=4)
    assert sorted(seen.position) == [len(many) - 4 + place for place in range(4)]
    assert seen.about["copies"] == 1.0
    assert seen.about["heldout_copies"] < 0.1
    assert max(seen.distance) == 0.0
    # Every example twice: none stands out, and yet these are copies.
    twice = copies(train[:4] + 1e-4, heldout, InMemory(torch.cat([train, train + 1e-3])), show=1)
    assert twice.about["copies"] == 1.0


def test_alike_samples_count_once(images):
    train = images[0]
    assert distinct(train[:7].repeat_interleave(10, 0), train) == (7, 70)
    assert distinct(train[:100], train)[0] > 90
    assert distinct(train[:1].repeat(50, 1, 1, 1), train) == (1, 50)


def test_clusters_of_the_datas_own_draws_are_even():
    found = of_clusters(TRAIN[:1000], TRAIN[1000:], HELDOUT)
    ideal = found["perfect"]["reverse_kl"]
    assert found["reverse_kl"] < ideal["mean"] + 4 * ideal["sd"]
    assert sum(found["counts"]) == 1000
    assert found["expected"] == sorted(found["expected"], reverse=True)


def test_a_folder_of_images_is_judged_by_its_data(images, tmp_path, monkeypatch):
    monkeypatch.setattr(inspecting, "train_feature_extractor", partial(train_feature_extractor, steps=5))
    for name, part in (("real", images[0][:60]), ("made", images[0][:1].expand(40, -1, -1, -1))):
        (tmp_path / name).mkdir()
        for place, image in enumerate(part):
            image_grid(image[None], least_side=8).save(tmp_path / name / f"{place:03d}.png")
    seen = inspect_gan(tmp_path / "made", data=str(tmp_path / "real"), samples=40)
    assert "the generator returns one image: all 40 samples are alike" in seen.answer
    assert "interpolation" not in seen.pictures
    assert seen.found["memorisation"]["nearest"][0]["train"].endswith(".png")
    with pytest.raises(ValueError, match="name the real ones with --data"):
        inspect_gan(tmp_path / "made")
    Image.new("RGB", (12, 4)).save(tmp_path / "wide.png")
    (tmp_path / "odd").mkdir()
    Image.new("RGB", (12, 4)).save(tmp_path / "odd" / "wide.png")
    with pytest.raises(ValueError, match="generated images are"):
        inspect_gan(tmp_path / "made", data=str(tmp_path / "odd"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("gan") / "run"
    assert run(small.config(packing=2), (), folder).status == "finished"
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder


def test_a_run_is_inspected_with_both_networks(trained):
    seen = inspect_gan(trained, samples=100)
    names = [row["name"] for row in seen.found["layers"]]
    assert names[0].startswith("generator.")
    assert names[-1].startswith("discriminator.")
    assert {"modes", "overfitting", "interpolation", "points", "memorisation"} <= seen.found.keys()
    assert seen.found["train"] == 200
    assert seen.found["memorisation"]["nearest"][0]["train"].startswith("ring#")
    with pytest.raises(ValueError, match="leave out --data"):
        inspect_gan(trained, data="digits")


def test_weights_that_are_not_finite_are_named(trained, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "generator.json").write_bytes((trained / "generator.json").read_bytes())
    (broken / "snapshots" / "final").mkdir(parents=True)
    for file in (trained / "snapshots" / "final").iterdir():
        (broken / "snapshots" / "final" / file.name).write_bytes(file.read_bytes())
    for name in ("model", "ema"):
        file = broken / "snapshots" / "final" / f"{name}.safetensors"
        weights = load_file(file)
        layer = next(key for key in weights if key.startswith("generator.") and key.endswith(".weight"))
        weights[layer][0, 0] = torch.nan
        save_file(weights, file)
    seen = inspect_gan(broken, samples=50)
    assert seen.answer.startswith("There is nothing to judge: 50 of 50 samples hold NaN or infinity; so do the weights")
    assert layer.removesuffix(".weight") in seen.answer


@pytest.mark.parametrize("kind", ["missing", "empty", "comparison"])
def test_what_is_nothing_to_inspect_is_refused(kind, tmp_path):
    folder = tmp_path / kind
    if kind != "missing":
        folder.mkdir()
    if kind == "comparison":
        (folder / "experiment.json").write_text("{}")
        (folder / "baseline" / "seed=0").mkdir(parents=True)
    told = {"missing": "no folder", "empty": "is no run of", "comparison": "such as .*baseline/seed=0"}[kind]
    with pytest.raises(ValueError, match=told):
        inspect_gan(folder)
