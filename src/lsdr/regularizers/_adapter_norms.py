"""Norms of what adapters add to weights, of many layers with one synchronisation."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lsdr.linalg.exact import exact_singular_values
from lsdr.linalg.frobenius import frobenius
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import LinearOperator
from lsdr.regularizers._largest import largest_of_blocks

Norm = Literal["spectral", "frobenius"]


def delta_norms(deltas: Mapping[str, LinearOperator], norm: Norm) -> dict[str, float]:
    r"""The norms of operators, those of low rank from the Gram matrices of their factors.

    .. math:: \|s B A\|_F^2 = s^2 \operatorname{tr}(G_B G_A), \quad
        \sigma_{\max}(s B A)^2 = s^2 \lambda_{\max}(G_A^{1/2} G_B G_A^{1/2}), \quad G_B = B^\top B,\; G_A = A A^\top

    All r x r in float64: exact to 1e-16 times the square of how much larger :math:`\|B\| \|A\|` is than the norm.

    Returns:
        By name; NaN where a factor is not finite.
    """
    grams: dict[str, Tensor] = {}
    found: dict[str, float] = {}
    for name, delta in deltas.items():
        if isinstance(delta, LowRank):
            grams[name] = torch.stack([_gram(delta.up.mT), _gram(delta.down)])
        else:
            found[name] = _norm_of(delta, norm)
    # One transfer for all layers of a rank.
    by_rank: defaultdict[tuple[int, torch.device], list[str]] = defaultdict(list)
    for name, gram in grams.items():
        by_rank[gram.shape[-1], gram.device].append(name)
    for names in by_rank.values():
        sizes = _of_grams(torch.stack([grams[name] for name in names]).cpu(), norm)
        for name, size in zip(names, sizes.tolist(), strict=True):
            delta = deltas[name]
            assert isinstance(delta, LowRank)
            found[name] = abs(delta.scale) * size
    return {name: found[name] for name in deltas}


def matrix_norm(matrix: Float[Tensor, "m n"], norm: Norm) -> float:
    """The norm of a stored matrix."""
    if norm == "frobenius":
        return float(torch.linalg.vector_norm(matrix, dtype=torch.float64))
    return float(largest_of_blocks(matrix[None], tolerance=1e-6))


def _gram(rows: Float[Tensor, "r n"]) -> Float64[Tensor, "r r"]:
    with full_precision(rows.device):
        wide = (rows.cpu() if rows.device.type == "mps" else rows).double()
        return wide @ wide.mT


def _of_grams(grams: Float64[Tensor, "k 2 r r"], norm: Norm) -> Float64[Tensor, "k"]:
    of_up, of_down = grams.unbind(1)
    bad = ~grams.flatten(1).isfinite().all(1)
    of_up, of_down = (torch.where(bad[:, None, None], 0, each) for each in (of_up, of_down))
    if norm == "frobenius":
        squares = (of_up * of_down).sum((1, 2))
    elif not grams.shape[-1]:
        squares = of_up.new_zeros(len(grams))
    else:
        values, vectors = torch.linalg.eigh(of_down)
        root = vectors * values.clamp_min(0).sqrt()[:, None]  # G_A = root root'
        squares = torch.linalg.eigvalsh(root.mT @ of_up @ root)[:, -1]
    sizes: Tensor = torch.where(bad, math.nan, squares.clamp_min(0).sqrt())
    return sizes


def _norm_of(delta: LinearOperator, norm: Norm) -> float:
    """Of an operator that is no product of two thin matrices."""
    try:
        return frobenius(delta) if norm == "frobenius" else float(exact_singular_values(delta).values[0])
    except ValueError:  # not finite: for the training loop to notice
        return math.nan
