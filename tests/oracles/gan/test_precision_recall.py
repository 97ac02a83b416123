"""Precision, recall, density and coverage against their definitions, written out with scikit-learn's neighbours."""

import numpy as np
import pytest
import torch
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from lsdr.measures.precision_recall import precision_recall


def written_out(samples, data, k):
    def radii(points):
        # The first neighbour of a point is the point itself.
        return NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(points).kneighbors(points)[0][:, -1]

    between = pairwise_distances(data, samples)
    in_data = between < radii(data)[:, None]
    in_samples = between < radii(samples)[None, :]
    return [
        in_data.any(0).mean(),
        in_samples.any(1).mean(),
        in_data.sum(0).mean() / k,
        (between.min(1) < radii(data)).mean(),
    ]


@pytest.mark.parametrize("dimensions", [1, 3, 200])
@pytest.mark.parametrize("k", [1, 5])
def test_the_definitions(dimensions, k):
    rng = np.random.default_rng(dimensions)
    data = rng.normal(size=(310, dimensions))
    samples = rng.normal(size=(240, dimensions)) * 0.8 + 0.3
    found = precision_recall(torch.from_numpy(samples), torch.from_numpy(data), k=k, chunk=100)
    values = [float(getattr(found, name)) for name in ("precision", "recall", "density", "coverage")]
    assert values == pytest.approx(written_out(samples, data, k), abs=1e-12)
