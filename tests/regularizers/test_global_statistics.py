"""Statistics are those of the whole batch: over gradient-accumulation chunks, over ranks, over both."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation

FORMS = ["as_written", "covariance", "correlation"]
CHUNKABLE = [
    ("plug_in", "samples"),
    ("split_half", "samples"),
    ("plug_in", "inner_product"),
    ("split_half", "inner_product"),
]


def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 1))
    return net.double(), torch.randn(11, 2, 3, 3, dtype=torch.float64) * torch.linspace(0.5, 3, 11)[:, None, None, None]


def decorrelation(**settings):
    return SpectralDecorrelation(**{"layers": ["1", "4"], "weight": 1.0, "variance_floor": 2.0, **settings})


def in_chunks(net, chunks, regularizer, forward=None):
    forward = forward or net
    with attach(net, regularizer) as penalty:
        with penalty.observe():
            for chunk in chunks:
                forward(chunk)
        parts = []
        for chunk in chunks:
            forward(chunk)
            part = penalty()
            part.backward()
            parts.append(part.detach())
        values = penalty.values
    return parts, values, take_gradients(net)


def at_once(net, x, regularizer):
    with attach(net, regularizer) as penalty:
        net(x)
        result = penalty()
        result.backward()
        return result.detach(), penalty.values, take_gradients(net)


def take_gradients(net):
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    net.zero_grad()
    return gradients


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("estimator", "positions"), CHUNKABLE)
def test_chunks_give_the_gradient_of_the_whole_batch(form, estimator, positions):
    net, x = build()
    regularizer = decorrelation(form=form, estimator=estimator, positions=positions)
    value, values, gradients = at_once(net, x, regularizer)
    parts, values_in_chunks, gradients_in_chunks = in_chunks(net, x.split([1, 3, 2, 5]), regularizer)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-3
    close(gradients_in_chunks, gradients)
    close(sum(parts), value)
    close(parts, [value / 4] * 4)
    close(values_in_chunks, values)
    # The test can tell: each chunk's own penalty has another gradient.
    if (form, estimator) == ("correlation", "plug_in"):
        with attach(net, regularizer) as penalty:
            for chunk in x.split([1, 3, 2, 5]):
                net(chunk)
                (penalty() / 4).backward()
        own = take_gradients(net)
        assert (own[0] - gradients[0]).norm() > 0.1 * gradients[0].norm()


def test_the_second_pass_draws_the_same_dropout_and_buffers_move_once():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).double()
    chunks = torch.randn(3, 5, 3, dtype=torch.float64)
    masks = []

    def forward(chunk):
        masks.append(net[:2](chunk).detach())  # its own draw, then the one that is watched
        net(chunk)

    state = torch.get_rng_state()
    in_chunks(net, chunks, decorrelation(layers="1"), forward)
    for first, second in zip(masks[:3], masks[3:], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(state, torch.get_rng_state())  # the second pass did draw
    assert net[2].num_batches_tracked == 3


def test_a_second_pass_with_other_features_is_an_error():
    net, x = build()
    with attach(net, decorrelation()) as penalty:
        with penalty.observe():
            net(x[:6])
            net(x[6:])
        net(x[:6] + 0.1)
        with pytest.raises(RuntimeError, match="brought other features than were observed"):
            penalty()
        net(x[:6])
        penalty()
        net(x[:5])
        with pytest.raises(RuntimeError, match="brought other features"):
            penalty()
        net(x[6:])
        net(x[6:])
        with pytest.raises(RuntimeError, match="brought other features"):  # one forward too many
            penalty()


def test_without_an_observation_each_step_stands_alone_again():
    net, x = build()
    regularizer = decorrelation()
    value, _, _ = at_once(net, x, regularizer)
    with attach(net, regularizer) as penalty:
        (term,) = penalty._terms.values()
        with penalty.observe():
            net(x[:3])
            net(x[3:])
        assert term.observed() == 2
        net(x[:3])
        penalty()
        assert term.observed() == 1
        net(x[3:])
        penalty()
        assert term.observed() == 0
        net(x)
        close(penalty().detach(), value)
        # What was observed and never used is dropped by the next observation.
        with penalty.observe():
            net(x[:2])
        with penalty.observe():
            net(x[:3])
            net(x[3:])
        net(x[:3])
        close(penalty().detach(), value / 2)


def test_observing_keeps_no_graph_and_no_features():
    net, x = build()
    with attach(net, decorrelation()) as penalty:
        with penalty.observe():
            assert not net(x).requires_grad
        (term,) = penalty._terms.values()
        for forwards in term._observed.values():
            for moments in forwards[0].halves:
                assert not moments.covariance().requires_grad
        assert all(not outputs for outputs in term._features._outputs.values())


def test_the_u_statistic_cannot_be_observed():
    net, _ = build()
    with (
        attach(net, decorrelation(estimator="u_statistic")) as penalty,
        pytest.raises(ValueError, match="use estimator='split_half'"),
        penalty.observe(),
    ):
        pass


def test_a_layer_that_does_not_run_while_observed_is_an_error():
    net, x = build()
    with attach(net, decorrelation()) as penalty:
        with pytest.raises(RuntimeError, match=r"\['1', '4'\] did not run while observed"), penalty.observe():
            pass
        net(x)
        penalty()


def test_nan_in_one_chunk_is_nan_in_every_part():
    net, x = build()
    x[7] = torch.nan
    parts, _, _ = in_chunks(net, x.split(4), decorrelation())
    assert torch.stack(parts).isnan().all()


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, tmp_path_factory):
    """Results of every rank, and of one process on all shards."""
    folder, world = tmp_path_factory.mktemp("ranks"), request.param
    script = Path(__file__).with_name("rank.py")
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


def test_ranks_agree_with_one_process_on_uneven_heterogeneous_shards(ranks):
    several, single = ranks
    assert len(single) == 3 * (5 + 4)  # every form, estimator and reading of positions; all but one also in chunks
    for key, expected in single.items():
        for result in several:
            for actual, wanted in zip(result[key], expected, strict=True):
                scale = wanted.abs().max()
                assert (actual - wanted).abs().max() <= 1e-12 * max(scale, 1), key
        assert max(gradient.abs().max() for gradient in expected[3:]) > 1e-3, key
