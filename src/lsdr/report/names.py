"""Names in words for measures that experiment.json does not describe."""

from collections.abc import Collection
from typing import Any

from lsdr.diffusion.measures.catalogue import MEASURES
from lsdr.gan.measures.catalogue import MEASURES as GAN_MEASURES
from lsdr.representation.measures.catalogue import MEASURES as REPRESENTATION_MEASURES

_BASE = "base_"
_OF_TASK = {"gan": GAN_MEASURES, "representation": REPRESENTATION_MEASURES}


def described(names: Collection[str], task: str = "diffusion") -> dict[str, dict[str, Any]]:
    """What a task's catalogue says of its measures that are named; of the base's, beside those of what it became.

    Example:
        >>> {name: about["label"] for name, about in described(["base_heldout_loss", "heldout_loss"]).items()}
        {'heldout_loss': 'Held-out loss', 'base_heldout_loss': 'Held-out loss of the base'}
    """
    found: dict[str, dict[str, Any]] = {}
    for name, measure in _OF_TASK.get(task, MEASURES).items():
        if name in names:
            found[name] = vars(measure)
        if f"{_BASE}{name}" in names:
            text = f"{measure.label}, measured before the first step: what the fine-tune has to be better than."
            found[f"{_BASE}{name}"] = {
                **vars(measure),
                "label": f"{measure.label} of the base",
                "better": None,
                "description": text,
            }
    return found


def spelled(name: str) -> str:
    """A measure's name as words.

    Example:
        >>> spelled("my_own_score")
        'My own score'
    """
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
