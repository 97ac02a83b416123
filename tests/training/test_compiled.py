"""`--compile`: used where the compiler is right, and not where it is wrong."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="inductor needs a compiler")
def test_compiled_gradients_are_checked_before_they_are_used(tmp_path):
    script = str(Path(__file__).with_name("compiled.py"))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", script, str(tmp_path)], capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, result.stderr[-3000:]
