"""A step's penalty is one, however the step is cut: into micro-batches, over ranks, by a stop and a resume."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lsdr.regularizers.attach import attach
from lsdr.regularizers.layer_spectra import LayerSpectra
from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator
from lsdr.regularizers.spectral_features import AmplitudePhase


def load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


discriminated, ranks = load("discriminated"), load("discriminator_rank")


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_and_their_chunks_are_one_process(world, tmp_path):
    script = str(Path(__file__).with_name("discriminator_rank.py"))

    def start(rank, count, name):
        arguments = [str(each) for each in (rank, count, tmp_path / f"meet{count}", tmp_path / name, world)]
        return subprocess.Popen([sys.executable, "-W", "ignore", script, *arguments], stderr=subprocess.PIPE, text=True)

    processes = [start(0, 1, "whole"), *(start(rank, world, f"rank{rank}") for rank in range(world))]
    for process in processes:
        errors = process.communicate(timeout=250)[1]
        assert process.returncode == 0, errors[-3000:]
    whole, *parts = (
        torch.load(tmp_path / name, weights_only=True) for name in ["whole", *(f"rank{r}" for r in range(world))]
    )
    assert [float(whole[f"True/{step}"][0]) > 0 for step in range(4)] == [False, False, True, True]
    for part in parts:
        assert part.keys() == whole.keys()
        for key, expected in whole.items():
            for found, value in zip(part[key], expected, strict=True):
                torch.testing.assert_close(
                    found, value, rtol=1e-9, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}"
                )


def steps(model, penalty, numbers, cuts, generator_seed=11):
    """Run steps, return every step's value and gradients."""
    found = []
    for number in numbers:
        clean = discriminated.smooth(20, 2, 7, 8, seed=number)
        sigma = torch.linspace(0.05, 3, 20).double()
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(number)).double()
        data = {"clean": clean, "sigma": sigma, "label": sigma / 3, "noisy": clean + sigma.view(-1, 1, 1, 1) * noise}
        model.zero_grad()
        value = ranks.step(model, penalty, data, 1, 20, cuts)
        found.append([value, *(each.grad.clone() for each in model.parameters())])
    return found


FEATURES = ("radial", "dct", AmplitudePhase(1, 0.5), LayerSpectra(layers=["inner", "outer"]))


def denoiser():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return ranks.Denoiser().double()


@pytest.mark.parametrize("noise", ["wiener", "bracket"])
def test_micro_batches_are_one_batch(noise):
    model, found = denoiser(), []
    for cuts in ([(0, 20)], [(0, 1), (1, 8), (8, 20)]):
        with attach(model, SpectralDiscriminator(features=FEATURES, weight=2.0, noise=noise, learn=50)) as penalty:
            found.append(steps(model, penalty, range(5), cuts))
    assert found[0][-1][0] > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_resumed_is_bitwise_the_same():
    model, regularizer = denoiser(), SpectralDiscriminator(features=FEATURES, weight=2.0, learn=90)
    for stop in (1, 2, 4, 6):
        with attach(model, regularizer) as penalty:
            steps(model, penalty, range(stop), [(0, 20)])
            state = {key: value.clone() for key, value in penalty.state_dict().items()}
            straight = steps(model, penalty, range(stop, 8), [(0, 20)])
        with attach(model, regularizer) as penalty:
            penalty.load_state_dict(state)
            resumed = steps(model, penalty, range(stop, 8), [(0, 20)])
        assert straight[-1][0] > 0
        for one, other in zip(straight, resumed, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_invisible_replay_leaves_no_trace():
    model, regularizer = denoiser(), SpectralDiscriminator(features=FEATURES, weight=2.0, learn=200)
    with attach(model, regularizer) as penalty:
        steps(model, penalty, range(3), [(0, 20)])
        before = {key: value.clone() for key, value in penalty.state_dict().items()}
        with penalty.aside():
            first = steps(model, penalty, [7], [(0, 20)])
        with penalty.aside():
            steps(model, penalty, [8, 9], [(0, 8), (8, 20)])
        with penalty.aside():
            again = steps(model, penalty, [7], [(0, 20)])
        assert penalty.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[key]) for key, value in penalty.state_dict().items())
    assert first[0][0] == again[0][0] > 0


def test_a_step_that_did_not_end_is_forgotten():
    model, regularizer = denoiser(), SpectralDiscriminator(weight=2.0)
    clean = discriminated.smooth(20, 2, 7, 8)
    with attach(model, regularizer) as penalty:
        with penalty.observe():
            for _ in range(2):
                model(clean, torch.zeros(20))
        penalty(denoised=model(clean, torch.zeros(20)), clean=clean, sigma=torch.tensor(0.1))
        assert not penalty.state_dict()
        with penalty.observe():
            model(clean[:4], torch.zeros(4))
        penalty(denoised=model(clean[:4], torch.zeros(4)), clean=clean[:4], sigma=torch.tensor(0.1))
        assert penalty.state_dict()["SpectralDiscriminator/2x7x8/noise/seen"] == 4
        assert penalty.state_dict()["SpectralDiscriminator/2x7x8/noise/count"] == 4


def test_another_number_of_examples_than_observed_is_an_error():
    model, clean = denoiser(), discriminated.smooth(20, 2, 7, 8)
    with attach(model, SpectralDiscriminator()) as penalty:
        with penalty.observe():
            model(clean, torch.zeros(20))
        with pytest.raises(RuntimeError, match="4 examples came where 20 were observed"):
            penalty(denoised=model(clean[:4], torch.zeros(4)), clean=clean[:4], sigma=torch.tensor(0.1))


def test_the_state_of_other_features_is_refused():
    model, clean = denoiser(), discriminated.smooth(20, 2, 7, 8)
    with attach(model, SpectralDiscriminator(features=("dct",))) as penalty:
        discriminated.learn(penalty, clean)
        state = penalty.state_dict()
    with attach(model, SpectralDiscriminator()) as penalty, pytest.raises(ValueError, match="spread/dct"):
        penalty.load_state_dict(state)
