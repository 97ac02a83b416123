"""Paragraphs of scipy's documentation, as it is installed: texts with classes, and nothing to download."""

import importlib
import inspect
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SUBMODULES = (
    *("cluster.hierarchy", "cluster.vq", "constants", "fft", "integrate", "interpolate", "io", "linalg"),
    *("ndimage", "optimize", "signal", "sparse", "spatial", "special", "stats"),
)
_LEAST_WORDS = 12
_LEAST_TEXTS = 100


@dataclass(frozen=True)
class Paragraphs:
    """Texts, their classes, and which object each was written for."""

    texts: tuple[str, ...]
    numbers: NDArray[np.int64]
    class_names: tuple[str, ...]
    groups: NDArray[np.int64]
    names: tuple[str, ...]


def read_scipy_docs() -> Paragraphs:
    """Paragraphs of prose from the docstrings of scipy's public functions and classes; the class is the submodule.

    Paragraphs of fewer than 12 words, examples of code, and what is written for more than one object are left out, and
    so are submodules with fewer than 100 paragraphs. Parts are to be split by object (`groups`). What is found depends
    on the version of scipy.

    Example:
        >>> found = read_scipy_docs()
        >>> len(found.class_names) >= 8, found.names[0].split(".")[0]
        (True, 'cluster')
    """
    seen: dict[str, tuple[str, str] | None] = {}
    for module in _SUBMODULES:
        imported = importlib.import_module(f"scipy.{module}")
        for name in sorted(imported.__all__):
            value = getattr(imported, name, None)
            if inspect.ismodule(value) or not (documented := inspect.getdoc(value)):
                continue
            for paragraph in re.split(r"\n\s*\n", documented):
                text = " ".join(paragraph.split())
                if len(text.split()) >= _LEAST_WORDS and ">>>" not in text and "----" not in text:
                    place = (module.partition(".")[0], f"{module}.{name}")
                    # The same words twice for one object are one text; for two objects, nobody's.
                    seen[text] = place if seen.setdefault(text, place) == place else None
    counts = Counter(place[0] for place in seen.values() if place is not None)
    classes = tuple(sorted(each for each, count in counts.items() if count >= _LEAST_TEXTS))
    kept = [(text, *place) for text, place in seen.items() if place is not None and place[0] in classes]
    objects = {name: number for number, name in enumerate(dict.fromkeys(name for _, _, name in kept))}
    return Paragraphs(
        texts=tuple(text for text, _, _ in kept),
        numbers=np.array([classes.index(each) for _, each, _ in kept], dtype=np.int64),
        class_names=classes,
        groups=np.array([objects[name] for _, _, name in kept], dtype=np.int64),
        names=tuple(name for _, _, name in kept),
    )
