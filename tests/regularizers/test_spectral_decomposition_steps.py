"""One step is one step: over micro-batches, over ranks, over an interruption."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decomposition import SpectralDecomposition

sys.path.insert(0, str(Path(__file__).parent))
from decomposed import PENALTIES, Matrix, generator


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, tmp_path_factory):
    """Results of every rank, and of one process on all shards at once."""
    folder, world = tmp_path_factory.mktemp("ranks"), request.param
    script = Path(__file__).with_name("decomposition_rank.py")
    calls = [(rank, world) for rank in range(world)] + [(0, 1)]
    outs = [folder / f"{rank}of{size}.pt" for rank, size in calls]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(size), str(folder / "rendezvous"), str(out), str(world)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for (rank, size), out in zip(calls, outs, strict=True)
    ]
    errors = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(calls), "\n".join(errors)
    *several, single = [torch.load(out, weights_only=True) for out in outs]
    return several, single


def test_ranks_and_micro_batches_agree_with_one_process(ranks):
    several, single = ranks
    assert len(single) == 2 * len(PENALTIES)
    for key, expected in single.items():
        assert max(float(value.abs().max()) for value in expected[-5:]) > 1e-4, key
        for result in several:
            for actual, wanted in zip(result[key], expected, strict=True):
                scale = max(float(wanted.abs().max()), 1e-3)
                assert float((actual - wanted).abs().max()) <= 1e-7 * scale, key


def model():
    torch.manual_seed(0)
    return Matrix(torch.randn(5, 5, dtype=torch.float64))


def steps(denoiser, penalty, numbers):
    values = []
    for number in numbers:
        x = torch.randn(4, 5, generator=generator(number), dtype=torch.float64)
        sigma = torch.rand(4, generator=generator(number), dtype=torch.float64) + 0.01
        context = {"denoiser": denoiser, "noisy": x, "sigma": sigma, "denoised": denoiser(x, sigma)}
        values.append(penalty(**context, generator=generator(number)).detach())
    return values


@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_resumes_bitwise(of, penalty):
    net, regularizer = model(), SpectralDecomposition(of=of, penalty=penalty, fraction=0.5)
    with attach(net, regularizer) as attached:
        steps(net, attached, range(3))
        state = attached.state_dict()
        expected = steps(net, attached, range(3, 6))
    with attach(net, regularizer) as attached:
        fresh = steps(net, attached, range(3, 6))
    with attach(net, regularizer) as attached:
        attached.load_state_dict(state)
        assert steps(net, attached, range(3, 6)) == expected
    assert (fresh != expected) == (penalty == "dispersion")


def test_aside_leaves_the_running_mean():
    net = model()
    with attach(net, SpectralDecomposition(fraction=1)) as attached:
        steps(net, attached, range(2))
        before = {key: value.clone() for key, value in attached.state_dict().items()}
        with attached.aside():
            steps(net, attached, range(2, 5))
            assert not torch.equal(attached.state_dict()["SpectralDecomposition/sums"], before.popitem()[1])
            before = {key: value.clone() for key, value in attached.state_dict().items()}
        after = attached.state_dict()["SpectralDecomposition/sums"]
        assert not torch.equal(after, before["SpectralDecomposition/sums"])
        assert after[1].sum() == 8


def test_an_abandoned_step_leaves_no_trace():
    net = model()
    with attach(net, SpectralDecomposition(fraction=1)) as attached:
        steps(net, attached, range(2))
        expected = attached.state_dict()["SpectralDecomposition/sums"].clone()
        with attached.observe():
            for _ in range(2):
                net(torch.ones(4, 5).double(), None)
        steps(net, attached, [2])  # the first of two micro-batches
        (term,) = attached._terms.values()
        assert term.observed() == 1
        term.forget()
        assert term.observed() == 0
        assert torch.equal(attached.state_dict()["SpectralDecomposition/sums"], expected)
        steps(net, attached, [3])
        assert attached.state_dict()["SpectralDecomposition/sums"][1].sum() == 12


def test_other_micro_batches_than_observed_are_an_error():
    net = model()
    with attach(net, SpectralDecomposition()) as attached:
        with attached.observe():
            net(torch.ones(3, 5).double(), None)
        with pytest.raises(RuntimeError, match="4 examples came where 3 were observed"):
            steps(net, attached, [0])


def test_refuses_the_state_of_another_penalty():
    with SpectralDecomposition().attach(nn.Identity()) as term:
        state = term.state_dict()
        with pytest.raises(ValueError, match=r"'sums' of shape \(2, 16\), got \{\}"):
            term.load_state_dict({})
        with pytest.raises(ValueError, match=r"got \{'sums': \(2, 3\)\}"):
            term.load_state_dict({"sums": torch.zeros(2, 3)})
    with (
        SpectralDecomposition(penalty="hinge").attach(nn.Identity()) as term,
        pytest.raises(ValueError, match=r"penalty 'hinge' has no state, got entries \['sums'\]"),
    ):
        term.load_state_dict(state)
