"""LSDR's own documentation and evidence, as documents to ask."""

import os
from pathlib import Path
from typing import Literal

from lsdr.genie.index import Index

PREFIX = "lsdr/"
Which = Literal["auto", "mine", "lsdr", "all"]


def own_documents() -> Path:
    """The folder of LSDR's documentation and measured evidence.

    Raises:
        FileNotFoundError: If this installation has none.
    """
    here = Path(__file__).resolve()
    # Installed: beside this file. From a checkout: docs/ at its root.
    for folder in (here.parent / "documents", here.parents[3] / "docs"):
        if (folder / "evidence").is_dir():
            return folder
    raise FileNotFoundError("LSDR's own documentation is not in this installation: install the wheel again")


def default_path() -> Path:
    """Where the user's index is when nothing else is said."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "lsdr" / "genie.sqlite"


def open_own(path: str | Path | None = None) -> Index:
    """The index of LSDR's own documentation, up to date: a file beside the user's index. Names begin with "lsdr/"."""
    mine = default_path() if path is None else Path(path)
    index = Index.open(mine.with_name(f"{mine.stem}-lsdr{mine.suffix}"))
    index.add([own_documents()], root=own_documents(), prefix=PREFIX)
    return index


def open_default(path: str | Path | None = None, *, documents: Which = "auto") -> Index:
    """The index to ask.

    Args:
        path: The user's index.
        documents: "mine": the user's documents; "lsdr": LSDR's own; "auto": the user's, and LSDR's own where there are
            none; "all": both, in a third file beside, which is brought up to date.

    Returns:
        An open index. What "lsdr" and "all" give is to be asked, not added to.
    """
    mine = Index.open(default_path() if path is None else path)
    if documents == "mine" or (documents == "auto" and mine.documents()):
        return mine
    own = open_own(mine.path)
    if documents != "all":
        mine.close()
        return own
    both = Index.open(mine.path.with_name(f"{mine.path.stem}-all{mine.path.suffix}"))
    with mine, own:
        there = {each.name: each for each in both.documents()}
        held = {each.name: (each, index) for index in (own, mine) for each in index.documents()}
        for name in there.keys() - held.keys():
            both.remove(name)
        for name, (entry, index) in held.items():
            if name not in there or there[name].sha256 != entry.sha256:
                both.copy(index, name)
    return both
