"""The feature extractor that all runs of a comparison share."""

from pathlib import Path

import torch

from lsdr.data.subset import Images
from lsdr.measures.feature_extractor import TrainedExtractor, train_feature_extractor
from lsdr.measures.small_classifier import shared_folder


def shared_extractor(directory: Path, images: Images, steps: int, device: torch.device) -> TrainedExtractor:
    """The feature extractor of the comparison that this run belongs to, or of the run alone.

    It is the same for every run of a comparison: trained from a fixed seed on the same images, by whoever comes first.

    Args:
        directory: The run's folder: the comparison's is two above it.
        images: What to train it on, if it is not there yet.
        steps: Training steps, then.
        device: Where it is to be.
    """
    folder = shared_folder(directory)
    if not (folder / "extractor.json").exists():
        train_feature_extractor(images.pixels, images.labels, steps=steps).save(folder)
    loaded = TrainedExtractor.load(folder)
    loaded.extractor.to(device)
    return loaded
