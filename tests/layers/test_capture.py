import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn
from torch.utils.checkpoint import checkpoint

from lsdr.layers.capture import capture


class Returns(nn.Module):
    """A layer that wraps its output as told."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(x)


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_every_forward_arrives_with_its_graph():
    net, seen = model(), []
    with capture(net, ["0", "2"], lambda *call: seen.append(call)) as layers:
        out = net(torch.randn(5, 3))
        net(torch.randn(6, 3))
    assert list(layers) == ["0", "2"]
    assert [(name, module) for name, module, _ in seen] == [("0", net[0]), ("2", net[2])] * 2
    assert seen[1][2] is out
    assert seen[0][2].requires_grad
    assert seen[2][2].shape == (6, 4)


def test_outputs_are_not_changed():
    net, x = model(), torch.randn(5, 3)
    plain = net(x)
    with capture(net, "*", lambda name, module, output: None):
        assert torch.equal(net(x), plain)


def test_layers_selected_already_are_taken_as_they_are():
    net, seen = model(), []
    with capture(net, {"mine": net[1]}, lambda name, module, output: seen.append(name)) as layers:
        net(torch.randn(5, 3))
    assert layers == {"mine": net[1]}
    assert seen == ["mine"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x, None),
        lambda x: [None, x, 2 * x],
        lambda x: {"sample": x, "rest": 1},
        lambda x: ((x, 2 * x), 3 * x),
        lambda x: UNet2DOutput(sample=x),
    ],
)
def test_the_first_tensor_of_a_structured_output_is_taken(wrap):
    net, x, seen = nn.Sequential(Returns(wrap)), torch.randn(2, 3), []
    with capture(net, "0", lambda name, module, output: seen.append(output)):
        net(x)
    assert seen[0] is x


@pytest.mark.parametrize("wrap", [lambda x: None, lambda x: (), lambda x: 3, lambda x: {"a": "b"}])
def test_an_output_without_tensor_is_an_error(wrap):
    net = nn.Sequential(Returns(wrap))
    with capture(net, "0", lambda name, module, output: None), pytest.raises(TypeError, match="layer '0' returned"):
        net(torch.zeros(1))


def test_recomputation_in_the_backward_pass_is_not_reported():
    net, seen = model(), []
    with capture(net, "0", lambda name, module, output: seen.append(output)):
        checkpoint(net, torch.randn(5, 3), use_reentrant=False).sum().backward()
        assert len(seen) == 1
        net(torch.randn(5, 3))
        assert len(seen) == 2


def test_hooks_are_removed_after_a_normal_body_an_exception_and_bad_arguments():
    net = model()
    with capture(net, "*", lambda name, module, output: None):
        assert hooks(net) == 3
    assert hooks(net) == 0

    with pytest.raises(ZeroDivisionError), capture(net, "*", lambda name, module, output: 1 / 0):  # noqa: PT012
        assert hooks(net) == 3
        net(torch.randn(1, 3))
    assert hooks(net) == 0

    with pytest.raises(ValueError, match="no layer"), capture(net, "nothing", lambda name, module, output: None):
        pass
    # The second is no module: what was registered before it must go as well.
    with pytest.raises(AttributeError), capture(net, {"0": net[0], "x": None}, lambda name, module, output: None):
        pass
    assert hooks(net) == 0
