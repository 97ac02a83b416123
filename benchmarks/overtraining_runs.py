"""Short LoRA fine-tunes of a small text-conditioned network, some of which overtrain: for overtraining_false_positives.

The network is two of diffusers' transformer blocks, with self and cross attention as in the UNets of Stable Diffusion,
that has learned the digits 0 to 4 (scikit-learn's, 8 x 8 pixels, 16 patches) with two tokens for the class. It is
fine-tuned by LoRA on the digits 5 to 9: on many or few images, at learning rates over a factor of thirty. Whether a run
overtrains is told by its loss on 400 images that nobody else sees.
"""

import copy
import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from peft import LoraConfig, inject_adapter_in_model
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lsdr.monitor.measured import flat_values
from lsdr.monitor.monitor import Monitor
from lsdr.probes.adapters import AdapterProbe
from lsdr.probes.attention import AttentionProbe

BASE_STEPS, BATCH, EVERY = 1500, 32, 25
TOKENS, CONTEXT, WIDTH = 2, 16, 32
WATCHED = 16
"""Images of the small held-out set that the warning sees."""


@dataclass(frozen=True)
class Kind:
    """How a run is trained."""

    images: int
    rate: float
    rank: int
    steps: int


@dataclass
class Run:
    """What a run showed.

    Attributes:
        kind: How it was trained.
        seed: Of its images, its adapter, its noise.
        turns: Steps at which it was measured.
        values: What the monitor and the small held-out set gave, at each.
        truth: Loss on the images that nobody else sees, at each; the first is the base's.
    """

    kind: dict[str, Any]
    seed: int
    turns: list[int]
    values: list[dict[str, float]]
    truth: list[float]


class Denoiser(nn.Module):
    """Predicts the noise in images of 8 x 8 from 16 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_in, self.proj_out = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 4)
        self.position = nn.Parameter(torch.randn(16, WIDTH))
        self.time = nn.Sequential(nn.Linear(16, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(WIDTH, 2, WIDTH // 2, cross_attention_dim=CONTEXT) for _ in range(2)
        )

    def forward(self, noisy: Tensor, angle: Tensor, context: Tensor) -> Tensor:
        """The noise; `angle` from 0 (none) to pi / 2 (nothing else)."""
        patches = nn.functional.pixel_unshuffle(noisy, 2).flatten(2).mT
        waves = angle[:, None] * torch.arange(1, 9)
        hidden = self.proj_in(patches) + self.position + self.time(torch.cat([waves.sin(), waves.cos()], 1))[:, None]
        for block in self.transformer_blocks:
            hidden = block(hidden, encoder_hidden_states=context)
        return nn.functional.pixel_shuffle(self.proj_out(hidden).mT.unflatten(2, (4, 4)), 2)


def draw_kind(seed: int) -> Kind:
    """A way to train, drawn evenly."""
    random = torch.Generator().manual_seed(seed)

    def pick(*choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=random))]

    rate = 10 ** (-3.5 + 1.5 * float(torch.rand((), generator=random)))
    return Kind(pick(4, 8, 16, 64, 400), rate, pick(2, 4, 8), 300)


def fine_tune(seed: int) -> Run:
    """One fine-tune, measured every `EVERY` steps."""
    kind = draw_kind(seed)
    images, classes = _digits(first=False)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    hidden, watched, rest = order[:400], order[400 : 400 + WATCHED], order[400 + WATCHED :][: kind.images]
    model, table = copy.deepcopy(_base(seed % 3))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        targets = ["to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"]
        inject_adapter_in_model(LoraConfig(r=kind.rank, lora_alpha=kind.rank, target_modules=targets), model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=kind.rate, weight_decay=0.01)
        monitor = Monitor(model, [AdapterProbe(), AttentionProbe()], every=EVERY, budget=None)
        run = Run(asdict(kind), seed, [], [], [])
        for step in range(kind.steps + 1):
            if step % EVERY == 0:
                run.turns.append(step)
                run.truth.append(_loss(model, table, images[hidden], classes[hidden], 0))
            with monitor.at(step):
                chosen = rest[torch.randint(len(rest), (BATCH,))]
                noise, times = torch.randn(BATCH, 1, 8, 8), _times(torch.rand(BATCH))
                loss = _error(model, table, images[chosen], classes[chosen], noise, times).mean()
                loss.backward()
            if step % EVERY == 0:
                held_out = _loss(model, table, images[watched], classes[watched], 1)
                run.values.append(flat_values({**monitor.values, "held_out": {"loss": held_out}}))
            optimizer.step()
            optimizer.zero_grad()
    return run


@cache
def _digits(first: bool) -> tuple[Tensor, Tensor]:
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 8 - 1
    classes = torch.tensor(bunch.target)
    chosen = (classes < 5) == first
    return images[chosen], classes[chosen]


@cache
def _base(seed: int) -> tuple[nn.Module, Tensor]:
    """The network trained on the first five digits, and the tokens of all ten classes."""
    with torch.random.fork_rng([]):
        torch.manual_seed(10_000 + seed)
        model = Denoiser()
        table = torch.randn(10, TOKENS, CONTEXT)
        images, classes = _digits(first=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        for step in range(BASE_STEPS):
            optimizer.param_groups[0]["lr"] = 2e-3 * math.cos(math.pi / 2 * step / BASE_STEPS)
            chosen = torch.randint(len(images), (BATCH,))
            noise, times = torch.randn(BATCH, 1, 8, 8), _times(torch.rand(BATCH))
            _error(model, table, images[chosen], classes[chosen], noise, times).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.requires_grad_(False), table


def _times(uniform: Tensor) -> Tensor:
    """Angles from uniform numbers: neither end, where there is nothing to learn."""
    return 0.05 + 1.45 * uniform


def _error(model: nn.Module, table: Tensor, images: Tensor, classes: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    angle = times[:, None, None, None]
    noisy = angle.cos() * images + angle.sin() * noise
    return (model(noisy, times, table[classes]) - noise).square().flatten(1).mean(1)


@torch.no_grad()
def _loss(model: nn.Module, table: Tensor, images: Tensor, classes: Tensor, seed: int) -> float:
    """Loss at fixed noise, the times evenly spread."""
    generator = torch.Generator().manual_seed(seed)
    repeats = max(1, 256 // len(images))
    images, classes = images.repeat(repeats, 1, 1, 1), classes.repeat(repeats)
    noise = torch.randn(images.shape, generator=generator)
    times = _times((torch.arange(len(images)) * 0.6180339887) % 1)
    return float(_error(model, table, images, classes, noise, times).mean())
