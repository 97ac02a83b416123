"""Run directories of lsdr: the newest weights of a run, online and averaged."""

from pathlib import Path

from lsdr.layers.checkpoint.checkpoint import Checkpoint
from lsdr.layers.checkpoint.file import open_file
from lsdr.layers.checkpoint.json_file import read_json_object

_STATES = ("state.json", "snapshot.json")


def step_of(folder: Path) -> int | None:
    """The training step of a checkpoint or snapshot folder of a run; None if it is neither.

    Raises:
        ValueError: If its state file is damaged.
    """
    if not (folder / "model.safetensors").is_file() or not (folder / "ema.safetensors").is_file():
        return None
    for name in _STATES:
        if (folder / name).is_file():
            step = read_json_object(folder / name).get("step")
            if isinstance(step, int):
                return step
    return None


def steps_of(folder: Path) -> dict[Path, int]:
    """The checkpoints and snapshots of a run directory, the newest first; empty if it is none."""
    # Checkpoints of an interrupted write have names with a leading dot.
    folders = [*folder.glob("snapshots/*"), *folder.glob("checkpoints/step-*")]
    found = {each: step for each in sorted(folders) if each.is_dir() and (step := step_of(each)) is not None}
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0].parent.name != "snapshots")))


def open_step(folder: Path) -> Checkpoint:
    """Open one checkpoint or snapshot: weights as "model.<name>", their moving average as "ema.<name>"."""
    checkpoint = Checkpoint("lsdr checkpoint")
    try:
        for part in ("model", "ema"):
            file = open_file(folder / f"{part}.safetensors")
            checkpoint.add(file, {name: f"{part}.{name}" for name in file.entries})
    except BaseException:
        checkpoint.close()
        raise
    checkpoint.metadata["step"] = str(step_of(folder))
    return checkpoint


def open_run(folder: Path, steps: dict[Path, int]) -> Checkpoint:
    """Open the newest weights of a run directory, and the configuration of its network where the run has ended."""
    newest, step = next(iter(steps.items()))
    checkpoint = open_step(newest)
    checkpoint.format = "lsdr run"
    others = len(steps) - 1
    left = f", passed over {others} more checkpoint{'s' * (others > 1)} of the run" if others else ""
    checkpoint.notes.append(f"read {newest.relative_to(folder)} of step {step}{left}")
    config = folder / "diffusers" / "config.json"
    if config.is_file():
        checkpoint.config |= dict.fromkeys(("model", "ema"), read_json_object(config))
    return checkpoint
