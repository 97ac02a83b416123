"""Detection on planted scenes: digits in clutter, found by a linear head on frozen dense features.

A scene has 32x32 pixels: fragments of digits as clutter, and three whole digits, 8x8, which do not overlap. The encoder
learns without labels from windows of training scenes. The head is a linear classifier of the features of a place: which
digit has its middle here, or none. Raw features are the 8x8 pixels about every pixel, a sliding window. What is judged
is cells of 4x4 pixels, each with the best chance of the places in it. Digits of training scenes and of held-out scenes
are different ones.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from representation_arms import VIEWS
from representation_study import Rows, configured, train
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn.functional import max_pool2d, pad, unfold

from lsdr.representation.build import build_encoder, load
from lsdr.representation.dense_features import dense_features
from lsdr.representation.encoder import Encoder
from lsdr.representation.measures.linear_probe import linear_probe
from lsdr.runs import read_json, write_json

SIDE, DIGIT, WINDOW, PLANTED, CELLS = 32, 8, 16, 3, 8
NOTHING = 10
"""The label of a place where no digit is."""


def scenes(count: int, seed: int, *, heldout: bool) -> tuple[Tensor, Tensor]:
    """Draw scenes.

    Args:
        count: How many.
        seed: Which.
        heldout: Of digits that are in no training scene.

    Returns:
        Images (count, 1, 32, 32) in [0, 1], and the label of every pixel, (count, 32, 32): the digit whose middle it
        is, or `NOTHING`.
    """
    found, generator = load_digits(), np.random.default_rng([seed, heldout])
    half = len(found.images) // 2
    chosen = slice(half, None) if heldout else slice(half)
    digits, names = found.images[chosen] / 16, found.target[chosen]
    images = np.zeros((count, SIDE, SIDE))
    labels = np.full((count, SIDE, SIDE), NOTHING)
    for image, label in zip(images, labels, strict=True):
        for _ in range(24):
            fragment = digits[generator.integers(len(digits))]
            y, x = generator.integers(0, DIGIT - 4, 2)
            _add(image, fragment[y : y + 4, x : x + 4], generator.integers(0, SIDE - 3, 2))
        taken: list[NDArray[Any]] = []
        while len(taken) < PLANTED:
            place = generator.integers(0, SIDE - DIGIT + 1, 2)
            if all(np.abs(place - other).max() >= DIGIT for other in taken):
                taken.append(place)
                number = generator.integers(len(digits))
                image[place[0] : place[0] + DIGIT, place[1] : place[1] + DIGIT] = digits[number]
                label[tuple(place + DIGIT // 2)] = names[number]
    return torch.tensor(images, dtype=torch.float32)[:, None], torch.tensor(labels)


def _add(image: NDArray[Any], fragment: NDArray[Any], place: NDArray[Any]) -> None:
    window = image[place[0] : place[0] + 4, place[1] : place[1] + 4]
    np.maximum(window, fragment, out=window)


def patches(images: Tensor) -> Tensor:
    """Raw features: the 8x8 pixels about every pixel, (n, 64, 32, 32)."""
    before = DIGIT // 2
    return unfold(pad(images, (before, before - 1, before, before - 1)), DIGIT).unflatten(2, (SIDE, SIDE))


def coarse(labels: Tensor, side: int) -> Tensor:
    """Labels of fewer, larger places: the digit whose middle is in one, or `NOTHING`, which is the largest number."""
    return -max_pool2d(-labels[:, None].float(), labels.shape[-1] // side)[:, 0].long()


def head_precision(features: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor], seed: int) -> float:
    """Mean over digits of the average precision of a linear head on held-out scenes, cell by cell.

    The head learns from all places with a digit and ten times as many without, drawn.
    """
    side = features[0].shape[-1]
    learned, truth = features[0].movedim(1, -1).flatten(0, 2), coarse(labels[0], side).flatten()
    empty, planted = ((truth == NOTHING) == kind for kind in (True, False))
    drawn = torch.randperm(int(empty.sum()), generator=torch.Generator().manual_seed(seed))[: 10 * int(planted.sum())]
    kept = torch.cat([planted.nonzero().flatten(), empty.nonzero().flatten()[drawn]])
    probe = linear_probe(learned[kept], truth[kept], strength=0.1)
    logits = probe.logits(features[1].movedim(1, -1).flatten(0, 2)).unflatten(0, (-1, side, side))
    chances = max_pool2d(logits.softmax(-1).movedim(-1, 1), side // CELLS).movedim(1, -1).flatten(0, 2)
    asked = coarse(labels[1], CELLS).flatten()
    return float(np.mean([average_precision_score(asked == each, chances[:, each]) for each in range(NOTHING)]))


@torch.no_grad()
def dense(encoder: Encoder, images: Tensor) -> Tensor:
    """Features of every place."""
    return torch.cat([dense_features(encoder, each)["backbone"] for each in images.split(64)])


def run(out: Path, *, seeds: int, quick: bool) -> None:
    """Do the seeds that are not done yet."""
    path, count, steps = out / "detection.json", 20 if quick else 300, 3 if quick else 300
    found: dict[str, Any] = read_json(path) if path.exists() else {"steps": steps, "scenes": count, "seeds": {}}
    for seed in range(seeds):
        if str(seed) in found["seeds"]:
            continue
        images, labels = scenes(count, seed, heldout=False)
        asked, truth = scenes(count, seed, heldout=True)
        windows = (images.unfold(2, WINDOW, WINDOW // 2).unfold(3, WINDOW, WINDOW // 2)).reshape(-1, WINDOW, WINDOW)
        np.savez(out / "windows.npz", images=(windows * 255).round().to(torch.uint8).numpy())
        config = configured(seed, 1e-3, steps, data=str(out / "windows.npz"), views=VIEWS)
        data = load(config)
        torch.manual_seed(seed)
        untrained = build_encoder(config, data.fields)
        trained = train(config, data, Rows(data, torch.arange(len(data.train))))  # type: ignore[arg-type]
        features = {
            "codes": (dense(trained, images), dense(trained, asked)),
            "random": (dense(untrained, images), dense(untrained, asked)),
            "raw": (patches(images), patches(asked)),
        }
        values = {name: head_precision(each, (labels, truth), seed) for name, each in features.items()}
        found["seeds"][str(seed)] = values
        write_json(path, found)
        print(f"detection, seed {seed}: {values}", flush=True)
