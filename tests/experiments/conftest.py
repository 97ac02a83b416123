import os
from pathlib import Path

import pytest


@pytest.fixture
def fake(monkeypatch):
    """Make `fake_worker` importable here and in the processes that a comparison starts."""
    folder = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")])))
    import fake_worker

    return fake_worker
