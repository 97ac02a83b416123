"""The penalties on text-conditioned networks: Stable Diffusion's UNet, SDXL's and Stable Diffusion 3's transformer."""

import importlib.util
from pathlib import Path

import pytest
import torch

from lsdr.probes.conditioning import rows_of
from lsdr.probes.operator_spectrum import operator_asymmetry, operator_spectrum
from lsdr.regularizers._shares import Share
from lsdr.regularizers.attach import attach
from lsdr.regularizers.layer_spectra import LayerSpectra
from lsdr.regularizers.spectral_decomposition import SpectralDecomposition
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator

_path = Path(__file__).parents[1] / "diffusion" / "text_conditioned.py"
_spec = importlib.util.spec_from_file_location("text_conditioned", _path)
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

FAMILIES = pytest.mark.parametrize("family", shared.FAMILIES)
# Of a transformer a whole block returns the text's tokens first; its feed-forward layer sees the image's alone.
LAYERS = {"sd": "mid_block*", "sdxl": "mid_block*", "sd3": "transformer_blocks.*.ff"}
# What the text goes through on its way to the image.
TEXT = {"sd": "attn2.to_k", "sdxl": "attn2.to_k", "sd3": "add_k_proj"}


def regularizers(family):
    half = {"fraction": 0.5}
    return {
        "dispersion": SpectralDecomposition(**half),
        "hinge": SpectralDecomposition(penalty="hinge", bound=0.0, **half),
        "asymmetry": SpectralDecomposition(penalty="asymmetry", **half),
        "radial": SpectralDiscriminator(domain="latents"),
        "layers": SpectralDiscriminator(features=(LayerSpectra(LAYERS[family], fraction=0.5),), domain="latents"),
        "decorrelation": SpectralDecorrelation(layers=LAYERS[family]),
    }


NAMES = list(regularizers("sd"))


def generator():
    return torch.Generator().manual_seed(0)


def run(family, net, regularizer, dtype=torch.float64):
    """The penalty after the steps from which it learns, and its gradient by parameter."""
    denoise = shared.denoiser(family, net)
    with attach(net, regularizer) as penalty:
        steps, count = (5, 16) if isinstance(regularizer, SpectralDiscriminator) else (2, 4)
        for seed in range(steps):
            found = penalty(**shared.step(family, denoise, count, seed, dtype), generator=generator())
    net.zero_grad()
    found.backward()
    return found.detach(), {name: each.grad for name, each in net.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("name", NAMES)
@FAMILIES
def test_gradients_reach_the_parameters_with_and_without_checkpointing(family, name):
    values, gradients = [], []
    for checkpointing in (False, True):
        net = shared.network(family).double().train()
        if checkpointing:
            net.enable_gradient_checkpointing()
        value, found = run(family, net, regularizers(family)[name])
        assert value > 0
        values.append(value)
        gradients.append(found)
    plain, checkpointed = gradients
    through_text = [each for key, each in plain.items() if TEXT[family] in key]
    assert through_text
    assert all(each.isfinite().all() and float(each.norm()) > 0 for each in through_text)
    assert torch.allclose(*values, rtol=1e-9)
    assert plain.keys() == checkpointed.keys()
    for key, each in plain.items():
        assert torch.allclose(each, checkpointed[key], rtol=1e-6, atol=1e-9), key


@pytest.mark.parametrize("name", NAMES)
@FAMILIES
def test_of_an_adapted_network_the_factors_alone_get_gradients(family, name):
    from peft import LoraConfig

    net = shared.network(family).double()
    net.requires_grad_(False)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        net.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=targets))
    net.double().train()
    net.enable_gradient_checkpointing()
    before = {key: each.clone() for key, each in net.named_parameters()}
    value, found = run(family, net, regularizers(family)[name])
    assert value > 0
    assert found
    assert all(("lora_A" in key) or ("lora_B" in key) for key in found)
    assert {key for key, each in net.named_parameters() if each.requires_grad} >= set(found)
    alive = {key for key, each in found.items() if each.isfinite().all() and float(each.norm()) > 0}
    if family != "sd3" and name != "decorrelation":  # all of them; but for what comes after the layer that is looked at
        assert alive == {key for key, each in net.named_parameters() if each.requires_grad}
    assert {key.split("lora_")[1][0] for key in alive} == {"A", "B"}
    assert all(torch.equal(each, before[key]) for key, each in net.named_parameters())


