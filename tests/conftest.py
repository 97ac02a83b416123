"""What every test shares: no network, few threads, no accelerator state left over."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _one_thread():
    """Two workers share two cores; more threads each would only fight."""
    import torch

    torch.set_num_threads(1)
