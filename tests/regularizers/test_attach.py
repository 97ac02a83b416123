import pytest
import torch
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.regularizer import Regularizer, Term
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation


class Stateful:
    """The least regularizer of a user's own: counts its calls, clamps weights."""

    def __init__(self, start=0):
        self.start = start

    def attach(self, model):
        from contextlib import contextmanager

        @contextmanager
        def context():
            yield StatefulTerm(self.start)

        return context()

    def project_(self, model):
        for parameter in model.parameters():
            parameter.clamp_(-0.1, 0.1)


class StatefulTerm:
    def __init__(self, start):
        self.calls = torch.tensor(start)
        self.values = {}
        self.context = None

    def __call__(self, **context):
        self.calls = self.calls + 1
        self.values = {"all": self.calls}
        self.context = context
        return context["scale"] * self.calls.float()

    def observe(self):
        from contextlib import nullcontext

        return nullcontext()

    def observed(self):
        return 0

    def forget(self):
        pass

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def test_the_protocols_are_what_is_implemented():
    with SpectralDecorrelation(layers="*").attach(nn.Linear(2, 2)) as term:
        assert isinstance(term, Term)
    assert isinstance(SpectralDecorrelation(), Regularizer)


def test_without_regularizers_the_penalty_is_zero():
    net = nn.Linear(2, 2)
    with attach(net) as penalty:
        assert torch.equal(penalty(denoised=1), torch.zeros(()))
        assert penalty.values == {}
        with penalty.observe():
            net(torch.randn(1, 2))
        penalty.project_()
        assert penalty.state_dict() == {}
        (net(torch.randn(1, 2)).sum() + penalty()).backward()


def test_terms_add_up_and_keep_their_names_apart():
    net, x = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), torch.randn(8, 2)
    regularizers = (
        SpectralDecorrelation(layers="0", weight=0.5),
        SpectralDecorrelation(layers="1", weight=2.0),
        Stateful(),
    )
    with attach(net, *regularizers) as penalty:
        net(x)
        result = penalty(scale=10.0)
        values = penalty.values
    assert list(values) == ["SpectralDecorrelation/0", "SpectralDecorrelation-2/1", "Stateful/all"]
    first, second, _ = values.values()
    torch.testing.assert_close(result.detach(), 0.5 * first + 2.0 * second + 10.0)


def test_states_go_to_their_terms():
    net = nn.Linear(2, 2)
    with attach(net, Stateful(3), Stateful(5), SpectralDecorrelation(layers="*")) as penalty:
        state = penalty.state_dict()
    assert state == {"Stateful/calls": torch.tensor(3), "Stateful-2/calls": torch.tensor(5)}
    with attach(net, Stateful(), Stateful(), SpectralDecorrelation(layers="*")) as penalty:
        penalty.load_state_dict(state)
        assert penalty.state_dict() == state
        with pytest.raises(ValueError, match="Foreign/calls"):
            penalty.load_state_dict({"Foreign/calls": torch.tensor(0)})
        with pytest.raises(ValueError, match="has no state"):
            penalty.load_state_dict({**state, "SpectralDecorrelation/x": torch.tensor(0)})


def test_projection_is_every_regularizers():
    net = nn.Linear(4, 4)
    nn.init.constant_(net.weight, 3.0)
    with attach(net, SpectralDecorrelation(layers="*"), Stateful()) as penalty:
        penalty.project_()
    assert net.weight.max() <= 0.1
    assert net.weight.requires_grad


def test_a_regularizer_that_cannot_attach_takes_the_others_with_it():
    net = nn.Sequential(nn.Linear(2, 3))
    with (
        pytest.raises(ValueError, match="no layer"),
        attach(net, SpectralDecorrelation(layers="0"), SpectralDecorrelation(layers="nothing")),
    ):
        pass
    assert not net[0]._forward_hooks
