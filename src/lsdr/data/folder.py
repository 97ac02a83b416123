"""Image files in a folder and its subfolders."""

import os
from pathlib import Path

import numpy as np

from lsdr.data.problem import BadImageError, Problems
from lsdr.data.reader import Strips

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
_LARGEST_FILE = 512 * 2**20
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "eval"))


class FolderReader:
    """Image files by their suffix, sorted by name, the files of a folder before those of its subfolders.

    Nothing is opened and no file's metadata is read to make the list, and the names of a million files take some tens
    of megabytes. Hidden files and folders and files without an image's suffix are counted as ignored; a folder that
    links make appear twice is read once.

    Labels: when every image lies directly in one of at least two subfolders, the subfolders are the classes - unless
    they are named like splits (train, test, ...).

    Args:
        root: The folder.

    Raises:
        OSError: If the folder itself cannot be listed.
    """

    strips: Strips | None = None

    def __init__(self, root: Path) -> None:
        self.title = str(root)
        self.problems = Problems()
        self._root = root
        self.parquet: list[Path] = []
        folders: list[str] = []
        counts: list[int] = []
        blobs: list[bytes] = []
        seen: set[tuple[int, int]] = set()
        pending = [""]
        while pending:
            folder = pending.pop()
            names, subfolders = self._list(folder, seen)
            if names:
                folders.append(folder)
                counts.append(len(names))
                blobs.append(os.fsencode("\0".join(names)))
            pending.extend(_join(folder, name) for name in reversed(subfolders))
        self._folders = folders
        self._starts = np.cumsum([0, *counts])
        # One string with a separator no file name can hold: a million Python strings would take a hundred megabytes
        # in every worker process.
        self._names = b"\0".join(blobs)
        self._ends = np.append(np.flatnonzero(np.frombuffer(self._names, dtype=np.uint8) == 0), len(self._names))
        self.class_names = self._classes()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        """The path within the folder; bytes that are no UTF-8 are shown escaped."""
        return _shown(self._relative(index))

    def label(self, index: int) -> int:
        """The number of the subfolder."""
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        try:
            with (self._root / self._relative(index)).open("rb") as file:
                if os.fstat(file.fileno()).st_size > _LARGEST_FILE:
                    raise BadImageError("too_large", "the file is larger than 512 MB")
                return file.read()
        except OSError as error:
            raise BadImageError("unreadable", error.strerror or str(error)) from error

    def _relative(self, index: int) -> str:
        start = int(self._ends[index - 1]) + 1 if index else 0
        folder = self._folders[int(np.searchsorted(self._starts, index, side="right")) - 1]
        return _join(folder, os.fsdecode(self._names[start : int(self._ends[index])]))

    def _list(self, folder: str, seen: set[tuple[int, int]]) -> tuple[list[str], list[str]]:
        """The image files and the subfolders directly in a folder, both sorted."""
        names: list[str] = []
        subfolders: list[str] = []
        path = self._root / folder
        try:
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                self.problems.add("repeated_folder", _shown(folder), "a link to a folder that is read already")
                return [], []
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    image = name[name.rfind(".") :].lower() in IMAGE_SUFFIXES
                    try:  # the kind of an entry comes with its name; only links cost a look at the file
                        is_file, is_folder = entry.is_file(), entry.is_dir()
                    except OSError:  # a link to itself
                        is_file = is_folder = False
                    if is_folder:
                        if not name.startswith("."):
                            subfolders.append(name)
                    elif image and is_file and not name.startswith("."):
                        names.append(name)
                    elif image and not is_file:
                        self.problems.add("unreadable", _shown(_join(folder, name)), "a broken link, or not a file")
                    else:
                        if name.endswith(".parquet"):
                            self.parquet.append(path / name)
                        self.problems.add("ignored", _shown(_join(folder, name)), "hidden, or not an image's suffix")
        except OSError as error:
            if not folder:
                raise
            self.problems.add("unreadable_folder", _shown(folder), error.strerror or str(error))
        return sorted(names), sorted(subfolders)

    def _classes(self) -> tuple[str, ...] | None:
        direct = all(folder and "/" not in folder for folder in self._folders)
        if len(self._folders) < 2 or not direct or {folder.lower() for folder in self._folders} <= _SPLITS:
            return None
        return tuple(_shown(folder) for folder in self._folders)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _shown(path: str) -> str:
    """A path that any terminal and any JSON reader can take: bytes that are no UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
