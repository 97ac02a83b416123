"""Files to inspect."""

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def noise():
    def noise(*shape, seed=0):
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    return noise


@pytest.fixture
def saved(tmp_path):
    """Write a state dict as safetensors and give the path."""

    def save(state, name="model.safetensors", **metadata):
        path = tmp_path / name
        save_file({key: value.contiguous() for key, value in state.items()}, path, metadata=metadata or None)
        return path

    return save
