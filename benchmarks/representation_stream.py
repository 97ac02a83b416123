"""Memory and speed of learning from a table that is too large for memory.

Rows drawn from a seed are written as Parquet, and then streamed in the order and by the loader of the training loop:
shuffled by blocks, batch after batch, one epoch. Shown is the resident memory of the process, its DataLoader workers
with it, as rows go by, and rows per second, by the clock and by the time that processors worked on it; then how long
the first batch takes when a run is resumed in the middle, and whether it is the batch of the run that was never
stopped. For comparison, what the same file needs in memory as a whole.

Goal: memory flat in the number of rows.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from lsdr import runs
from lsdr.representation.data.open import open_data
from lsdr.training.order import StepSampler

RESULTS = Path(__file__).parent / "results" / "representation_stream.jsonl"
WORDS = np.array(["north", "south", "east", "west"])
PIECE = 2**20


def write(folder: Path, rows: int, columns: int, group: int, files: int) -> int:
    """Rows as Parquet, a piece at a time; the bytes on disk."""
    schema = pa.schema(
        [*((f"x{each}", pa.float32()) for each in range(columns)), ("word", pa.string()), ("label", pa.int64())]
    )
    draw = np.random.default_rng(0)
    for file in range(files):
        with pq.ParquetWriter(folder / f"part-{file:02}.parquet", schema) as writer:
            left = rows // files + (file < rows % files)
            while left:
                count = min(left, PIECE)
                hidden = draw.standard_normal((count, 2), dtype=np.float32)
                numbers = hidden @ draw.standard_normal((2, columns), dtype=np.float32)
                numbers += draw.standard_normal((count, columns), dtype=np.float32)
                values = [*numbers.T, WORDS[draw.integers(0, 4, count)], (hidden[:, 0] > 0).astype(np.int64)]
                writer.write_table(pa.table(values, schema=schema), row_group_size=group)
                left -= count
    return sum(path.stat().st_size for path in folder.iterdir())


def resident() -> int:
    """Bytes in memory, of this process and those it started; what they share counts once."""
    process = psutil.Process()
    found = [each.memory_full_info() for each in (process, *process.children(recursive=True))]
    return sum(getattr(each, "pss", each.uss) for each in found)


def busy() -> float:
    """Seconds that processors spent on this process and those it started that are still there."""
    process = psutil.Process()
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def loader(dataset: Any, order: Any, start: int, workers: int) -> DataLoader[Any]:
    """As the training loop makes it."""
    sampler = StepSampler(order, start, rank=0, world=1)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=dict)


def stream(folder: Path, batch: int, workers: int, shown: int) -> dict[str, Any]:
    """One epoch; what it took."""
    before, started = resident(), time.perf_counter()
    data = open_data(str(folder), in_memory=0)
    opened = time.perf_counter() - started
    dataset: Any = data.train
    order = dataset.order(batch, 0)
    middle = order.epoch // 2
    curve, seen, check = list[tuple[int, float]](), 0, torch.empty(0)
    worked, started = busy(), time.perf_counter()
    first = seconds = 0.0
    for step, each in enumerate(loader(dataset, order, 0, workers)):
        first = first or time.perf_counter() - started
        seen += len(each["index"])
        if step == middle:
            check = each["numeric"]
        if (step + 1) % max(1, order.epoch // shown) == 0 or step + 1 == order.epoch:
            curve.append((seen, (resident() - before) / 2**20))
        if step + 1 == order.epoch:
            seconds, worked = time.perf_counter() - started, busy() - worked
            break
    print(f"opened in {opened:.1f} s, first batch after {first:.2f} s")
    print(f"{seen} rows in {seconds:.0f} s: {seen / seconds:,.0f} rows/s, {seen / worked:,.0f} a second of a processor")
    for rows, megabytes in curve:
        print(f"{rows:12,} rows {megabytes:8.0f} MB")
    anew: Any = open_data(str(folder), in_memory=0).train
    started = time.perf_counter()
    resumed = next(iter(loader(anew, anew.order(batch, 0), middle, 0)))
    again = time.perf_counter() - started
    assert torch.equal(resumed["numeric"], check), "a resumed run sees other rows"
    print(f"resumed at step {middle} of {order.epoch}: {again:.2f} s to the first batch, the same one")
    return {
        "layout": vars(dataset.part.layout),
        "rows_seen": seen,
        "seconds": seconds,
        "rows_per_second": seen / seconds,
        "rows_per_processor_second": seen / worked,
        "open_seconds": opened,
        "first_batch_seconds": first,
        "resume_seconds": again,
        "megabytes": curve,
    }


def main() -> None:
    """Write, stream, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--group", type=int, default=65536, help="rows of a row group")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="to see that it runs: few rows, nothing is kept")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.group = 200_000, 4096
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        size = write(folder, options.rows, options.columns, options.group, options.files)
        whole = options.rows * (4 * options.columns + 4 * 2 + options.columns + 1 + 8)
        print(f"{size / 2**20:.0f} MB on disk; as tensors in memory {whole / 2**20:.0f} MB")
        found = stream(folder, options.batch, options.workers, 20)
    finally:
        shutil.rmtree(folder)
    curve = [megabytes for _, megabytes in found["megabytes"]]
    half = len(curve) // 2
    print(f"memory at its most: {max(curve[:half]):.0f} MB in the first half, {max(curve[half:]):.0f} MB in the second")
    record = {
        "benchmark": "representation_stream",
        **{name: getattr(options, name) for name in ("rows", "columns", "group", "files", "batch", "workers")},
        "disk_megabytes": size / 2**20,
        "whole_megabytes": whole / 2**20,
        **found,
        "environment": runs.environment(),
    }
    if not options.quick:
        runs.append_record(RESULTS, record)


if __name__ == "__main__":
    main()
