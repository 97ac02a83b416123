"""Spectra of features: what a network's layers see in an estimate and in the real image."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.fourier.radial_power_spectrum import radial_power_spectrum
from lsdr.layers.capture import capture, unreported
from lsdr.layers.select import Layers, select_outermost
from lsdr.probes.evaluating import evaluating
from lsdr.regularizers._shares import Share
from lsdr.regularizers._step_context import chosen_examples
from lsdr.regularizers.spectral_features import Component, Coordinates

_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.MultiheadAttention)
_FLOOR = 1e-6  # of the mean power of the normalised maps, which is 1


@dataclass(frozen=True, eq=False)
class LayerSpectra:
    r"""Log radial power spectra of the feature maps of chosen layers, in an encoder or in the trained network itself.

    .. math:: c_{lk} = \ln\bigl(P_k(\hat h_l) + 10^{-6}\bigr), \qquad
        \hat h = (h - \bar h) / \mathrm{sd}(h) \text{ over the positions of each channel}

    with the radial power spectrum of the normalised maps h, averaged over channels; layers count alike. Convolutional
    maps (b, c, h, w) and tokens (b, n, c) that are a grid of the image's proportions. The network runs in evaluation
    mode, at full precision, unseen by probes and regularizers; its parameters get no gradient from here, only the
    estimate does, and their flags stay. Cost: a forward and a backward pass through the network to the image and a
    forward pass without gradient, two while the spread is learnt, each on a `fraction` of the batch.

    Source: the normalised decoder features of latent perceptual loss (arXiv 2411.04873), there compared pixel by pixel;
    the network's own features, frozen, after self-perceptual loss (arXiv 2401.00110).

    Args:
        layers: Which layers (see `select_outermost`), of the encoder or of the model that the penalty is attached to.
            A whole block of Stable Diffusion 3 or Flux returns the text's tokens first: name what sees the image's, as
            "transformer_blocks.*.ff".
        encoder: A network that takes images: an image encoder, or the decoder of the autoencoder where images are
            latents. None: the denoiser's own network, at noise level `level`, both images under the same noise.
        level: That noise level, in the units of sigma.
        fraction: Share of each batch that is looked at: every round(1 / fraction)-th example. With less than 1,
            micro-batches and ranks together look at other examples than one batch would.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> from lsdr.regularizers.attach import attach
        >>> from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator
        >>> model, encoder = nn.Conv2d(1, 1, 3, padding=1), nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh())
        >>> with attach(model, SpectralDiscriminator(features=(LayerSpectra("1", encoder),))) as penalty:
        ...     for clean in torch.randn(3, 32, 1, 8, 8):
        ...         denoised = model(clean + 0.5 * torch.randn_like(clean))
        ...         found = penalty(denoised=denoised, clean=clean, sigma=torch.tensor(0.5))
        ...     found.backward()
        >>> encoder[0].weight.grad is None, bool(model.weight.grad.norm() > 0)
        (True, True)
    """

    name: ClassVar[str] = "layers"
    components: ClassVar[tuple[Component, ...]] = (Component(1.0, power=True),)
    focal: ClassVar[int] = 0

    layers: Layers = "mid_block*"
    encoder: nn.Module | None = None
    level: float | int = 0.1
    fraction: float | int = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.level) and self.level > 0):
            raise ValueError(f"level must be a positive noise level, got {self.level}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {self.fraction}")

    @property
    def every(self) -> int:
        """One example in how many is looked at."""
        return round(1 / self.fraction)

    def select(self, model: nn.Module) -> dict[str, nn.Module]:
        """The layers, of the encoder or else of the model.

        Raises:
            ValueError: If none matches.
        """
        return select_outermost(model if self.encoder is None else self.encoder, self.layers)

    @contextmanager
    def running(self, model: nn.Module) -> Iterator[None]:
        """Make the network fit for extra passes, and their backward passes, until the context is left."""
        with (
            evaluating(model if self.encoder is None else self.encoder),
            unreported(),
            torch.compiler.set_stance("force_eager"),  # compiled code would not tell what its layers return
        ):
            yield

    def forward(
        self, images: Float[Tensor, "b c *dims"], share: Share, context: Mapping[str, Any]
    ) -> Callable[[Tensor], Any]:
        """What runs the network on every `every`-th of a call's images, the same way each time.

        Args:
            images: The call's images.
            share: Their place in the step, so that noise does not depend on how it is cut.
            context: What the penalty was called with.

        Raises:
            TypeError: If the context has no denoiser where one is needed.
        """
        if self.encoder is not None:
            encoder = self.encoder
            weight = next(encoder.parameters(), images)
            return lambda x: encoder(x.to(weight.dtype))
        denoiser, generator = context.get("denoiser"), context.get("generator")
        if not callable(denoiser):
            raise TypeError(
                "LayerSpectra without an encoder looks into the denoiser's network and needs denoiser=; call "
                "penalty(denoiser=denoiser, denoised=denoised, clean=clean, sigma=sigma, conditioning=labels)"
            )

        def sample(count: int, **where: Any) -> Tensor:
            return torch.randn((count, *images.shape[1:]), dtype=images.dtype, **where)

        noise = self.level * share.draw(sample, generator, images.device)[:: self.every]
        sigma = noise.new_full((len(noise),), float(self.level))
        conditioning = chosen_examples(context.get("conditioning"), len(images), slice(None, None, self.every))
        return lambda x: denoiser(x + noise, sigma, conditioning)

    def coordinates(
        self,
        images: Float[Tensor, "b c *dims"],
        layers: Mapping[str, nn.Module],
        forward: Callable[[Tensor], Any],
    ) -> Coordinates:
        """The rings of every layer, from which gradients flow to the images.

        Args:
            images: Images, clean or estimates.
            layers: What `select` gave.
            forward: Runs the network on images.

        Raises:
            RuntimeError: If a layer was not run.
            ValueError: If its output has no positions.
        """
        outputs: dict[str, Tensor] = {}

        def receive(name: str, module: nn.Module, output: Tensor) -> None:
            outputs[name] = output

        with capture(next(iter(layers.values())), layers, receive):
            forward(images)
        missing = [name for name in layers if name not in outputs]
        if missing:
            raise RuntimeError(f"the layers {missing} were not run by the network; select layers that its forward uses")
        values, weights = [], []
        for name, module in layers.items():
            power = radial_power_spectrum(_normalised(_maps(name, module, outputs[name], images)), corners=True).power
            found = (power[:, 1:] + _FLOOR).log()
            values.append(found.to(images.dtype))
            weights.append(found.new_full((found.shape[1],), 1 / found.shape[1]))
        return Coordinates(torch.cat(values, 1).unsqueeze(-1), torch.cat(weights).to(images.dtype))


def _normalised(maps: Float[Tensor, "b c *dims"]) -> Float[Tensor, "b c *dims"]:
    """Every channel with mean 0 and, but for dead ones, variance 1 over its positions."""
    maps = maps.float() if maps.dtype.itemsize < 4 else maps
    flat = maps.flatten(2)
    flat = flat - flat.mean(2, keepdim=True)
    variance = flat.square().mean(2, keepdim=True)
    floor = _FLOOR * variance.mean(1, keepdim=True) + torch.finfo(flat.dtype).tiny
    return (flat * (variance + floor).rsqrt()).view_as(maps)


def _maps(name: str, module: nn.Module, output: Tensor, images: Tensor) -> Float[Tensor, "b c *dims"]:
    """A layer's output as maps over positions.

    Raises:
        ValueError: If it has none.
    """
    count, dims = len(images), tuple(images.shape[2:])
    tokens = output.ndim == 3 and (len(dims) > 1 or isinstance(module, _CHANNELS_LAST))
    grid = _grid(output.shape[1], dims) if tokens else None
    if (
        len(output) != count
        or (grid is None if tokens else output.ndim != images.ndim)
        or not output.dtype.is_floating_point
    ):
        raise ValueError(
            f"layer {name!r} returned shape {tuple(output.shape)} for images of shape {tuple(images.shape)}: expected "
            f"maps ({count}, channels, ...) of {len(dims)} dimensions, or tokens ({count}, positions, channels) in a "
            "grid of the image's proportions; select a layer whose output has positions"
        )
    return output if grid is None else output.mT.unflatten(2, grid)


def _grid(tokens: int, dims: tuple[int, ...]) -> tuple[int, ...] | None:
    """How many tokens lie along each dimension of the image, if they are equal cubes of it."""
    side = (math.prod(dims) / tokens) ** (1 / len(dims))
    grid = tuple(round(size / side) for size in dims)
    return grid if math.prod(grid) == tokens else None
