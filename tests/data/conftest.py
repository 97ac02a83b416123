import io

import numpy as np
import pytest
from PIL import Image


def _pixels(number, height, width, channels=3):
    """Different for every number, reproducible, and not flat."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def pixels():
    return _pixels


@pytest.fixture
def encode():
    """encode(number, height, width, format) -> the bytes of an image file."""

    def encode(number=0, height=8, width=8, format="PNG", channels=3):
        buffer = io.BytesIO()
        Image.fromarray(_pixels(number, height, width, channels)).save(buffer, format)
        return buffer.getvalue()

    return encode


@pytest.fixture
def image_folder(tmp_path, encode):
    """image_folder(names, height, width) -> a folder with such images."""

    def make(names, height=8, width=8, folder="images", channels=3):
        root = tmp_path / folder
        for number, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(number, height, width, channels=channels))
        return root

    return make
