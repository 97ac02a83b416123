"""What a comparison of arms cannot ask: VICReg on digits with less data, noise and wrong labels, beside supervision.

Each seed draws initial weights, order, views and which rows are labelled; what it found is kept in study.json.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from representation_arms import VIEWS
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lsdr.moments import Moments
from lsdr.representation.build import build_encoder, build_task, load
from lsdr.representation.codes import encode
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.data.representation_data import RepresentationData, examples
from lsdr.representation.encoder import Encoder
from lsdr.representation.inputs import rows
from lsdr.representation.measures.knn_probe import knn_probe
from lsdr.representation.measures.labels import draw_labels
from lsdr.representation.measures.linear_probe import linear_probe
from lsdr.representation.measures.two_views import icc, view_components
from lsdr.representation.objective import objective_regularizers
from lsdr.representation.ordered_codes import OrderedCodes
from lsdr.representation.views.open import open_views
from lsdr.runs import read_json, write_json
from lsdr.training.stepper import build_accelerator, open_stepper

CPU = torch.device("cpu")
RATES = (1e-3, 3e-3, 1e-2)
TUNING_SEED = 100
NOISE = 0.3
DIMENSIONS = 16
"""Dimensions that are looked at one by one."""


@dataclass(frozen=True)
class Split:
    """Inputs and labels in memory."""

    train: Mapping[str, Tensor]
    train_labels: Tensor
    heldout: Mapping[str, Tensor]
    heldout_labels: Tensor


def configured(seed: int, rate: float, steps: int, data: str = "digits", views: str = VIEWS) -> RepresentationConfig:
    """The baseline as the comparisons run it."""
    plain = RepresentationConfig(data=data, views=views, holdout=0.3)
    training = replace(plain.training, steps=steps, batch_size=64, lr=rate, seed=seed, trackers=())
    return replace(plain, training=training)


def split_of(data: RepresentationData) -> Split:
    """All rows of both parts."""
    everything = 10**9
    train, train_labels, _ = examples(data.train, data.fields, everything, CPU)
    heldout, heldout_labels, _ = examples(data.heldout, data.fields, everything, CPU)
    assert train_labels is not None
    assert heldout_labels is not None
    return Split(train, train_labels, heldout, heldout_labels)


class Rows:
    """Some rows of a part, changed or not, as a data set of raw batches."""

    def __init__(self, data: RepresentationData, kept: Tensor, noise: float = 0.0) -> None:
        self._part: Any = data.train
        self._kept, self._noise, self._largest = kept.tolist(), noise, data.fields.largest

    def __len__(self) -> int:
        return len(self._kept)

    def __getitems__(self, places: list[int]) -> dict[str, Tensor]:
        kept = [self._kept[place] for place in places]
        batch = dict(self._part.__getitems__(kept))
        if self._noise:
            image = batch["image"].float() / self._largest
            batch["image"] = (noisy(image, kept, self._noise) * self._largest).to(batch["image"].dtype)
        return batch


def noisy(image: Tensor, numbers: list[int], noise: float) -> Tensor:
    """The image with Gaussian noise, always the same of a row."""
    drawn = [torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(number)) for number in numbers]
    return (image + noise * torch.stack(drawn)).clamp(0, 1)


def train(config: RepresentationConfig, data: RepresentationData, part: Rows) -> Encoder:
    """An encoder, trained without labels by the loop's own steps; its averaged weights."""
    training = config.training
    torch.manual_seed(training.seed)
    task = build_task(config, data, CPU)
    order = torch.Generator().manual_seed(training.seed)
    with open_stepper(task, training, build_accelerator(training), objective_regularizers(config)) as stepper:
        for step in range(training.steps):
            batch = part.__getitems__(torch.randint(len(part), (training.batch_size,), generator=order).tolist())
            stepper.update(step, stepper.gradient(step, batch))
        averaged = stepper.average.model
    assert isinstance(averaged, Encoder)
    return averaged


