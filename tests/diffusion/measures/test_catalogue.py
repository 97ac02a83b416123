"""Names, words and sizes, without torch."""

import subprocess
import sys

import pytest

from lsdr.diffusion.measures.catalogue import MEASURES
from lsdr.diffusion.measures.config import MeasureConfig


def test_the_catalogue_is_complete():
    names = """
        heldout_loss heldout_loss_low_noise heldout_loss_mid_noise heldout_loss_high_noise
        psd_rmse_db psd_rmse_low_db psd_rmse_mid_db psd_rmse_high_db
        sensitivity lyapunov operator_largest operator_asymmetry calibration_gap_db grid_artifact_db
        diversity_variance nearest_neighbour nearest_train fid kid
        largest_stable_lr lr_sensitivity diverged gradient_spikes
        step_seconds step_seconds_ratio memory_mb memory_ratio
        feature_effective_rank feature_mean_abs_correlation weight_sigma_max
    """
    assert set(MEASURES) == set(names.split())


@pytest.mark.parametrize("name", list(MEASURES))
def test_every_measure_says_in_one_sentence_what_it_is(name):
    measure = MEASURES[name]
    assert measure.label
    assert measure.better in ("lower", "higher", None)
    assert measure.description[0].isupper() or measure.description[0].isdigit()
    assert measure.description.endswith(".")
    assert ". " not in measure.description


def test_sensitivity_is_tied_to_diversity():
    assert "only where diversity is not lower" in MEASURES["sensitivity"].description


@pytest.mark.parametrize("module", ["catalogue", "config", "learning_rate"])
def test_it_imports_without_torch(module):
    code = f"import sys, lsdr.diffusion.measures.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "sizes",
    [
        {"samples": 3},
        {"bands": 2},
        {"batch": 0},
        {"lyapunov_images": -1},
        {"operator_images": -1},
        {"operator_levels": 0},
    ],
)
def test_sizes_that_measure_nothing_are_refused(sizes):
    (name,) = sizes
    with pytest.raises(ValueError, match=name):
        MeasureConfig(**sizes)
