"""Troubles planted at known places in real networks must be found there."""

import json

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lsdr.layers.capture import capture
from lsdr.training.diagnose import diagnose
from lsdr.training.guard import Trouble
from lsdr.training.origin import bad_rows

torch.set_num_threads(1)

WEIGHT = "mid_block.resnets.0.conv1"


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        dropout=0.1,
    )


@pytest.fixture
def images():
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def replay(model, images, weight=1.0, shift=0.0):
    """A denoising step: seeded dropout, a loss."""

    def forward():
        torch.manual_seed(3)
        output = model(images + shift, torch.tensor([1, 200, 30, 999])[: len(images)]).sample
        return ((output - images).square().mean((1, 2, 3)) * weight).mean()

    return forward


@torch.no_grad()
def plant(tensor, value, index=0):
    tensor.view(-1)[index] = value


def chain(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers)


def squared(model, batch):
    return lambda: model(batch).float().square().mean()


# --- the batch, the weights, the buffers ---


def test_nan_in_one_layers_weight(unet, images):
    plant(unet.get_parameter(WEIGHT + ".weight"), torch.nan, 5)
    finding = diagnose(unet, replay(unet, images), inputs={"clean": images})
    assert (finding.module, finding.direction, finding.indices) == (WEIGHT, "parameter", (0, 1, 2, 3))
    assert finding.message == f"{WEIGHT}.weight: 1 of 2304 values are not finite"
    # Two layers run before it, itself, two after it, in the order of execution.
    assert list(finding.spectra) == [
        "down_blocks.1.attentions.0.to_v",
        "down_blocks.1.attentions.0.to_out.0",
        WEIGHT,
        "mid_block.resnets.0.time_emb_proj",
        "mid_block.resnets.0.conv2",
    ]
    assert finding.spectra[WEIGHT] == {
        "sigma_max": None,
        "stable_rank": None,
        "effective_rank": None,
        "nonfinite": 1,
    }
    expected = torch.linalg.matrix_norm(unet.get_parameter("mid_block.resnets.0.conv2.weight").flatten(1), 2)
    assert finding.spectra["mid_block.resnets.0.conv2"]["sigma_max"] == pytest.approx(expected.item(), rel=1e-5)


def test_of_several_bad_weights_the_first_executed_is_named(unet, images):
    # In the order of modules `up_blocks` comes before `mid_block`; in the order of execution after it.
    plant(unet.get_parameter("up_blocks.0.resnets.0.conv1.weight"), torch.nan)
    plant(unet.get_parameter("mid_block.resnets.1.conv2.bias"), torch.inf)
    finding = diagnose(unet, replay(unet, images), inputs={"clean": images})
    assert (finding.module, finding.direction) == ("mid_block.resnets.1.conv2", "parameter")
    assert "mid_block.resnets.1.conv2.bias" in finding.message


def test_nan_in_one_image(unet, images):
    plant(images[2], torch.nan, 9)
    finding = diagnose(unet, replay(unet, images), inputs={"clean": images, "noise": torch.zeros(4, 1, 8, 8)})
    assert (finding.module, finding.direction, finding.indices) == ("conv_in", "input", (2,))
    assert "'clean' at position 2" in finding.message
    assert "conv_in" in finding.spectra


def test_infinity_computed_before_the_model(unet, images):
    sigma = torch.tensor([1.0, 1.0, 0.0, 1.0]).view(4, 1, 1, 1)
    finding = diagnose(unet, lambda: replay(unet, images, shift=1 / sigma)(), inputs={"clean": images})
    assert (finding.module, finding.direction, finding.indices) == ("conv_in", "input", (2,))
    assert "before the model made infinity in float32 of finite inputs" in finding.message  # and is no overflow
    assert "test_diagnose.py" in finding.message


