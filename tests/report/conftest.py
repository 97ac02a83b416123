"""Run directories to make reports of."""

import importlib.util
from pathlib import Path

import pytest


def _synthetic(name="synthetic"):
    specification = importlib.util.spec_from_file_location(f"{name}_runs", Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def write_experiment():
    """Write the directory of a comparison."""
    return _synthetic().write_experiment


@pytest.fixture(scope="session")
def write_run():
    """Write the directory of one run."""
    return _synthetic().write_run


@pytest.fixture(scope="session")
def operator_found():
    """What an inspection of an operator finds; keywords change it."""
    return _synthetic("synthetic_operator").found


@pytest.fixture(scope="session")
def reductions():
    """What reductions find: `found(**changes)`, and `large(terms)`."""
    return _synthetic("synthetic_reduction")


@pytest.fixture(scope="session")
def gans():
    """Directories of GANs: `write_gan_experiment(directory)` and `write_gan_run(directory)`."""
    return _synthetic("synthetic_gan")


@pytest.fixture(scope="session")
def representations():
    """Directories of representations: `write_representation_experiment(directory)` and `write_representation_run`."""
    return _synthetic("synthetic_representation")
