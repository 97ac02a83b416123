"""Networks with nothing wrong: real architectures at their start, and small ones trained here until they work.

Used by findings_calibration.py to see how often `lsdr inspect` finds something in them. Everything is made from
embedded data (scikit-learn's digits and the descriptions of its data sets), so that it can be repeated anywhere.
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import cache

import diffusers
import torch
import transformers
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F

State = dict[str, Tensor]

WIDTH = 64


def random_networks() -> dict[str, Callable[[], nn.Module]]:
    """Published architectures, smaller, with their own initialisation."""
    unet = {"norm_num_groups": 8, "block_out_channels": (32, 64, 64), "layers_per_block": 1}
    crossed = {
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
    }
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    clip = transformers.CLIPTextConfig(**text, vocab_size=200, bos_token_id=0, eos_token_id=1)
    bert = transformers.BertConfig(**text, vocab_size=200)
    vit = transformers.ViTConfig(**text, image_size=32, patch_size=4)
    gpt = transformers.GPT2Config(
        n_embd=64, n_layer=4, n_head=4, vocab_size=200, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    llama = transformers.LlamaConfig(**text, vocab_size=200, num_key_value_heads=2)
    t5 = transformers.T5Config(d_model=64, d_ff=128, num_layers=3, num_heads=4, d_kv=16, vocab_size=200)
    resnet = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64], depths=[2, 2, 2], layer_type="basic"
    )
    return {
        "UNet2DModel": lambda: diffusers.UNet2DModel(
            sample_size=16, **unet, down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        ),
        "UNet2DConditionModel": lambda: diffusers.UNet2DConditionModel(sample_size=16, **unet, **crossed),
        "AutoencoderKL": lambda: diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, **unet
        ),
        "DiTTransformer2DModel": lambda: diffusers.DiTTransformer2DModel(
            num_attention_heads=4, attention_head_dim=16, num_layers=4, sample_size=8, num_embeds_ada_norm=50
        ),
        "SD3Transformer2DModel": lambda: diffusers.SD3Transformer2DModel(
            sample_size=8, num_layers=4, attention_head_dim=16, num_attention_heads=4, joint_attention_dim=32,
            caption_projection_dim=64, pooled_projection_dim=32, pos_embed_max_size=8,
        ),
        "CLIPTextModel": lambda: transformers.CLIPTextModel(clip),
        "BertModel": lambda: transformers.BertModel(bert),
        "ViTModel": lambda: transformers.ViTModel(vit),
        "GPT2Model": lambda: transformers.GPT2Model(gpt),
        "LlamaModel": lambda: transformers.LlamaModel(llama),
        "T5EncoderModel": lambda: transformers.T5EncoderModel(t5),
        "ResNetModel": lambda: transformers.ResNetModel(resnet),
    }  # fmt: skip


class ResidualMLP(nn.Module):
    """Eight residual blocks on flattened images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(64, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))
            for _ in range(8)
        )
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        """What the network says."""
        x = self.stem(images.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def plain_mlp() -> nn.Module:
    """Seven layers, no normalisation and no residuals."""
    sizes = [64, *[96] * 6]
    layers = [each for a, b in zip(sizes, sizes[1:]) for each in (nn.Linear(a, b), nn.ReLU())]  # noqa: B905, RUF007
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(96, 10))