def supervise(
    config: RepresentationConfig, data: RepresentationData, inputs: Mapping[str, Tensor], labels: Tensor, seconds: float
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """The same network and views, trained with labels: for the steps of `config`, or for seconds if that is less.

    Returns:
        What tells the class of inputs.
    """
    training = config.training
    torch.manual_seed(training.seed)
    encoder = build_encoder(config, data.fields)
    view = open_views(config.views, data)
    head = nn.Linear(encoder.width, int(labels.max()) + 1)
    parameters = [*encoder.backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=training.lr, betas=training.betas, weight_decay=training.weight_decay)
    generator = torch.Generator().manual_seed(training.seed)
    start, share = time.process_time(), 0.0
    step = 0
    while share < 1:
        # As the other: two views of each of a batch's rows, the rate warmed up and then along half a cosine.
        drawn = torch.randint(len(labels), (training.batch_size,), generator=generator).repeat(2)
        batch = rows(inputs, drawn)
        batch = view(batch, view.draws(len(drawn), generator))
        loss = cross_entropy(head(encoder.features(batch)), labels[drawn])
        for group in optimizer.param_groups:
            group["lr"] = training.lr * min(1, (step + 1) / training.warmup) * (1 + math.cos(math.pi * share)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        share = max((time.process_time() - start) / seconds, 0 if math.isfinite(seconds) else step / training.steps)
    return lambda given: torch.nn.functional.linear(encode(encoder, given), head.weight, head.bias).argmax(1)


def accuracy(train_codes: Tensor, labels: Tensor, codes: Tensor, truth: Tensor) -> float:
    """Of a linear probe."""
    return linear_probe(train_codes, labels).accuracy(codes, truth)


def one_seed(data: RepresentationData, seed: int, rate: float, supervised_rate: float, steps: int) -> dict[str, float]:
    """Everything of one seed."""
    config, parts = configured(seed, rate, steps), split_of(data)
    every = torch.arange(len(parts.train_labels))
    generator = torch.Generator().manual_seed(seed)
    labelled = {100: every, 10: draw_labels(parts.train_labels, 0.1, generator)}
    labelled[1] = draw_labels(parts.train_labels, 0.01, generator)
    found: dict[str, float] = {}
    start = time.process_time()
    encoder = train(config, data, Rows(data, every))
    codes = encode(encoder, parts.train), encode(encoder, parts.heldout)
    found["codes.100"] = accuracy(codes[0], parts.train_labels, codes[1], parts.heldout_labels)
    found["seconds"] = time.process_time() - start
    raw = parts.train["image"].flatten(1), parts.heldout["image"].flatten(1)
    for share, kept in labelled.items():
        own = parts.train_labels[kept]
        for name, (learned, asked) in {"codes": codes, "raw": raw}.items():
            found[f"{name}.{share}"] = accuracy(learned[kept], own, asked, parts.heldout_labels)
        with_labels = replace(config, training=replace(config.training, lr=supervised_rate))
        tell = supervise(with_labels, data, rows(parts.train, kept), own, math.inf)
        found[f"supervised.{share}"] = _share(tell(parts.heldout), parts.heldout_labels)
    tell = supervise(with_labels, data, parts.train, parts.train_labels, found["seconds"])
    found["supervised.seconds"] = _share(tell(parts.heldout), parts.heldout_labels)
    found |= _less_data(data, parts, config, labelled[10], generator) | {"rows.all": found["codes.10"]}
    found |= _wrong_labels(parts, {"codes": codes, "raw": raw}, generator)
    found |= _noise(data, parts, config, encoder)
    return found | _directions(data, parts, config, encoder, codes, raw)


def _share(told: Tensor, truth: Tensor) -> float:
    return float((told == truth).double().mean())


def _less_data(
    data: RepresentationData, parts: Split, config: RepresentationConfig, kept: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Encoders of fewer rows, all with the same labels."""
    found = {}
    permuted = torch.randperm(len(parts.train_labels), generator=generator)
    for name, share in {"tenth": 0.1, "third": 1 / 3}.items():
        encoder = train(config, data, Rows(data, permuted[: round(share * len(permuted))]))
        codes = encode(encoder, rows(parts.train, kept)), encode(encoder, parts.heldout)
        found[f"rows.{name}"] = accuracy(codes[0], parts.train_labels[kept], codes[1], parts.heldout_labels)
    return found


def _wrong_labels(
    parts: Split, codes: Mapping[str, tuple[Tensor, Tensor]], generator: torch.Generator
) -> dict[str, float]:
    """Probes of labels some of which are wrong: another class, drawn evenly."""
    found, truth = {}, parts.train_labels
    count = int(truth.max()) + 1
    for share in (20, 40):
        wrong = torch.rand(len(truth), generator=generator) < share / 100
        other = (truth + torch.randint(1, count, truth.shape, generator=generator)) % count
        labels = torch.where(wrong, other, truth)
        for name, (learned, asked) in codes.items():
            found[f"{name}.wrong{share}"] = accuracy(learned, labels, asked, parts.heldout_labels)
    return found


def _noise(data: RepresentationData, parts: Split, config: RepresentationConfig, clean: Encoder) -> dict[str, float]:
    """An encoder of noisy rows, on clean ones; and how much of both encoders' invariance was learned by heart."""
    every = list(range(len(parts.train_labels)))
    encoder = train(config, data, Rows(data, torch.tensor(every), NOISE))
    codes = encode(encoder, parts.train), encode(encoder, parts.heldout)
    train_noisy = {"image": noisy(parts.train["image"], every, NOISE)}
    heldout_numbers = [len(every) + place for place in range(len(parts.heldout_labels))]
    heldout_noisy = {"image": noisy(parts.heldout["image"], heldout_numbers, NOISE)}
    return {
        "noisy.100": accuracy(codes[0], parts.train_labels, codes[1], parts.heldout_labels),
        "noisy.gap": _gap(data, config, encoder, train_noisy, heldout_noisy),
        "codes.gap": _gap(data, config, clean, parts.train, parts.heldout),
    }


def _two_views(
    data: RepresentationData, config: RepresentationConfig, encoder: Encoder, inputs: Mapping[str, Tensor]
) -> Moments:
    view, generator = open_views(config.views, data), torch.Generator().manual_seed(config.training.seed)
    count = len(inputs["image"])
    a, b = (encode(encoder, view(inputs, view.draws(count, generator))).double() for _ in range(2))
    return Moments.of(a, b)


def _gap(
    data: RepresentationData,
    config: RepresentationConfig,
    encoder: Encoder,
    seen: Mapping[str, Tensor],
    unseen: Mapping[str, Tensor],
) -> float:
    return float.__sub__(*(icc(view_components(_two_views(data, config, encoder, each))) for each in (seen, unseen)))


def _directions(
    data: RepresentationData,
    parts: Split,
    config: RepresentationConfig,
    encoder: Encoder,
    codes: tuple[Tensor, Tensor],
    raw: tuple[Tensor, Tensor],
) -> dict[str, float]:
    """How well the best single dimension tells a class from the rest, and the nearest neighbour's class."""
    ordered = OrderedCodes.of(_two_views(data, config, encoder, parts.train))
    mean = raw[0].mean(0)
    axes = torch.linalg.svd(raw[0] - mean, full_matrices=False).Vh[:DIMENSIONS].T
    found = {}
    for name, (learned, asked) in {
        "ordered": (ordered(codes[0], DIMENSIONS), ordered(codes[1], DIMENSIONS)),
        "pca": ((raw[0] - mean) @ axes, (raw[1] - mean) @ axes),
    }.items():
        found[f"single.{name}"] = single_dimension(learned, parts.train_labels, asked, parts.heldout_labels)
    for name, (learned, asked) in {"codes": codes, "raw": raw}.items():
        told = knn_probe(learned, parts.train_labels, asked, k=1)
        found[f"neighbour.{name}"] = _share(told, parts.heldout_labels)
    return found


def single_dimension(codes: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> float:
    """Area under the curve of the dimension that told each class best in training, mean over classes."""
    areas = []
    for each in labels.unique():
        here = [float(roc_auc_score(labels == each, codes[:, place])) for place in range(codes.shape[1])]
        place = max(range(len(here)), key=lambda place: abs(here[place] - 0.5))
        area = float(roc_auc_score(truth == each, asked[:, place]))
        areas.append(area if here[place] > 0.5 else 1 - area)
    return sum(areas) / len(areas)


def tfidf() -> float:
    """Words counted and weighed, then logistic regression: on the rows, and of the labels, of `scipy-docs`."""
    data = load(RepresentationConfig(data="scipy-docs"))
    told: list[tuple[list[str], Tensor]] = []
    for part, count in ((data.train, 5000), (data.heldout, 1000)):  # as `lsdr compare representation` measures
        _, labels, index = examples(part, data.fields, count, CPU)
        assert labels is not None
        told.append(([data.show(int(each)) for each in index], labels))
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))
    return float(model.fit(*told[0]).score(*told[1]))


def best_supervised_rate(data: RepresentationData, steps: int) -> float:
    """The rate of training with all labels, chosen as the arms' rates are."""
    parts, scores = split_of(data), {}
    for rate in RATES:
        tell = supervise(configured(TUNING_SEED, rate, steps), data, parts.train, parts.train_labels, math.inf)
        scores[rate] = _share(tell(parts.heldout), parts.heldout_labels)
    return max(scores, key=scores.__getitem__)


def run(out: Path, *, seeds: int, rate: float, quick: bool) -> None:
    """Do the seeds that are not done yet."""
    path, steps = out / "study.json", 3 if quick else 400
    found: dict[str, Any] = read_json(path) if path.exists() else {"seeds": {}}
    data = load(configured(0, rate, steps))
    if "supervised_rate" not in found:
        found |= {"rate": rate, "steps": steps, "supervised_rate": best_supervised_rate(data, steps), "tfidf": tfidf()}
        write_json(path, found)
    for seed in range(seeds):
        if str(seed) not in found["seeds"]:
            values = one_seed(data, seed, rate, found["supervised_rate"], steps) | {"tfidf.100": found["tfidf"]}
            found["seeds"][str(seed)] = values
            write_json(path, found)
            print(f"study, seed {seed}: {values['seconds']:.1f} s for an encoder", flush=True)
