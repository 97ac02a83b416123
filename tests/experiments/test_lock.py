import subprocess
import sys

import pytest

from lsdr.experiments.lock import alone


def test_second_holder_is_refused_and_then_let_in(tmp_path):
    refused = pytest.raises(ValueError, match="another process is writing")
    with alone(tmp_path), refused, alone(tmp_path, patience=0.2):
        pass
    with alone(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, sys, pathlib; from lsdr.experiments.lock import alone\n"
        "with alone(pathlib.Path(sys.argv[1])): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    with alone(tmp_path):
        pass