def convolutional() -> nn.Module:
    """Seven convolutions with batch normalisation."""
    widths = [1, 16, 16, 32, 32, 48, 48, 64]
    layers: list[nn.Module] = []
    for place, (a, b) in enumerate(zip(widths, widths[1:])):  # noqa: B905, RUF007
        layers += [nn.Conv2d(a, b, 3, stride=1 + (place in (2, 4)), padding=1), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class SmallViT(nn.Module):
    """transformers' ViT with a head."""

    config_of = "model"

    def __init__(self) -> None:
        super().__init__()
        config = transformers.ViTConfig(
            hidden_size=48, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4, image_size=8,
            patch_size=2, num_channels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.model = transformers.ViTModel(config, add_pooling_layer=False)
        self.head = nn.Linear(48, 10)

    def forward(self, images: Tensor) -> Tensor:
        """What the network says."""
        return self.head(self.model(images).last_hidden_state[:, 0])


class SmallGPT(nn.Module):
    """transformers' GPT-2 on characters."""

    config_of = "model"

    def __init__(self) -> None:
        super().__init__()
        config = transformers.GPT2Config(
            n_embd=48, n_layer=6, n_head=4, vocab_size=128, n_positions=32, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        self.model = transformers.GPT2LMHeadModel(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """What the network says."""
        return self.model(tokens).logits


class SmallUNet(nn.Module):
    """diffusers' U-Net, predicting the noise on digits."""

    config_of = "model"

    def __init__(self) -> None:
        super().__init__()
        self.model = diffusers.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(16, 32, 32),
            norm_num_groups=8, attention_head_dim=8, down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        """What the network says."""
        return self.model(noisy, time).sample


class SmallVAE(nn.Module):
    """Convolutional autoencoder, transposed convolutions included."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(32, 32, 3, 1, 1), nn.SiLU(), nn.Conv2d(32, 32, 4, 2, 1), nn.SiLU(), nn.Flatten(),
            nn.Linear(128, 32),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(16, 128), nn.Unflatten(1, (32, 2, 2)), nn.SiLU(), nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(32, 32, 3, 1, 1), nn.SiLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(16, 16, 3, 1, 1), nn.SiLU(), nn.Conv2d(16, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the network says."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(code), 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()


TRAINED: dict[str, Callable[[], nn.Module]] = {
    "residual MLP": ResidualMLP,
    "plain MLP": plain_mlp,
    "convolutional": convolutional,
    "ViT": SmallViT,
    "GPT-2": SmallGPT,
    "U-Net": SmallUNet,
    "VAE": SmallVAE,
}

# Optimiser and its settings: the usual ones, one drawn by the seed.
OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01),
    "Adam, large steps": lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    "AdamW, strong decay": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.3),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=5e-4),
}


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images in [-1, 1], shape (1797, 1, 8, 8), and what they show."""
    found = datasets.load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    return images, torch.tensor(found.target)


@cache
def text() -> Tensor:
    """Characters of the descriptions of scikit-learn's data sets."""
    loaders = (datasets.load_digits, datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer)
    return torch.tensor([min(ord(each), 127) for loader in loaders for each in loader().DESCR])


def loss_of(name: str, model: nn.Module, generator: torch.Generator, classes: range) -> Tensor:
    """The loss on a batch, of the kind of training that suits the network; `classes` are the digits taken part in."""
    if name == "GPT-2":
        characters = text()
        half = len(characters) // 2  # the first half of the text, or the second
        start = torch.randint(0, half - 25, (16,), generator=generator) + (half if 0 not in classes else 0)
        tokens = torch.stack([characters[place : place + 25] for place in start.tolist()])
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    images, labels = digits()
    chosen = ((labels >= classes.start) & (labels < classes.stop)).nonzero().flatten()
    batch = chosen[torch.randint(0, len(chosen), (32,), generator=generator)]
    images, labels = images[batch], labels[batch]
    if name == "U-Net":
        time = torch.randint(0, 1000, (len(images),), generator=generator)
        signal = torch.cos(time / 1000 * math.pi / 2)[:, None, None, None]
        noise = torch.randn(images.shape, generator=generator)
        return F.mse_loss(model(signal * images + (1 - signal**2).sqrt() * noise, time), noise)
    if name == "VAE":
        decoded, divergence = model(images)
        return (decoded - images).square().sum((1, 2, 3)).mean() + 0.1 * divergence
    return F.cross_entropy(model(images), labels)


def train(
    name: str,
    model: nn.Module,
    seed: int,
    steps: int,
    classes: range = range(10),
    scale: float = 1.0,
    must_learn: bool = True,
) -> State:
    """Train in place and return the moving average of the weights.

    Args:
        name: Of `TRAINED`.
        model: The network.
        seed: Of batches and noise; it also draws the optimiser.
        steps: How many.
        classes: Digits that take part.
        scale: Of the learning rate, with a linear warm-up and decay.
        must_learn: Raise if the loss did not fall.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    transformer = name in ("ViT", "GPT-2")
    choices = list(OPTIMIZERS)[: 3 if transformer or name == "plain MLP" else 4]
    optimizer = OPTIMIZERS[choices[seed % len(choices)]](p for p in model.parameters() if p.requires_grad)
    for group in optimizer.param_groups:
        group["lr"] *= scale * (0.5 if name == "VAE" else 1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 30, 1.0) * max(1 - step / steps, 0.02)
    )
    average = copy.deepcopy(model.state_dict())
    losses = []
    for step in range(steps):
        loss = loss_of(name, model.train(), generator, classes)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                average[key].lerp_(value, 1 - min(0.99, (1 + step) / (10 + step)))
            else:
                average[key].copy_(value)
    if must_learn and not sum(losses[-20:]) < 0.9 * sum(losses[:20]):
        raise RuntimeError(f"{name}, seed {seed}: the loss did not fall ({losses[0]:.3g} to {losses[-1]:.3g})")
    return average


class LoRA(nn.Module):
    """A linear layer with an adapter of low rank, the layer frozen."""

    def __init__(self, layer: nn.Linear, rank: int):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """What the network says."""
        return self.layer(x) + x @ self.down.T @ self.up.T


def train_lora(name: str, model: nn.Module, seed: int, steps: int, rank: int = 4) -> State:
    """Adapt every linear layer but the last to the other digits; returns the adapters as peft names them."""
    model.requires_grad_(False)
    torch.manual_seed(seed)
    targets = [
        key for key, module in model.named_modules() if type(module) is nn.Linear and min(module.weight.shape) > 10
    ]
    for key in targets:
        parent, _, leaf = key.rpartition(".")
        setattr(model.get_submodule(parent), leaf, LoRA(model.get_submodule(key), rank))  # type: ignore[arg-type]
    train(name, model, 3 * seed, steps, range(5, 10), must_learn=False)
    state: State = {}
    for key in targets:
        adapter = model.get_submodule(key)
        state[f"base_model.model.{key}.lora_A.weight"] = adapter.down.detach().clone()
        state[f"base_model.model.{key}.lora_B.weight"] = adapter.up.detach().clone()
    return state
