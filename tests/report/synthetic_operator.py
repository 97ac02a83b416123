"""What `lsdr inspect --operator` finds, made up: a slightly wrong denoiser of Gaussian data."""

import numpy as np

K = 8


def found(count: int = 8, **changes) -> dict:
    """A whole inspection of an operator."""
    frequency = np.arange(1, 9) / 16
    data = 0.4 / (1 + (16 * frequency) ** 2)
    samples = data * (1 + 0.8 * (frequency > 0.3))
    return {
        "source": "runs/digits",
        "model": "unet-tiny, 164 k parameters",
        "prediction": "edm",
        "shape": [1, 16, 16],
        "images": 8,
        "frame": "exploding",
        "estimator": "forward_mode",
        "why": "forward mode runs and agrees with a finite difference to 2e-4",
        "levels": operator(count),
        "lyapunov": {"exponents": [0.021, -0.014, -0.038, -0.061], "residual": 0.0004, "steps": 18},
        "power_spectrum": {
            "frequency": frequency.tolist(),
            "data": data.tolist(),
            "data_low": (0.4 * data).tolist(),
            "data_high": (2.1 * data).tolist(),
            "samples": samples.tolist(),
            "samples_low": (0.5 * samples).tolist(),
            "samples_high": (1.8 * samples).tolist(),
        },
        "artifacts": [
            {"period": 2.0, "orientation": 0.0, "frequency": [0.0, 0.5], "decibels": 9.3, "p_value": 1e-9},
            {"period": 4.2, "orientation": 32.0, "frequency": [0.126, 0.202], "decibels": 5.1, "p_value": 0.0021},
            {"period": 1.414, "orientation": 45.0, "frequency": [0.5, 0.5], "decibels": 4.4, "p_value": 0.006},
        ],
        "findings": [
            {
                "severity": "error",
                "kind": "wrong_prediction",
                "message": "the network seems to predict v, not epsilon: pass prediction='v'",
            },
            {
                "severity": "warning",
                "kind": "not_calibrated",
                "message": "at σ = 0.05 the denoiser's own error is 3.1 dB above what its Jacobian promises",
            },
            {
                "severity": "note",
                "kind": "expanding_step",
                "message": "the step from σ = 0.5 lets the largest difference grow 1.07 times",
            },
        ],
        **changes,
    }


def operator(levels: int = 8, wrong: float = 1.0) -> list[dict]:
    """The levels, from clean to noise; the larger `wrong`, the further from the optimum."""
    sigmas = np.geomspace(0.02, 20, levels)
    return [_level(sigma, sigma / 1.9 if place else 0.0, wrong) for place, sigma in enumerate(sigmas.tolist())]


def _level(sigma: float, sigma_next: float, wrong: float) -> dict:
    variances = 3.0 / np.arange(1, 257) ** 1.6
    truth = variances / (variances + sigma**2)
    bump = 1 + 0.16 * wrong * np.exp(-((np.log(sigma / 0.5)) ** 2))
    values = np.sort(truth * bump - 0.01 * wrong)[::-1]
    top = values[:K]
    ratio = sigma_next / sigma
    gains = ratio + (1 - ratio) * top
    mse = sigma**2 * truth.mean()
    trace = values.mean()
    grid = np.linspace(-0.1, 1.25, 60)
    density = np.exp(-0.5 * ((grid[:, None] - values) / 0.03) ** 2).mean(1) / (0.03 * np.sqrt(2 * np.pi))
    return {
        "sigma": sigma,
        "sigma_next": sigma_next,
        "eigenvalues": {
            "median": top.tolist(),
            "low": (0.94 * top).tolist(),
            "high": (1.07 * top).tolist(),
        },
        "residual": 3e-4,
        "gains": gains.tolist(),
        "singular_values": (1.03 * top).tolist(),
        "time_scales": [1 / (1 - value) if value < 1 else None for value in top.tolist()],
        "asymmetry": 0.04 * wrong * (1 + 1 / (1 + sigma)),
        "smallest": float(values[-1]),
        "trace": float(trace),
        "trace_error": 0.03 * float(trace),
        "mse": float(mse * (1 + 0.4 * wrong / (1 + 20 * sigma))),
        "sure": float(mse * 1.05),
        "gaussian": truth[:K].tolist(),
        "density": {"value": grid.tolist(), "density": density.tolist()},
    }
