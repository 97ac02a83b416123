"""Checkpoints that are closed at the end of a test, as users are asked to close them."""

import pytest


@pytest.fixture
def open_checkpoint():
    from lsdr.layers.checkpoint.open import open_checkpoint

    opened = []

    def opening(path):
        opened.append(open_checkpoint(path))
        return opened[-1]

    yield opening
    for checkpoint in opened:
        checkpoint.close()
