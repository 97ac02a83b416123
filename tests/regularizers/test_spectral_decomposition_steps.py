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
            assert attached.state_dict()["SpectralDecomposition/count"] == 20
        after = attached.state_dict()
    assert before["SpectralDecomposition/count"] == 8
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_an_evaluation_is_no_step():
    net = model()
    with attach(net, SpectralDecomposition(fraction=1)) as attached:
        with torch.no_grad():
            steps(net, attached, range(2))
        assert not attached.state_dict()
        steps(net, attached, range(1))
        assert attached.state_dict()["SpectralDecomposition/count"] == 4


def test_an_abandoned_step_leaves_no_trace():
    net = model()
    with attach(net, SpectralDecomposition(fraction=1)) as attached:
        steps(net, attached, range(2))
        expected = {key: value.clone() for key, value in attached.state_dict().items()}
        with attached.observe():
            for _ in range(2):
                net(torch.ones(4, 5).double(), None)
        steps(net, attached, [2])  # the first of two micro-batches
        (term,) = attached._terms.values()
        assert term.observed() == 1
        term.forget()
        assert term.observed() == 0
        assert all(torch.equal(attached.state_dict()[key], value) for key, value in expected.items())
        steps(net, attached, [3])
        assert attached.state_dict()["SpectralDecomposition/count"] == 12


def test_other_micro_batches_than_observed_are_an_error():
    net = model()
    with attach(net, SpectralDecomposition()) as attached:
        with attached.observe():
            net(torch.ones(3, 5).double(), None)
        with pytest.raises(RuntimeError, match=r"4 examples came where 3 were observed \(in 1 passes"):
            steps(net, attached, [0])


def test_a_model_that_runs_twice_for_a_loss_is_counted_once():
    """As with self-conditioning: all of the step's chunks make one step of all their examples."""
    net, x, sigma = model(), torch.randn(8, 5, dtype=torch.float64), torch.tensor(0.5).double()
    found = []
    for size in (8, 3):
        with attach(net, SpectralDecomposition(penalty="frobenius", fraction=1)) as attached:
            with attached.observe():
                for chunk in x.split(size):
                    net(net(chunk, sigma), sigma)
            total = 0
            for chunk in x.split(size):
                net(chunk, sigma)
                context = {"denoiser": net, "noisy": chunk, "sigma": sigma, "denoised": net(chunk, sigma)}
                total = total + attached(**context, generator=generator())
            (term,) = attached._terms.values()
            assert term.observed() == 0
            found.append((total.detach(), *torch.autograd.grad(total, list(net.parameters()))))
    torch.testing.assert_close(found[1], found[0])


def test_a_model_that_runs_more_often_for_one_chunk_is_an_error():
    net, x, sigma = model(), torch.randn(8, 5, dtype=torch.float64), torch.tensor(0.5).double()
    with attach(net, SpectralDecomposition()) as attached:
        with attached.observe():
            for _ in range(3):
                net(x, sigma)
        net(x, sigma)
        context = {"denoiser": net, "noisy": x, "sigma": sigma, "denoised": net(x, sigma)}
        with pytest.raises(RuntimeError, match="the model as often for each"):
            attached(**context)


def test_refuses_the_state_of_another_penalty():
    with SpectralDecomposition().attach(nn.Identity()) as term:
        net = model()
        steps(net, term, range(1))
        state = term.state_dict()
        with pytest.raises(ValueError, match=r"expected running means, .* got \{'weights': \(3,\)\}"):
            term.load_state_dict({"weights": torch.zeros(3)})
        term.load_state_dict({})
        assert not term.state_dict()
    with (
        SpectralDecomposition(penalty="hinge").attach(nn.Identity()) as term,
        pytest.raises(
            ValueError, match=r"penalty 'hinge' has no state, got entries \['count', 'seen', 'values', 'weights'\]"
        ),
    ):
        term.load_state_dict(state)
