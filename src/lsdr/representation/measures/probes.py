"""Probes with few labels and with many, several draws of each, for every kind of codes."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lsdr.representation.measures.config import RepresentationMeasureConfig
from lsdr.representation.measures.knn_probe import knn_probe
from lsdr.representation.measures.labels import draw_labels
from lsdr.representation.measures.linear_probe import LinearProbe, linear_probe
from lsdr.representation.measures.retrieval import mean_average_precision
from lsdr.training.order import stream_seed


def measure_probes(
    train: Mapping[str, Tensor],
    labels: Tensor,
    heldout: Mapping[str, Tensor],
    wanted: Tensor,
    config: RepresentationMeasureConfig,
) -> tuple[dict[str, dict[str, float]], dict[str, Any], dict[str, LinearProbe]]:
    """Linear and kNN probes at every share of the labels, and retrieval.

    All kinds of codes learn from the same draws of labels.

    Args:
        train: Finite codes of training examples by kind.
        labels: Their classes, two at least, none below 0.
        heldout: Codes of held-out examples by kind.
        wanted: Their classes, none below 0.
        config: Shares, draws, neighbours.

    Returns:
        Measures of each kind (means over draws); what probes.json holds; each kind's linear probe of all labels.
    """
    measures: dict[str, dict[str, float]] = {kind: {} for kind in train}
    full = {kind: linear_probe(codes, labels) for kind, codes in train.items()}
    drawn = [_draws(labels, share, config.draws) for share in config.shares]
    counts = [len(draws[0]) for draws in drawn]
    found: dict[str, Any] = {"chance": float((wanted == labels.mode().values).double().mean())}
    for family in ("linear", "knn"):
        accuracy: dict[str, list[list[float]]] = {}
        for kind, codes in train.items():
            accuracy[kind] = []
            for share, draws in zip(config.shares, drawn, strict=True):
                told = []
                for places in draws:
                    if family == "knn":
                        vote = knn_probe(
                            codes[places], labels[places], heldout[kind], config.neighbours, config.temperature
                        )
                        told.append(float((vote == wanted).double().mean()))
                    else:
                        probe = full[kind] if share == 1 else linear_probe(codes[places], labels[places])
                        told.append(probe.accuracy(heldout[kind], wanted))
                accuracy[kind].append(told)
                measures[kind][_name(family, share)] = sum(told) / len(told)
        found[family] = {"shares": list(config.shares), "labels": counts, "accuracy": accuracy}
    for kind, codes in train.items():
        measures[kind]["retrieval"] = mean_average_precision(heldout[kind], wanted, codes, labels)
        itself = knn_probe(codes, labels, codes, config.neighbours, config.temperature, itself=True)
        vote = knn_probe(codes, labels, heldout[kind], config.neighbours, config.temperature)
        gap = (itself == labels).double().mean() - (vote == wanted).double().mean()
        measures[kind]["knn_gap"] = float(gap)
    return measures, found, full


def accuracy_by_length(
    train: Mapping[str, Tensor], labels: Tensor, heldout: Mapping[str, Tensor], wanted: Tensor
) -> dict[str, Any]:
    """Accuracy of a linear probe, all labels, on the first 1, 2, 4, ... dimensions of codes.

    Args:
        train: Finite codes of training examples by what their dimensions are ordered by.
        labels: Their classes.
        heldout: Codes of held-out examples, likewise.
        wanted: Their classes.

    Returns:
        "dimensions", and "accuracy" by kind, None where there are not so many.
    """
    widest = max(codes.shape[1] for codes in train.values())
    lengths = [2**power for power in range(math.ceil(math.log2(widest)))] + [widest]
    accuracy = {
        kind: [
            linear_probe(codes[:, :length], labels).accuracy(heldout[kind][:, :length], wanted)
            if length <= codes.shape[1]
            else None
            for length in lengths
        ]
        for kind, codes in train.items()
    }
    return {"dimensions": lengths, "accuracy": accuracy}


def _draws(labels: Tensor, share: float, number: int) -> list[Tensor]:
    if share == 1:
        return [torch.arange(len(labels))]
    generator = torch.Generator().manual_seed(stream_seed(0, f"labels {share}"))
    return [draw_labels(labels, share, generator) for _ in range(number)]


def _name(family: str, share: float) -> str:
    stem = "linear_probe" if family == "linear" else "knn"
    return stem if share == 1 else f"{stem}.{100 * share:g}"