def test_infinity_in_a_buffer():
    model = chain(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LayerNorm(6), nn.Linear(6, 2)).eval()
    plant(model[1].running_mean, torch.inf, 2)
    batch = torch.randn(3, 4)
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("1", "parameter")
    assert finding.message == "1.running_mean: 1 of 6 values are not finite"
    assert finding.indices == (0, 1, 2)


def test_a_parametrized_weight_is_named_by_its_layer():
    model = chain(nn.Linear(3, 3), nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)))
    plant(model[1].parametrizations.weight.original, torch.nan)
    batch = torch.randn(3, 3)  # as many as the weight has rows, which are not samples
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction, finding.indices) == ("1", "parameter", (0, 1, 2))


# --- the forward pass ---


class Attention(nn.Module):
    """Causal attention with a mask written in place; the scores are computed between the layers."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.out = nn.Linear(4, 4)
        self.scale = 1.0
        self.register_buffer("mask", torch.full((5, 5), -torch.inf).triu(1))
        self.register_buffer("hidden", torch.zeros(5, 5, dtype=torch.bool))
        self.hidden[4, 0] = True

    def forward(self, x):
        scores = self.query(x) @ self.key(x).transpose(1, 2) * self.scale
        scores = scores + self.mask
        scores = scores.masked_fill(self.hidden, -torch.inf)
        return self.out(scores.softmax(-1) @ self.value(x))


def test_masks_are_not_blamed_for_what_comes_later():
    model = chain(Attention(), nn.Linear(4, 4), Attention())
    batch = torch.randn(2, 5, 4)
    plant(model[1].weight, torch.nan)
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("1", "parameter")


def test_a_healthy_model_with_masks_shows_nothing():
    model, batch = chain(Attention()), torch.randn(2, 5, 4)
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction, finding.indices, finding.spectra) == ("", "loss", (), {})


def test_an_operation_between_layers_is_blamed_on_the_innermost_composite():
    model, batch = chain(nn.Linear(4, 4), Attention()), torch.randn(2, 5, 4)
    model[1].scale = 1e38
    with torch.no_grad():
        model[1].query.weight *= 1e6
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("1", "forward")
    assert "`mul` in 1 overflowed float32 (max 3.40282e+38); its largest finite input is" in finding.message
    assert set(finding.spectra) == {"1.query", "1.key", "1.value", "1.out"}


def test_an_infinity_is_not_blamed_for_a_nan_it_meets():
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Linear(4, 4)

        def forward(self, x):
            keep = torch.tensor([1.0, 1.0, 0.0, 1.0]).log()  # runs before the layer whose NaN it is added to
            return (keep + self.query(x)).softmax(-1)

    model, batch = chain(Biased(), nn.Linear(4, 4)), torch.randn(2, 4)
    assert diagnose(model, squared(model, batch), inputs={"x": batch}).module == ""
    with torch.no_grad():
        model[0].query.weight.fill_(3e38)
    batch[1] = torch.tensor([9.0, 9.0, -9.0, 0.0])  # inf - inf within the layer
    batch[0] = 0
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction, finding.indices) == ("0.query", "forward", (1,))


def test_what_a_hook_computes_is_not_the_layers_doing():
    model, batch = chain(nn.Linear(3, 3), nn.Linear(3, 1)), torch.randn(2, 3)
    statistics = []

    def forward():
        loss = model(batch).square().mean()
        return loss + statistics.pop()

    with capture(model, "0", lambda name, module, output: statistics.append((output * 0).mean() / 0)):
        finding = diagnose(model, forward, inputs={"x": batch})
    assert (finding.module, finding.direction) == ("loss", "loss")
    assert "`div` in the loss made NaN" in finding.message
    assert "test_diagnose.py" in finding.message


@pytest.mark.parametrize("where", ["buffer", "call"])
def test_a_wholly_masked_row_is_blamed_on_the_softmax(where):
    model, batch = chain(Attention()), torch.randn(2, 5, 4)
    if where == "buffer":
        model[0].mask[3] = -torch.inf
    else:
        model[0].mask.zero_()
        model[0].hidden[3] = True
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("0", "forward")
    assert "`softmax`" in finding.message


def test_float16_overflow_at_the_layer_and_the_sample():
    model = chain(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)).half()
    batch = torch.full((3, 8), 0.5).half()
    batch[1] = 50
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[2].weight.fill_(25)
    assert torch.isfinite(model[:2](batch)).all()
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction, finding.indices) == ("2", "forward", (1,))
    assert "overflowed float16 (max 65504); its largest finite input is 400" in finding.message
    assert finding.spectra["2"]["sigma_max"] == pytest.approx(200)


def test_overflow_under_autocast_names_the_low_precision(unet, images):
    with torch.no_grad():
        unet.get_parameter(WEIGHT + ".weight").mul_(1e30)
        unet.get_parameter("mid_block.resnets.0.norm1.weight").mul_(1e10)
    step = replay(unet, images)

    def forward():
        with torch.autocast("cpu", torch.bfloat16):
            return step()

    finding = diagnose(unet, forward, inputs={"clean": images})
    assert (finding.module, finding.direction) == (WEIGHT, "forward")
    assert "`conv2d`" in finding.message
    assert "overflowed bfloat16 (max 3.38953e+38)" in finding.message


def test_a_division_by_zero_is_not_called_an_overflow():
    class Normalize(nn.Module):
        def forward(self, x):
            return x / x.norm(dim=1, keepdim=True)

    model, batch = chain(nn.Linear(3, 3, bias=False), Normalize(), nn.Linear(3, 1)), torch.randn(4, 3)
    batch[3] = 0
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction, finding.indices) == ("1", "forward", (3,))
    assert "made NaN in float32 of finite inputs" in finding.message


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4, bias=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        for _ in range(4):
            x = self.act(self.inner(x))
        return x


def test_a_module_called_several_times_names_the_call():
    model, batch = Repeated(), torch.ones(2, 4)
    with torch.no_grad():
        model.inner.weight.fill_(1e15)  # 4e15 a call: 2.56e62 overflows in the third
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("inner", "forward")
    assert "(call 3 of 4)" in finding.message


def test_in_place_writes_are_followed():
    class Write(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.after = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            buffer = torch.empty(4, 3).fill_(torch.nan)  # memory that was never written, at its worst
            y = self.before(x)
            buffer[:, :] = y
            buffer[2, 1] = y[2, 1].log() - y[2, 1].log() + torch.zeros(()).log() * 0
            return self.after(buffer)

    model, batch = Write(), torch.randn(4, 3)
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("Write", "forward")
    assert "`log` in Write" in finding.message


def test_memory_that_was_never_written_is_not_blamed():
    class Copy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            result = torch.empty(4, 3)
            return result.copy_(self.layer(x))

    model, batch = chain(Copy()), torch.randn(4, 3)
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        assert diagnose(model, squared(model, batch), inputs={"x": batch}).module == ""
        plant(model[0].layer.bias, torch.nan)
        finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    finally:
        torch.use_deterministic_algorithms(False)
    assert (finding.module, finding.direction) == ("0.layer", "parameter")


def test_a_model_that_is_one_layer():
    model, batch = nn.Linear(3, 1), torch.randn(2, 3)
    plant(model.weight, torch.nan)
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("Linear", "parameter")
    assert list(finding.spectra) == ["Linear"]


# --- the loss ---


def test_a_weight_in_the_loss(unet, images):
    snr = torch.tensor([1.0, 0.5, 0.0, 2.0])

    def forward():
        return replay(unet, images, weight=snr.clamp(max=5) / snr)()  # min-SNR at zero terminal SNR

    finding = diagnose(unet, forward, inputs={"clean": images})
    assert (finding.module, finding.direction, finding.indices) == ("loss", "loss", (2,))
    assert "every layer's output is finite" in finding.message
    assert "test_diagnose.py" in finding.message


def test_a_bad_tensor_from_elsewhere_in_the_loss(unet, images):
    weight = torch.tensor([1.0, torch.inf, 1.0, 1.0])
    finding = diagnose(unet, replay(unet, images, weight=weight), inputs={"clean": images})
    assert (finding.module, finding.direction, finding.indices) == ("loss", "loss", (1,))
    assert "was given a tensor in which 1 of 4 values are not finite" in finding.message


# --- the backward pass ---


class Root(nn.Module):
    """The trap: the branch not taken is finite, its derivative is not."""

    def forward(self, x):
        return torch.where(x > 0, x.clamp(min=0).sqrt(), torch.zeros(()))


def test_a_derivative_that_is_infinite_where_the_value_is_finite():
    model = chain(nn.Linear(3, 3, bias=False), nn.LeakyReLU(inplace=True), Root(), nn.Linear(3, 1))
    batch = torch.rand(4, 3)
    batch[1] = 0
    with torch.no_grad():
        model[0].weight.abs_()
    with torch.no_grad():
        finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction, finding.indices) == ("2", "backward", (1,))
    assert "`sqrt` in 2" in finding.message
    assert "SqrtBackward" in finding.message
    assert list(finding.spectra) == ["0", "3"]


def test_a_backward_trouble_between_a_composites_layers():
    class Distance(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.act = nn.Linear(3, 3), nn.ReLU()

        def forward(self, x):
            y = self.project(x)
            return self.act((y - y.detach()).square().sum(1).sqrt())

    model, batch = chain(nn.Linear(3, 3), Distance()), torch.randn(2, 3)
    finding = diagnose(model, lambda: model(batch).sum(), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("1", "backward")


def test_a_parameters_gradient_overflows_in_float16():
    model = chain(nn.Linear(2, 2), nn.Linear(2, 1)).half()
    batch = torch.full((2, 2), 60000.0).half()
    with torch.no_grad():
        model[0].weight.fill_(1e-3)
        model[0].bias.zero_()
    finding = diagnose(model, lambda: model(batch).float().sum() * 50, inputs={"x": batch})
    assert (finding.module, finding.direction) == ("0", "backward")
    assert finding.indices == ()  # the weight's gradient has two rows, which are not the two samples


def test_a_backward_trouble_in_the_loss():
    model, batch = chain(nn.Linear(3, 3)), torch.randn(2, 3)

    def forward():
        output = model(batch)
        return (output - output.detach()).square().sum(1).sqrt().sum()

    finding = diagnose(model, forward, inputs={"x": batch})
    assert (finding.module, finding.direction) == ("loss", "backward")


def test_sparse_gradients_are_looked_at():
    model = chain(nn.Embedding(5, 3, sparse=True), Root(), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].weight.abs_()[2] = 0
    batch = torch.tensor([1, 2, 3])
    finding = diagnose(model, lambda: model(batch).sum(), inputs={"tokens": batch})
    assert (finding.module, finding.direction, finding.indices) == ("1", "backward", (1,))


def test_backward_through_gradient_checkpointing(unet, images):
    unet.enable_gradient_checkpointing()
    unet.train()
    finding = diagnose(
        unet, lambda: (replay(unet, images)() * 0).sqrt(), reference=replay(unet, images), inputs={"clean": images}
    )
    assert (finding.module, finding.direction) == ("loss", "backward")


def test_forward_through_gradient_checkpointing():
    inner = chain(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    plant(inner[2].bias, torch.nan)
    batch = torch.randn(2, 3, requires_grad=True)
    finding = diagnose(
        inner, lambda: checkpoint(inner, batch, use_reentrant=False).square().mean(), inputs={"x": batch}
    )
    assert (finding.module, finding.direction) == ("2", "parameter")


# --- spikes ---


def test_a_spike_of_the_weights_against_the_average(unet, images):
    average = UNet2DModel.from_config(unet.config)
    average.load_state_dict(unet.state_dict())
    with torch.no_grad():
        unet.get_parameter(WEIGHT + ".weight").mul_(1000)
    healthy = images.flip(0)
    step = {"forward": replay(unet, images), "reference": replay(unet, healthy), "inputs": {"clean": images}}
    finding = diagnose(unet, **step, average=average)
    assert (finding.module, finding.direction, finding.indices) == (WEIGHT, "forward", ())
    assert "the first layer that grew tenfold" in finding.message
    assert finding.spectra[WEIGHT]["sigma_max"] > 100
    # With the same weights in both there is nothing to see, and that is said.
    blind = diagnose(unet, **step)
    assert (blind.module, blind.direction) == ("", "loss")
    assert "no layer's output or gradient differs" in blind.message


def test_a_spike_of_one_sample():
    model = chain(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
    batch, healthy = torch.randn(6, 4), torch.randn(6, 4)
    batch[4] *= 1e4
    finding = diagnose(model, squared(model, batch), reference=squared(model, healthy), inputs={"x": batch})
    assert (finding.module, finding.direction, finding.indices) == ("0", "forward", (4,))


def test_a_spike_below_tenfold_names_the_layer_that_grew_most():
    model = chain(nn.Linear(4, 8, bias=False), nn.Linear(8, 4, bias=False))
    batch = torch.randn(6, 4)
    # All gradients grow 64-fold, because the loss does.
    step = {"forward": lambda: model(4 * batch).pow(4).mean(), "reference": lambda: model(batch).pow(4).mean()}
    finding = diagnose(model, **step, inputs={"x": batch})
    assert finding.direction == "forward"
    assert "is 4 times that of a healthy step, more than any other layer" in finding.message


def test_a_gradient_that_grows_on_the_way_back():
    class Steep(nn.Module):
        slope = 1.0

        def forward(self, x):
            return x + (x - x.detach()) * self.slope

    model, batch = chain(nn.Linear(4, 4), nn.Linear(4, 4), Steep(), nn.Linear(4, 4)), torch.randn(6, 4)

    def steep():
        model[2].slope = 1e4
        try:
            return squared(model, batch)()
        finally:
            model[2].slope = 1.0

    finding = diagnose(model, steep, reference=squared(model, batch), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("1", "backward")  # the output whose gradient came out of Steep


def test_a_gradient_that_did_not_grow_is_not_blamed():
    model, batch = chain(nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(6, 4)

    def step(weight):
        hidden = model[0](batch)
        return hidden.square().mean() + weight * model[1](hidden).square().mean()

    # At the output it shrank a thousandfold, at the first layer it hardly changed.
    finding = diagnose(model, lambda: step(1e-3), reference=lambda: step(1.0), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("", "loss")


def test_without_a_reference_a_finite_step_shows_nothing(unet, images):
    finding = diagnose(unet, replay(unet, images), inputs={"clean": images})
    assert (finding.module, finding.direction) == ("", "loss")
    assert "no healthy one" in finding.message


# --- compiled models, records ---


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_model_keeps_its_names(in_place):
    model, batch = chain(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)), torch.randn(2, 3)
    compiled = model
    if in_place:
        model.compile(backend="eager")
    else:
        compiled = torch.compile(model, backend="eager")
    compiled(batch)
    plant(model[2].weight, torch.nan)
    finding = diagnose(compiled, squared(compiled, batch), inputs={"x": batch})
    assert (finding.module, finding.direction) == ("2", "parameter")
    assert compiled(batch).isnan().all()


def test_the_event_is_json_with_everything():
    model, batch = chain(nn.Linear(3, 3), nn.Linear(3, 1)), torch.randn(2, 3)
    plant(batch[1], torch.nan)
    finding = diagnose(model, squared(model, batch), inputs={"x": batch})
    trouble = Trouble("nonfinite_loss", float("nan"), None, "loss", 12)
    event = finding.to_event(12, trouble, "skip", ["cat.png"])
    assert {key: event[key] for key in ("step", "kind", "module", "direction", "action", "indices", "names")} == {
        "step": 12,
        "kind": "nonfinite_loss",
        "module": "0",
        "direction": "input",
        "action": "skip",
        "indices": [1],
        "names": ["cat.png"],
    }
    assert event["message"].startswith("the loss is nan: the batch is not finite")
    assert json.loads(json.dumps(event["spectra"])).keys() == {"0", "1"}


@pytest.mark.parametrize(
    ("shape", "bad", "expected"),
    [
        ((4,), (1,), (1,)),
        ((4, 3), (2, 1), (2,)),
        ((8, 3), (5, 0), (2,)),  # two heads folded into the batch
        ((8,), (5,), None),
        ((6, 2), (0, 0), None),
        ((), (), None),
    ],
)
def test_positions_in_the_batch(shape, bad, expected):
    tensor = torch.zeros(shape)
    tensor[bad] = torch.inf
    assert bad_rows(tensor, 4) == expected


# --- nothing is left behind ---


class Everything(nn.Module):
    """All that a forward pass may change."""

    def __init__(self):
        super().__init__()
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 4, 3))
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()
        self.head = nn.Linear(4, 1)
        self.same = nn.Identity()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1  # replaced, not changed in place
        with torch.no_grad():
            self.head.weight.copy_(functional.normalize(self.head.weight))
        return self.head(self.drop(self.norm(self.conv(self.same(x)))).mean((2, 3)))


def state(model):
    tensors = [*model.parameters(), *model.buffers(), torch.get_rng_state(), *(p.grad for p in model.parameters())]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())
    return [tensor.clone() for tensor in tensors], [m.training for m in model.modules()], hooks


@pytest.mark.parametrize("case", ["healthy", "nan_weight", "nan_gradient", "spike", "raises", "raises_in_reference"])
def test_nothing_is_left_behind(case):
    torch.manual_seed(0)
    model = Everything()
    model.norm.eval()
    images = torch.randn(3, 1, 6, 6, requires_grad=True)
    model(images).sum().backward()
    model(images)
    average = Everything()
    if case == "nan_weight":
        plant(model.head.weight, torch.nan)

    def forward():
        torch.manual_seed(5)
        model.train()
        output = model(images * (100 if case == "spike" else 1))
        if case == "raises":
            raise RuntimeError("planted")
        return (output * 0).sqrt().sum() if case == "nan_gradient" else output.square().mean()

    def reference():
        if case == "raises_in_reference":
            model(images)
            raise RuntimeError("planted")
        return model(images).square().mean()

    identities = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    before, training, hooks = state(model)
    if case.startswith("raises"):
        with pytest.raises(RuntimeError, match="planted"):
            diagnose(model, forward, reference=reference, inputs={"x": images}, average=average)
    else:
        finding = diagnose(model, forward, reference=reference, inputs={"x": images}, average=average)
        assert finding.module or case == "healthy"
    after, training_after, hooks_after = state(model)
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0, equal_nan=True)
    assert (training, hooks) == (training_after, hooks_after)
    assert identities == [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    assert pointers == [parameter.data_ptr() for parameter in model.parameters()]
    assert not images._backward_hooks  # Identity returned the caller's own tensor


def test_a_loss_that_is_no_scalar_is_refused():
    model, batch = chain(nn.Linear(3, 3)), torch.randn(2, 3)
    with pytest.raises(ValueError, match="must return the scalar loss"):
        diagnose(model, lambda: model(batch), inputs={"x": batch})
    assert not model[0]._forward_hooks


def test_the_finding_is_the_same_every_time(unet, images):
    plant(unet.get_parameter(WEIGHT + ".weight"), torch.nan)
    step = replay(unet, images)
    assert diagnose(unet, step, inputs={"x": images}) == diagnose(unet, step, inputs={"x": images})