@pytest.mark.parametrize("name", ["dispersion", "hinge", "asymmetry"])
@FAMILIES
def test_some_images_are_looked_at_with_their_own_text(family, name):
    """A fraction of the batch gives what the same images alone give."""
    net = shared.network(family).double().eval()
    denoise = shared.denoiser(family, net)
    every = slice(None, None, 2)
    penalty_of = {
        "dispersion": {"penalty": "frobenius", "of": "singular_values"},  # dispersion's own product, without memory
        "hinge": {"penalty": "hinge", "bound": 0.0},
        "asymmetry": {"penalty": "asymmetry"},
    }[name]
    context = shared.step(family, denoise, 4, dtype=torch.float64)
    signs = []
    with attach(net, SpectralDecomposition(fraction=0.5, **penalty_of)) as penalty:
        term = next(iter(penalty._terms.values()))
        draw = term._draw
        term._draw = lambda *arguments: signs.append(draw(*arguments)) or signs[-1]
        half = penalty(**context, generator=generator())
    few = {
        **{key: context[key][every] for key in ("noisy", "sigma", "clean", "denoised")},
        "denoiser": denoise,
        "conditioning": rows_of(context["conditioning"], every),
    }
    with attach(net, SpectralDecomposition(fraction=1.0, **penalty_of)) as penalty:
        term = next(iter(penalty._terms.values()))
        term._draw = lambda *arguments: signs[0][:, every]
        alone = penalty(**few)
    assert half > 0
    assert torch.allclose(half, alone, rtol=1e-9)
    with attach(net, SpectralDecomposition(fraction=0.5, **penalty_of)) as penalty:
        other = {**context, "conditioning": rows_of(context["conditioning"], torch.tensor([1, 0, 3, 2]))}
        other["denoised"] = denoise(context["noisy"], context["sigma"], other["conditioning"])
        assert not torch.allclose(half, penalty(**other, generator=generator()), rtol=1e-6)


def test_layers_are_looked_at_under_the_text_of_their_images():
    seen = []
    context = {
        "denoiser": lambda x, sigma, conditioning: seen.append(conditioning) or x,
        "conditioning": {"text": torch.arange(4.0), "added": {"ids": torch.arange(4)}},
    }
    images = torch.randn(4, 1, 4, 4)
    forward = LayerSpectra("*", fraction=0.5).forward(images, Share(0, 4, 4, 1, True), context)
    forward(images[::2])
    assert seen[0]["text"].tolist() == seen[0]["added"]["ids"].tolist() == [0, 2]


@FAMILIES
def test_the_estimate_of_another_text_is_noticed(family):
    net = shared.network(family).double()
    denoise = shared.denoiser(family, net)
    context = shared.step(family, denoise, 4, dtype=torch.float64)
    context["conditioning"] = rows_of(context["conditioning"], torch.tensor([1, 0, 3, 2]))
    with (
        attach(net, SpectralDecomposition(fraction=1.0)) as penalty,
        pytest.raises(ValueError, match="denoised is not what denoiser"),
    ):
        penalty(**context)


@FAMILIES
def test_a_chunked_step_is_the_whole_step(family):
    """Micro-batches under `penalty.observe()`, each with the conditioning of its own examples."""
    net = shared.network(family, qk_norm=None).double()  # that norm is in float32 whatever it is given
    denoise = shared.denoiser(family, net)
    together = (SpectralDecomposition(penalty="asymmetry", fraction=1.0), SpectralDecorrelation(layers=LAYERS[family]))
    gradients = []
    for chunks in ([slice(0, 4)], [slice(0, 2), slice(2, 4)]):
        context = shared.step(family, denoise, 4, dtype=torch.float64)
        net.zero_grad()
        with attach(net, *together) as penalty:
            parts = [
                {key: context[key][rows] for key in ("noisy", "sigma", "clean")}
                | {"conditioning": rows_of(context["conditioning"], rows), "denoiser": denoise}
                for rows in chunks
            ]
            with penalty.observe():
                for part in parts:
                    denoise(part["noisy"], part["sigma"], part["conditioning"])
            for part in parts:
                denoised = denoise(part["noisy"], part["sigma"], part["conditioning"])
                penalty(**part, denoised=denoised, generator=generator()).backward()
        gradients.append([each.grad.clone() for each in net.parameters() if each.grad is not None])
    for whole, chunked in zip(*gradients, strict=True):
        assert torch.allclose(whole, chunked, rtol=1e-6, atol=1e-10)


@FAMILIES
def test_a_base_in_bfloat16_under_factors_in_float32(family):
    from peft import LoraConfig

    net = shared.network(family)
    net.requires_grad_(False)
    net.to(torch.bfloat16)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v"]))
    for key, each in net.named_parameters():
        if "lora_" in key:
            each.data = each.data.float()
    for name in ("asymmetry", "radial"):
        value, found = run(family, net, regularizers(family)[name], torch.float32)
        assert value > 0
        assert found
        assert all("lora_" in key and each.dtype == torch.float32 for key, each in found.items())
        assert any(float(each.norm()) > 0 for each in found.values())


@FAMILIES
def test_the_operator_is_measured_and_nothing_else_changes(family):
    net = shared.network(family).train()
    net.enable_gradient_checkpointing()
    denoise = shared.denoiser(family, net)
    context = shared.step(family, denoise, 2)
    before = {key: each.clone() for key, each in net.state_dict().items()}
    state = torch.get_rng_state()
    found = {}
    for estimator in ("forward_mode", "finite_difference"):
        found[estimator] = operator_spectrum(
            denoise,
            context["noisy"],
            context["sigma"],
            k=1,
            steps=3,
            conditioning=context["conditioning"],
            estimator=estimator,
            generator=generator(),
        )
    for exact, difference in zip(*found.values(), strict=True):
        assert torch.allclose(exact.values, difference.values, rtol=1e-2)
    asymmetry = operator_asymmetry(
        denoise, context["noisy"], context["sigma"], conditioning=context["conditioning"], generator=generator()
    )
    assert ((asymmetry > 0) & (asymmetry < 1)).all()
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(each, before[key]) for key, each in net.state_dict().items())
    assert all(each.grad is None for each in net.parameters())
