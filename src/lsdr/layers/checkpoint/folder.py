"""Folders of diffusers, transformers, peft and lsdr."""

import re
from collections.abc import Iterable
from pathlib import Path

from lsdr.layers.checkpoint.checkpoint import Checkpoint
from lsdr.layers.checkpoint.file import open_file
from lsdr.layers.checkpoint.json_file import read_json_object
from lsdr.layers.checkpoint.run_folder import open_run, open_step, step_of, steps_of
from lsdr.layers.checkpoint.sharded import open_index
from lsdr.layers.checkpoint.weights import choose_weights

_STEP = re.compile(r"(?:checkpoint|step|epoch)[-_]?(\d+)")


def open_folder(folder: Path) -> Checkpoint:
    """Open what a folder holds.

    Looked for, in this order: a run of lsdr or one of its checkpoints; a pipeline of diffusers (model_index.json);
    weights of a model or adapter, with config.json or adapter_config.json beside them; folders with weights, which
    are the components of one model, or of which the newest step is read; a cache entry of the Hugging Face hub.

    Raises:
        ValueError: If it holds none of these, or what it holds is damaged.
    """
    _refuse_distributed(folder)
    if step_of(folder) is not None:
        return open_step(folder)
    steps = steps_of(folder)
    if steps:
        return open_run(folder, steps)
    if (folder / "snapshots").is_dir() and (folder / "blobs").is_dir():
        return open_folder(_cached(folder))
    if (folder / "model_index.json").is_file():
        return _open_pipeline(folder)
    if choose_weights(folder) is not None:
        return _open_model(folder)
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and _holds_weights(path)]
    numbered = {path: int(found[1]) for path in inner if (found := _STEP.fullmatch(path.name))}
    if numbered and len(numbered) == len(inner):
        return _open_newest(numbered)
    # One sub-folder of many models is as likely a shelf of models: components have configurations of their own.
    if inner and all((path / "config.json").is_file() for path in inner):
        return _open_components(folder, inner, "folder of components")
    raise ValueError(_nothing(folder, inner))


def _open_model(folder: Path) -> Checkpoint:
    """Open the weights that lie in a folder, with the configuration beside them."""
    choice = choose_weights(folder)
    if choice is None:
        raise ValueError(_nothing(folder, []))
    index = choice.file.suffix == ".json"
    checkpoint = open_index(choice.file) if index else Checkpoint.of(open_file(choice.file))
    checkpoint.notes += choice.notes()
    try:
        kind = add_config(checkpoint, folder)
    except BaseException:
        checkpoint.close()
        raise
    checkpoint.format = kind or checkpoint.format
    return checkpoint


def add_config(checkpoint: Checkpoint, folder: Path) -> str | None:
    """Take in the configuration beside weights; what kind of folder it makes this, in words, or None.

    Raises:
        ValueError: If it is damaged.
    """
    adapter = folder / "adapter_config.json"
    file = adapter if adapter.is_file() else folder / "config.json"
    config = read_json_object(file) if file.is_file() else {}
    if config:
        checkpoint.config[""] = config
    if file == adapter:
        return "adapter folder"
    if "_diffusers_version" in config or "_class_name" in config:
        return "diffusers folder"
    return "transformers folder" if "model_type" in config or "architectures" in config else None


def _open_pipeline(folder: Path) -> Checkpoint:
    index = read_json_object(folder / "model_index.json")
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and _holds_weights(path)]
    listed = list(index)
    inner.sort(key=lambda path: (listed.index(path.name) if path.name in listed else len(listed), path.name))
    checkpoint = _open_components(folder, inner, "diffusers folder")
    checkpoint.config[""] = index
    used = [name for name, value in index.items() if isinstance(value, list) and value[:1] not in ([None], [])]
    absent = [name for name in used if not (folder / name).is_dir()]
    if absent:
        checkpoint.notes.append(f"model_index.json names {', '.join(absent)}, and there is no such folder")
    return checkpoint


def _open_components(folder: Path, inner: Iterable[Path], format: str) -> Checkpoint:
    checkpoint = Checkpoint(format)
    try:
        for path in inner:
            checkpoint.absorb(path.name, _open_model(path))
    except BaseException:
        checkpoint.close()
        raise
    if not checkpoint.files:
        raise ValueError(_nothing(folder, []))
    return checkpoint


def _open_newest(numbered: dict[Path, int]) -> Checkpoint:
    newest = max(numbered, key=lambda path: numbered[path])
    checkpoint = open_folder(newest)
    if len(numbered) > 1:
        checkpoint.notes.append(f"read {newest.name}, the newest of {len(numbered)} steps")
    return checkpoint


def _cached(folder: Path) -> Path:
    """The revision of a hub cache entry that was downloaded as main, or the newest one."""
    revisions = [path for path in (folder / "snapshots").iterdir() if path.is_dir()]
    main = folder / "refs" / "main"
    wanted = main.read_text(encoding="utf-8", errors="replace").strip()[:100] if main.is_file() else ""
    for path in revisions:
        if path.name == wanted:
            return path
    if not revisions:
        raise ValueError(f"{folder} is a cache entry of the Hugging Face hub without a revision; download it again")
    return max(revisions, key=lambda path: path.stat().st_mtime)


def _holds_weights(folder: Path) -> bool:
    if folder.name.startswith("."):
        return False
    try:
        return choose_weights(folder) is not None
    except ValueError:  # a folder of many files: a shelf, unless it says that it is a model
        return (folder / "config.json").is_file()


def _refuse_distributed(folder: Path) -> None:
    if (folder / ".metadata").is_file() and any(folder.glob("*.distcp")):
        raise ValueError(
            f"{folder} is a checkpoint of torch.distributed.checkpoint, whose .metadata is a pickle: reading it would "
            "run the code in it. If you trust whoever made it, convert it first: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pt"
        )


def _nothing(folder: Path, inner: list[Path]) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    found = f"it holds {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "it is empty"
    hint = f"; give one of the folders in it that do: {', '.join(path.name for path in inner[:5])}" if inner else ""
    return (
        f"{folder} holds no checkpoint: looked for *.safetensors, *.bin, *.pt, *.pth and *.ckpt, *.index.json, "
        "model_index.json with folders of components, adapter_model.safetensors, and a run of lsdr "
        f"(checkpoints/step-*); {found}{hint}"
    )
