import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def _png(number, height=8, width=8):
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def png():
    """png(number, height, width) -> the bytes of a picture."""
    return _png


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """Two Parquet files of a table, 40 row groups of 25 rows, and the table."""
    root = tmp_path_factory.mktemp("large")
    draw = np.random.default_rng(0)
    count = 1000
    table = pa.table(
        {
            "row": np.arange(count, dtype=np.int64),
            "x": draw.normal(3, 2, count),
            "word": draw.choice(["a", "b", "c"], count),
            "label": draw.integers(0, 3, count),
        }
    )
    for number in range(2):
        pq.write_table(table.slice(number * 500, 500), root / f"part-{number}.parquet", row_group_size=25)
    return root, table
