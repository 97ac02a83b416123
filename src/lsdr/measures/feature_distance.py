"""FID and KID between samples and data in the features of any extractor."""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.probes.evaluating import evaluating

_SUBSET = 1000  # KID compares all pairs of a subset; arXiv 1801.01401 uses 1000 too, in 100 subsets


@dataclass(frozen=True)
class FeatureDistance:
    """Distances between two sets of images in feature space."""

    fid: Float[Tensor, ""]
    kid: Float[Tensor, ""]


@torch.no_grad()
def feature_distance(
    samples: Float[Tensor, "n c h w"],
    data: Float[Tensor, "m _ _ _"],
    extractor: nn.Module,
    *,
    batch: int = 256,
    subsets: int = 20,
    generator: torch.Generator | None = None,
) -> FeatureDistance:
    r"""Fréchet and kernel distance between the features of samples and of data.

    .. math::
        \mathrm{FID} = \|\mu - \nu\|^2 + \mathrm{tr}(\Sigma + \Gamma - 2 (\Sigma\Gamma)^{1/2}), \qquad
        \mathrm{KID} = \mathrm{MMD}^2 \ \text{with}\ k(a, b) = (a^\top b / d + 1)^3

    FID is at least 0 up to rounding and biased upwards, by more the fewer the images: compare it at equal counts only.
    KID is unbiased, about 0 for equal distributions and then as often negative; it is averaged over `subsets` random
    subsets of 1000 images, or as many as the smaller set has. Both depend on the extractor: with one trained on the
    data (`train_feature_extractor`) they compare the methods of one experiment, no published number. Both come from
    torchmetrics from features in float64. Cost: one pass of the extractor, O((n + m) d^2 + d^3) and
    O(subsets * min(n, m, 1000)^2 d).

    Source: FID, arXiv 1706.08500; KID, arXiv 1801.01401, eq. (4).

    Args:
        samples: Generated images, at least two.
        data: Real images, at least two; sizes may differ if the extractor copes.
        extractor: Maps images, scaled as it expects them, to (n, d) features.
        batch: Images per call of the extractor.
        subsets: Random subsets over which KID is averaged; one is used where it holds every image of both sets.
        generator: Source of the subsets.

    Returns:
        FID and KID.

    Raises:
        ValueError: If there are fewer than two images of a kind, or features that are not finite (n, d) matrices.

    Example:
        >>> images = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> abs(float(feature_distance(images, images, nn.Flatten()).fid)) < 1e-6
        True
    """
    # Imported here: it takes a second, and only those who measure need it.
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    if len(samples) < 2 or len(data) < 2:
        raise ValueError(f"need at least 2 samples and 2 images, got {len(samples)} and {len(data)}")
    with evaluating(extractor):
        real, fake = (torch.cat([extractor(part) for part in images.split(batch)]) for images in (data, samples))
    real, fake = real.double(), fake.double()
    if real.ndim != 2 or not bool(real.isfinite().all() & fake.isfinite().all()):
        raise ValueError(f"the extractor must return finite (n, d) features, got shape {tuple(real.shape)}")
    # Features are extracted once, above, for both distances; torchmetrics receives them through an identity.
    identity = nn.Identity()
    identity.num_features = real.shape[1]  # type: ignore[assignment]
    size = min(len(real), len(fake), _SUBSET)
    # In distributed training one process measures: a metric that waited for the others would wait for ever.
    frechet = FrechetInceptionDistance(feature=identity, sync_on_compute=False).to(real.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all extracted features")
        kernel = KernelInceptionDistance(
            feature=identity,
            subset_size=size,
            subsets=1 if len(real) == len(fake) == size else subsets,
            sync_on_compute=False,
        )
    for metric in (frechet, kernel):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    # torchmetrics draws KID's subsets from the global generator: lend it ours and put the global state back.
    seed = int(torch.randint(2**62, (), generator=generator))
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        kid = kernel.compute()[0]
    finally:
        torch.set_rng_state(state)
    return FeatureDistance(frechet.compute(), kid)
