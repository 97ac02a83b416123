"""Options that cannot work are refused with advice, without torch."""

import subprocess
import sys

import pytest

from lsdr.representation.config import RepresentationConfig
from lsdr.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 1.0}, "holdout must be between"),
        ({"contaminate": 1.0}, "contaminate must be in"),
        ({"code": 0}, "code must be at least 1"),
        ({"projector": -1}, "0 means none"),
        ({"weight": float("nan")}, "weight must be finite"),
        ({"training": TrainingConfig(batch_size=1)}, "batch_size must be at least 2"),
        ({"objective": "sim_clr", "training": TrainingConfig(accumulate=2)}, "use accumulate=1"),
        ({"objective": "sim_clr", "robust": "huber"}, "no statistics to make robust"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RepresentationConfig(**options)


def test_the_options_import_no_torch():
    code = (
        "import sys, lsdr.representation.config, lsdr.representation.models.presets; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
