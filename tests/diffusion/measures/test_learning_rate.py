"""Learning-rate measures on results made up to have known answers."""

import math

import pytest

from lsdr.diffusion.measures.learning_rate import (
    divergence_rate,
    gradient_spikes,
    largest_stable_lr,
    lr_grid,
    lr_sensitivity,
    median_step_seconds,
)

NAN = math.nan


def quadratic(lr):
    """Gradient descent on x^2 / 2 from 1: stable below 2."""
    return [0.5 * (1 - lr) ** (2 * step) for step in range(40)]


def test_the_grid_finds_the_stability_edge_of_a_quadratic():
    grid = lr_grid(quadratic, [0.1, 1.0, 1.9, 2.1, 4.0])
    assert grid.diverged == [False, False, False, True, True]
    assert grid.initial_loss == 0.5
    assert largest_stable_lr(grid.lr, grid.loss, grid.diverged, grid.initial_loss) == 1.9


def test_the_final_loss_is_the_mean_of_the_last_tenth():
    assert lr_grid(lambda lr: [5.0] * 18 + [1.0, 3.0], [0.1]).loss == [2.0]
    assert lr_grid(lambda lr: [5.0, 1.0], [0.1]).loss == [1.0]


def test_breaking_down_is_a_result():
    def train(lr):
        if lr > 2:
            raise FloatingPointError("loss is not finite at step 3")
        if lr > 1:
            return [1.0, NAN]
        return [1.0, 2.0 if lr > 0.5 else 0.5, 0.25]

    grid = lr_grid(train, [0.1, 0.6, 1.5, 3.0])
    assert grid.diverged == [False, False, True, True]
    assert grid.initial_loss == 1.0
    assert math.isnan(grid.loss[3])


def test_a_nan_in_the_middle_is_divergence_even_if_the_end_looks_well():
    assert lr_grid(lambda lr: [1.0, NAN, *[0.1] * 20], [0.1]).diverged == [True]


def test_other_errors_are_errors():
    with pytest.raises(KeyError):
        lr_grid(lambda lr: {}[lr], [0.1])


def test_a_grid_without_anything_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        lr_grid(quadratic, [])
    with pytest.raises(ValueError, match="finite first loss"):
        lr_grid(lambda lr: [NAN], [0.1])


@pytest.mark.parametrize(
    ("losses", "diverged", "expected"),
    [
        ([0.5, 0.4, 0.3], [False] * 3, 3.0),
        ([0.5, 0.4, 1.1], [False] * 3, 2.0),
        ([0.5, NAN, 0.3], [False] * 3, 1.0),  # stable above an unstable one is luck
        ([0.5, 0.4, 0.3], [False, True, False], 1.0),
        ([2.0, 0.4, 0.3], [False] * 3, NAN),
    ],
)
def test_the_largest_stable_learning_rate(losses, diverged, expected):
    found = largest_stable_lr([1.0, 2.0, 3.0], losses, diverged, 1.0)
    assert found == expected or (math.isnan(found) and math.isnan(expected))
    shuffled = largest_stable_lr([3.0, 1.0, 2.0], losses[2:] + losses[:2], diverged[2:] + diverged[:2], 1.0)
    assert shuffled == found or math.isnan(found)


def test_sensitivity_is_the_mean_excess_capped_at_the_initial_loss():
    lrs = [1e-4, 1e-3, 1e-2, 1e-1]
    assert lr_sensitivity(lrs, [0.6, 0.2, 0.4, 50.0], 1.0) == pytest.approx((0.4 + 0 + 0.2 + 0.8) / 4)
    assert lr_sensitivity(lrs, [0.6, 0.2, 0.4, math.inf], 1.0) == lr_sensitivity(lrs, [0.6, 0.2, 0.4, NAN], 1.0)
    assert lr_sensitivity(lrs, [0.2] * 4, 1.0) == 0


def test_spikes_are_above_ten_times_the_running_median():
    steady = [1.0, 1.1, 0.9] * 40
    assert gradient_spikes(steady) == 0
    assert gradient_spikes([*steady, 9.9, 10.1, 11.0, *steady]) == 2
    assert gradient_spikes([*steady, 5.1], factor=5.0) == 1
    assert gradient_spikes([1000 * x for x in [*steady, 11.0]]) == 1


def test_a_norm_that_is_not_finite_spikes_and_leaves_the_median_alone():
    assert gradient_spikes([NAN, 1.0, math.inf, *[1.0] * 5, 10.5]) == 3


def test_the_median_forgets_beyond_its_window():
    # After 100 norms of 100, a norm of 500 is ordinary; with a median over everything it would spike.
    norms = [1.0] * 1000 + [9.0] * 60 + [80.0] * 60 + [500.0]
    assert gradient_spikes(norms) == 0
    assert gradient_spikes(norms, window=5000) == 61


def test_spikes_agree_with_the_definition_spelled_out():
    from random import Random
    from statistics import median

    draw = Random(0)
    norms = [10 ** draw.gauss(0, 0.7) for _ in range(500)]
    spelled = sum(x > 10 * median(norms[max(0, i - 20) : i]) for i, x in enumerate(norms) if i)
    assert spelled > 10
    assert gradient_spikes(norms, window=20) == spelled


def test_rates_and_times():
    assert divergence_rate([True, True, False, False, False]) == pytest.approx(0.4)
    assert median_step_seconds([30.0, 1.0, 2.0, 30.0]) == 2.0
    assert median_step_seconds([3.0]) == 3.0


def test_lists_that_do_not_fit_are_refused():
    for call in (
        lambda: largest_stable_lr([1.0], [], [True], 1.0),
        lambda: lr_sensitivity([1.0, 2.0], [1.0], 1.0),
        lambda: divergence_rate([]),
        lambda: median_step_seconds([]),
    ):
        with pytest.raises(ValueError, match="lengths"):
            call()
    with pytest.raises(ValueError, match="window"):
        gradient_spikes([1.0], window=0)
