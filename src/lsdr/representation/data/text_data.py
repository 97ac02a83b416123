"""Texts in memory as data to learn from."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lsdr.data.problem import Problems
from lsdr.representation.data.parts import Integers, Part, split_rows
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.data.tables import Labels
from lsdr.representation.data.texts import encode_texts, read_tokenizer, train_tokenizer

_SHOWN = 200


def text_data(
    texts: Sequence[str],
    title: str,
    *,
    name: Callable[[int], str],
    labels: Labels | None = None,
    groups: Integers | None = None,
    problems: Problems | None = None,
    limit: int | None = None,
    holdout: float | int = 0.1,
    length: int = 64,
    vocabulary: int = 4096,
    tokenizer: str | Path | None = None,
    seed: int = 0,
) -> RepresentationData:
    """Texts in memory: see `lsdr.representation.data.open.open_data`.

    Args:
        texts: All of them; those without a word are left out and counted.
        title: What to call them.
        name: What to call one of them.
        labels: Their classes.
        groups: As in `split_rows`.
        problems: What was found wrong so far.
        limit: Use only so many, spread evenly.
        holdout: As in `split_rows`.
        length: Tokens of an example.
        vocabulary: Tokens of a tokenizer that is trained here, on the training part.
        tokenizer: One from disk instead.
        seed: What decides which are held out.

    Raises:
        ValueError: If there is no text.
    """
    problems = Problems() if problems is None else problems
    kept = list[int]()
    for number, text in enumerate(texts):
        if text.strip():
            kept.append(number)
        else:
            problems.add("empty", name(number), "there is no text")
    if not kept:
        said = ", ".join(f"{each['count']} {each['kind']}" for each in problems.summary())
        raise ValueError(f"{title} holds no text{f' ({said})' if said else ''}")
    if limit is not None and limit < len(kept):
        kept = [kept[number * len(kept) // limit] for number in range(limit)]
    rows = np.array(kept)
    train, heldout = split_rows(len(rows), holdout, seed, None if groups is None else groups[rows])
    if tokenizer is None:
        fields = train_tokenizer((texts[int(each)] for each in rows[train]), vocabulary, length)
    else:
        fields = read_tokenizer(tokenizer, length)
    tokens = np.zeros((len(texts), length), dtype=np.int32)
    tokens[rows] = encode_texts([texts[each] for each in kept], fields)
    tensors = {"tokens": torch.from_numpy(tokens)}
    if labels is not None:
        tensors["label"] = torch.from_numpy(labels.numbers)
    return RepresentationData(
        modality="text",
        train=Part(tensors, torch.from_numpy(rows[train])),
        heldout=Part(tensors, torch.from_numpy(rows[heldout])),
        fields=fields,
        name=name,
        show=partial(show_text, texts),
        class_names=None if labels is None else labels.names,
        problems=problems.summary,
    )


def show_text(texts: Sequence[str], index: int) -> str:
    r"""The start of a text, in one line.

    Example:
        >>> show_text(["a  rose\nis"], 0)
        'a rose is'
    """
    return " ".join(texts[index][: 4 * _SHOWN].split())[:_SHOWN]
