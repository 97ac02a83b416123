"""How fast a folder of many small files is indexed: files per second, beside the usual ways to list one.

Run: ``python benchmarks/data_index.py [--files 200000]``. The peers do what data loaders commonly do before the first
step: `os.walk` with a sort; torchvision's `make_dataset` (its algorithm: sorted walk, a suffix test, a path and a class
for each file); and `pathlib.rglob` with a sort. All list the same names from a warm cache; each is the best of three.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lsdr.data.folder import IMAGE_SUFFIXES, FolderReader
from lsdr.runs import append_record, environment

RESULTS = Path(__file__).parent / "results" / "data_index.jsonl"
_PER_FOLDER = 1000
_REPEATS = 3


def lsdr_index(root: Path) -> FolderReader:
    return FolderReader(root)


def os_walk(root: Path) -> list[str]:
    return sorted(
        os.path.join(folder, name)  # noqa: PTH118
        for folder, _, names in os.walk(root)
        for name in names
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
    )


def torchvision_make_dataset(root: Path) -> list[tuple[str, int]]:
    suffixes = tuple(IMAGE_SUFFIXES)
    instances = []
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    for number, folder in enumerate(classes):
        for below, _, names in sorted(os.walk(root / folder, followlinks=True)):
            for name in sorted(names):
                path = os.path.join(below, name)  # noqa: PTH118
                if path.lower().endswith(suffixes):
                    instances.append((path, number))
    return instances


def pathlib_rglob(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


METHODS: dict[str, Callable[[Path], Any]] = {
    "lsdr": lsdr_index,
    "os.walk + sort": os_walk,
    "torchvision make_dataset": torchvision_make_dataset,
    "pathlib rglob + sort": pathlib_rglob,
}


def make_folder(root: Path, files: int) -> None:
    for start in range(0, files, _PER_FOLDER):
        folder = root / f"{start // _PER_FOLDER:05}"
        folder.mkdir()
        for number in range(start, min(start + _PER_FOLDER, files)):
            os.close(os.open(folder / f"{number:08}.png", os.O_CREAT | os.O_WRONLY))


def best_seconds(method: Callable[[Path], Any], root: Path, files: int) -> float:
    seconds = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        result = method(root)
        seconds.append(time.perf_counter() - begin)
        assert len(result) == files, f"{len(result)} of {files} files listed"
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    files = parser.parse_args().files
    root = Path(tempfile.mkdtemp(prefix="lsdr-index-"))
    try:
        make_folder(root, files)
        rates = {name: files / best_seconds(method, root, files) for name, method in METHODS.items()}
    finally:
        shutil.rmtree(root)
    ratios = {name: rates["lsdr"] / rate for name, rate in rates.items()}
    for name, rate in rates.items():
        print(f"{name:26} {rate:12,.0f} files/s   lsdr is {ratios[name]:5.2f}x as fast")
    print(f"a million files at this rate: {1e6 / rates['lsdr']:.1f} s")
    append_record(RESULTS, {"files": files, "files_per_second": rates, "speedup": ratios, "environment": environment()})


if __name__ == "__main__":
    main()
