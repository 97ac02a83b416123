"""Open any checkpoint."""

from pathlib import Path

from lsdr.layers.checkpoint.caveats import caveats, refuse_packed
from lsdr.layers.checkpoint.checkpoint import Checkpoint
from lsdr.layers.checkpoint.file import open_file
from lsdr.layers.checkpoint.folder import add_config, open_folder
from lsdr.layers.checkpoint.sharded import open_index
from lsdr.layers.checkpoint.weights import is_known


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint: headers are read and checked, tensors are not.

    Read are safetensors; files of torch.save that hold tensors alone, nested as training scripts nest them; shards with
    their index; folders of diffusers, transformers, peft and lsdr. Nothing is unpickled but by `torch.load` with
    `weights_only=True`, and nothing is downloaded.

    Args:
        path: A file or a folder.

    Returns:
        The checkpoint, to be closed: use it as a context manager. See `Checkpoint`.

    Raises:
        ValueError: If there is nothing there, it is none of these, or it is damaged. The message says what was
            expected, what is there, and what to do.
    """
    path = Path(path)
    try:
        checkpoint = _open(path)
    except OSError as error:
        raise ValueError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    try:
        refuse_packed(path, checkpoint.entries)
    except BaseException:
        checkpoint.close()
        raise
    checkpoint.notes += caveats(checkpoint.entries)
    return checkpoint


def _open(path: Path) -> Checkpoint:
    if path.is_dir():
        return open_folder(path)
    if not path.exists():
        dangling = f", a link to {path.readlink()}, which is not there" if path.is_symlink() else ""
        raise ValueError(f"there is no file or folder {path}{dangling}")
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder")
    checkpoint = open_index(path) if path.suffix == ".json" else Checkpoint.of(open_file(path))
    if is_known(path):
        try:
            add_config(checkpoint, path.parent)
        except ValueError as error:
            checkpoint.notes.append(f"the configuration beside it was not read: {error}")
    return checkpoint
