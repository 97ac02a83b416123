"""Presets, and how any network is called."""

import re
from types import SimpleNamespace

import pytest
import torch
from diffusers import DiTTransformer2DModel, UNet2DModel
from torch import nn

from lsdr.diffusion.call_model import unwrap
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.loss import denoising_loss
from lsdr.diffusion.models import MODELS, build_model, call_model

MILLIONS = {
    "unet-tiny": 0.65,
    "unet-small": 6.5,
    "unet-base": 35.7,
    "dit-tiny": 0.83,
    "dit-small": 35.2,
    "dit-base": 138,
}
TINY = ["unet-tiny", "dit-tiny"]


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name):
    with torch.device("meta"):
        model = build_model(name, channels=3, size=32, classes=None)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(MILLIONS[name], rel=0.01)
    assert isinstance(model, UNet2DModel if name.startswith("unet") else DiTTransformer2DModel)
    described = float(re.search(r"([\d.]+)M parameters", MODELS[name].description)[1])
    assert described == pytest.approx(count, rel=0.08)


def test_base_is_the_network_of_ddpm():
    with torch.device("meta"):
        model = build_model("unet-base", channels=3, size=32)
    assert sum(p.numel() for p in model.parameters()) == 35_746_307  # as google/ddpm-cifar10-32


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("classes", [None, 1, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_trains_a_step(name, classes, channels):
    torch.manual_seed(0)
    model = build_model(name, channels, 8, classes)
    labels = None if classes is None else torch.arange(4) % classes
    x, sigma = torch.randn(4, channels, 8, 8), torch.full((4,), 0.7)
    clean = torch.zeros_like(x)
    denoise = EDMDenoiser(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = denoising_loss(denoise(x, sigma, labels), clean, denoise.uniform_weight(sigma)).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())  # DDP needs every one
        optimizer.step()
    assert losses[2] < losses[0]


@pytest.mark.parametrize("name", TINY)
def test_labels_matter_and_must_be_given(name):
    model = build_model(name, 3, 8, classes=4)
    for parameter in model.parameters():  # a DiT starts blind to its labels
        nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(2, 3, 8, 8), torch.rand(2)
    first, second = (call_model(model, x, t, torch.full((2,), label)) for label in (0, 3))
    assert not torch.allclose(first, second)
    with pytest.raises(ValueError, match="label"):
        call_model(model, x, t, None)
    with pytest.raises(ValueError, match="one label per example"):
        call_model(model, x, t, torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("name", TINY)
def test_initial_weights_depend_on_the_global_seed_alone(name):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build_model(name, 3, 8, 3).parameters()])

    first = weights(1)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("classes", [None, 3])
def test_a_forward_pass_in_training_is_a_function_of_its_arguments(name, classes):
    model = build_model(name, 3, 8, classes)
    assert model.training
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(64, 3, 8, 8), torch.rand(64)
    labels = None if classes is None else torch.arange(64) % classes
    state = torch.get_rng_state()
    assert torch.equal(call_model(model, x, t, labels), call_model(model, x, t, labels))
    assert torch.equal(state, torch.get_rng_state())


def test_a_dit_begins_as_adaln_zero():
    model = build_model("dit-tiny", 3, 8, 2)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(call_model(model, x, torch.ones(2), torch.tensor([0, 1])), torch.zeros_like(x))
    tokens = model.pos_embed(x)
    block = model.transformer_blocks[0]
    assert torch.equal(block(tokens, timestep=torch.ones(2), class_labels=torch.tensor([0, 1])), tokens)
    assert model.transformer_blocks[0].attn1.to_q.weight.std() > 0.01


@pytest.mark.parametrize(
    ("name", "size", "works"),
    [
        ("unet-tiny", 9, r"multiple of 2 .*Resize to 8"),
        ("unet-tiny", 2, r"at least 4\. Resize to 4"),
        ("unet-base", 8, r"multiple of 8 and at least 16.*or use unet-tiny, unet-small, dit-tiny"),
        ("unet-base", 28, r"Resize to 32, or use unet-tiny, unet-small"),
        ("unet-small", 6, r"multiple of 4 and at least 8\. Resize to 8, or use unet-tiny"),
        ("dit-small", 7, r"multiple of 2"),
    ],
)
def test_sizes_that_do_not_fit_say_what_does(name, size, works):
    with torch.device("meta"), pytest.raises(ValueError, match=works):
        build_model(name, 3, size)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [4, 8, 12, 16, 28, 32])
def test_sizes_that_fit_run(name, size):
    with torch.device("meta"):
        try:
            model = build_model(name, 3, size)
        except ValueError:
            return
        x = torch.empty(1, 3, size, size)
        assert call_model(model, x, torch.ones(1)).shape == x.shape


def test_unknown_name_and_empty_shape():
    with pytest.raises(ValueError, match="neither a folder nor one of unet-tiny"):
        build_model("unet-huge", 3, 8)
    with pytest.raises(ValueError, match="at least one channel"):
        build_model("unet-tiny", 0, 8)
    with pytest.raises(ValueError, match="at least one channel"):
        build_model("unet-tiny", 3, 8, classes=0)


@pytest.mark.parametrize("wrap", [lambda out: out, lambda out: (out, None), lambda out: SimpleNamespace(sample=out)])
def test_any_kind_of_output(wrap):
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(call_model(lambda x, t: wrap(x + 1), x, torch.ones(2)), x + 1)
    learned = call_model(lambda x, t: wrap(torch.cat([x, 0 * x], 1)), x, torch.ones(2))  # a learned variance
    assert torch.equal(learned, x)


def test_the_prediction_has_the_precision_of_x():
    model = build_model("unet-tiny", 3, 8).bfloat16()
    assert call_model(model, torch.randn(1, 3, 8, 8), torch.ones(1)).dtype == torch.float32


def test_labels_reach_a_users_module_by_name():
    labels = torch.tensor([1, 2])
    seen = []
    call_model(lambda x, t, class_labels: seen.append(class_labels) or x, torch.ones(2, 1, 2, 2), torch.ones(2), labels)
    assert seen[0] is labels


@pytest.mark.parametrize(
    ("output", "error"),
    [(torch.ones(2, 3, 2, 2), ValueError), (None, TypeError), ({"x": 1}, TypeError), ((), TypeError)],
)
def test_other_outputs_are_refused(output, error):
    with pytest.raises(error, match="the network returned"):
        call_model(lambda x, t: output, torch.ones(2, 3, 4, 4), torch.ones(2))


def test_integer_times_of_diffusers_are_the_same_as_floats():
    for name in TINY:
        model = build_model(name, 3, 8).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
        x, labels = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)
        given = {"class_labels": labels} if name == "dit-tiny" else {}
        integer = model(x, torch.tensor([3, 900]), **given).sample
        assert torch.equal(integer, call_model(model, x, torch.tensor([3.0, 900.0])))


def test_wrapped_networks():
    model = build_model("dit-tiny", 3, 8)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        compiled = torch.compile(parallel, backend="eager")
        assert unwrap(compiled) is model
        x = torch.randn(2, 3, 8, 8)
        assert call_model(parallel, x, torch.ones(2)).shape == x.shape  # label 0 of a DiT without classes
    finally:
        torch.distributed.destroy_process_group()
