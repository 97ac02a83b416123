"""One step of the game: what is drawn, what the discriminator is shown, what each player loses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lsdr.gan.config import GanConfig
from lsdr.gan.consistency import consistency, shift_and_flip
from lsdr.gan.gradient_penalty import gradient_penalty
from lsdr.gan.latent_noise import latent_noise
from lsdr.gan.losses import LOSSES
from lsdr.gan.mode_seeking import mode_seeking
from lsdr.gan.players import Gan

Found = tuple[Tensor, dict[str, Any]]
"""The losses of a batch's examples, and what is to be recorded."""

# Each player's turn has draws of its own.
_DISCRIMINATOR, _GENERATOR = 0, 1


@dataclass(frozen=True)
class _Scene:
    """What is played with in a turn, in the players' coordinates."""

    real: Tensor
    """What the discriminator is shown of real examples."""
    fake: Tensor
    """What it is shown of generated ones."""
    latent: Tensor
    made: Tensor
    """What the generator made of its latent."""
    told: dict[str, Tensor]
    """What the discriminator is told besides: how noisy a pack is, and what it is a step back from."""


def draws(gan: Gan, config: GanConfig, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """All randomness of a step: for each example, and along dimension 1 for each player's turn.

    Args:
        gan: The players.
        config: What is played.
        count: Examples.
        generator: Source of randomness; the draws are on its device.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn((count, *shape), generator=generator, device=generator.device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=generator, device=generator.device)

    drawn = {"latent": normal(2, gan.step_dim)}
    if config.flip:
        drawn["flip"] = uniform()
    if config.adaptive:
        drawn["level"] = uniform(2)
    if config.discriminator_noise:
        drawn["real_noise"], drawn["fake_noise"] = normal(2, *gan.shape), normal(2, *gan.shape)
    if config.generator_noise == "latent":
        drawn["latent_noise"] = normal(2, gan.step_dim)
    if config.denoising:
        drawn["time"], drawn["diffusion"] = uniform(2), normal(2, 3, *gan.shape)
    if config.mode_seeking:
        drawn["other_latent"] = normal(gan.step_dim)
    if config.consistency:
        drawn["transformation"] = uniform(2, 3) if len(gan.shape) == 3 else normal(2, *gan.shape)
    if config.lazy > 1:  # one answer for all of the step's examples
        drawn["lot"] = torch.rand(1, generator=generator, device=generator.device).expand(count)
    return drawn


def discriminator_losses(gan: Gan, config: GanConfig, batch: Mapping[str, Tensor]) -> Found:
    r"""The discriminator's loss of each example.

    .. math:: \ell_D(D(x), D(G(z))) + \tfrac{\gamma_1}{2} \lVert \nabla_x D(x) \rVert^2 +
        \tfrac{\gamma_2}{2} \lVert \nabla_x D(G(z)) \rVert^2 + c \, (D(x) - D(T(x)))^2 + c \, (D(G(z)) - D(T(G(z))))^2

    The noise controller, if there is one, looks on. With packing, a pack's loss counts for each example in it.

    Args:
        gan: The players; the generator gets no gradient.
        config: What is played.
        batch: Examples ("image") with `draws`.

    Returns:
        Losses, and in "record" what is to be recorded.
    """
    with torch.no_grad():
        scene = _scene(gan, config, batch, _DISCRIMINATOR)
    loss = LOSSES[config.loss]
    # Before a step in micro-batches, regularizers may look at a pass without gradients.
    penalized = torch.is_grad_enabled() and (config.lazy == 1 or bool(batch["lot"][0] < 1 / config.lazy))
    gammas = config.gammas(points=len(gan.shape) == 1) if penalized else (0.0, 0.0)
    weights = dict(zip(("r1", "r2"), gammas, strict=True))
    (real, fake), penalties = _judged(gan, scene, weights)
    losses, record = loss.discriminator(real, fake), {"logits/real": real.mean(), "logits/fake": fake.mean()}
    for name, penalty in penalties.items():
        losses = losses + weights[name] / 2 * config.lazy * penalty
        record[name] = penalty.mean()
    if config.consistency:
        moved = replace(
            scene,
            real=_transformed(scene.real, config, batch["transformation"][:, 0]),
            fake=_transformed(scene.fake, config, batch["transformation"][:, 1]),
        )
        (moved_real, moved_fake), _ = _judged(gan, moved, {})
        change = consistency(real, moved_real) + consistency(fake, moved_fake)
        losses, record["consistency"] = losses + config.consistency * change, change.mean()
    # How well it knows the training examples; for a relativistic loss the sign of one output alone means nothing.
    record["logits/sign"] = (real - fake if loss.relativistic else real).sign().mean()
    if gan.noise is not None:
        record["noise/level"] = gan.noise.strength.clone()
        if config.noise_strength is None:
            # A pack's logit is that of each of its examples: the controller's pace is counted in examples.
            seen = [each.detach().repeat_interleave(gan.packing) for each in (real, fake)]
            gan.noise.observe(*seen[: 2 if loss.relativistic else 1])
            record["noise/signal"] = gan.noise.signal.clone()
    return losses.repeat_interleave(gan.packing), {"record": {name: each.detach() for name, each in record.items()}}


def generator_losses(gan: Gan, config: GanConfig, batch: Mapping[str, Tensor]) -> Found:
    r"""The generator's loss of each example; first the noise controller moves by what the discriminator's turn saw.

    .. math:: \ell_G(D(x), D(G(z))) + s \, \ell_{ms}(G(z), G(z'))

    with the mode-seeking loss of weight s.

    Args:
        gan: The players; the discriminator gets no gradient.
        config: What is played.
        batch: Examples ("image") with `draws`.

    Returns:
        Losses, and in "record" what is to be recorded.
    """
    if gan.noise is not None:
        gan.noise.adjust()  # the step's first micro-batch; the others find nothing to adjust by
    scene, loss = _scene(gan, config, batch, _GENERATOR), LOSSES[config.loss]
    real = gan.judge(scene.real, **scene.told) if loss.relativistic else None
    losses = loss.generator(real, gan.judge(scene.fake, **scene.told)).repeat_interleave(gan.packing)
    record: dict[str, Tensor] = {}
    if config.mode_seeking:
        other = batch["other_latent"]
        seeking = mode_seeking(
            scene.made, gan.generator(other, **(scene.told if config.denoising else {})), scene.latent, other
        )
        losses, record["mode_seeking"] = losses + config.mode_seeking * seeking, seeking.mean().detach()
    return losses, {"record": record}


def _scene(gan: Gan, config: GanConfig, batch: Mapping[str, Tensor], turn: int) -> _Scene:
    real, latent = gan.coordinates(batch["image"]), batch["latent"][:, turn]
    if config.flip:
        real = torch.where(batch["flip"].view(-1, 1, 1, 1) < 0.5, real.flip(-1), real)
    if gan.schedule is not None:
        step = (batch["time"][:, turn] * gan.schedule.steps).long() + 1
        first, second, third = batch["diffusion"][:, turn].unbind(1)
        before, after = gan.schedule.q_sample_pair(real, step, first, second)
        told = {"level": gan.schedule.level(step), "noisy": after}
        made = gan.generator(latent, **told)
        return _Scene(before, gan.schedule.posterior(made, after, step, third), latent, made, told)
    if gan.noise is None:
        made = gan.generator(latent)
        return _Scene(real, made, latent, made, {})
    level = gan.noise.levels_from(batch["level"][:, turn])
    if config.generator_noise == "latent":
        ratio = gan.noise.noise_to_signal(level)
        latent = latent_noise(latent, ratio / (1 + ratio.square()).sqrt(), noise=batch["latent_noise"][:, turn])
    made = gan.generator(latent)
    if not gan.noisy_discriminator:
        return _Scene(real, made, latent, made, {})
    of_packs = level[:: gan.packing]  # the discriminator is told one level a pack
    level = of_packs.repeat_interleave(gan.packing)
    noisy_real = gan.noise(real, level, noise=batch["real_noise"][:, turn])
    noisy_fake = gan.noise(made, level, noise=batch["fake_noise"][:, turn])
    return _Scene(noisy_real, noisy_fake, latent, made, {"level": of_packs})


def _judged(gan: Gan, scene: _Scene, weights: Mapping[str, float]) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    """The discriminator's outputs on real and on generated examples, and the gradient penalties that have a weight.

    One pass serves for both kinds, where no layer of the discriminator mixes examples: small networks are nearly twice
    as fast so.
    """
    wanted = [name for name, weight in weights.items() if weight]
    if gan.mixes_examples:
        shown = {"r1": scene.real, "r2": scene.fake}
        for name in wanted:
            shown[name].requires_grad_()
        judged = {name: gan.judge(each, **scene.told) for name, each in shown.items()}
        penalties = {name: _of_packs(gradient_penalty(judged[name], shown[name]), gan) for name in wanted}
        return (judged["r1"], judged["r2"]), penalties
    joint = torch.cat([scene.real, scene.fake]).requires_grad_(bool(wanted))
    outputs = gan.judge(joint, **{name: torch.cat([each, each]) for name, each in scene.told.items()})
    real, fake = outputs.chunk(2)
    if not wanted:
        return (real, fake), {}
    both = dict(zip(("r1", "r2"), _of_packs(gradient_penalty(outputs, joint), gan).chunk(2), strict=True))
    return (real, fake), {name: both[name] for name in wanted}


def _of_packs(penalties: Tensor, gan: Gan) -> Tensor:
    """The squared gradient norms of packs, from those of the examples in them."""
    return penalties.view(-1, gan.packing).sum(1)


def _transformed(shown: Tensor, config: GanConfig, drawn: Tensor) -> Tensor:
    """What should not change an example's judgement: images shifted and mirrored, points moved by the weakest noise."""
    if shown.ndim == 2:
        return shown + config.noise_smallest * drawn
    return shift_and_flip(shown, drawn, reach=min(4, shown.shape[-1] // 4))
