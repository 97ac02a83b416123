"""The printed tables: kept apart, complete, possible."""

import math
import subprocess
import sys

import pytest

from lsdr.gan.measures.catalogue import MEASURES
from lsdr.gan.published import PROTOCOLS, published

MODES = {"ring": 8, "grid": 25, "stacked": 1000}


@pytest.mark.parametrize("data", ["ring", "grid", "stacked-digits", "stacked:mnist-images-idx3-ubyte.gz"])
def test_data_have_the_tables_about_them(data):
    found = published(data)
    kind = data.partition("-")[0].partition(":")[0]
    assert {protocol.data for protocol in found} == {kind}
    assert [protocol for protocol in PROTOCOLS.values() if protocol.data == kind] == [*found]


def test_other_data_have_none():
    assert published("patches") == ()


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_rows_are_possible(protocol):
    """Over m of K modes the divergence from uniform is at least ln(K/m), and so (Jensen) are means over runs."""
    assert set(protocol.measures) <= MEASURES.keys()
    total = MODES[protocol.data]
    for row in protocol.rows:
        modes = row.values["modes"].value
        assert 1 <= modes <= total
        if "reverse_kl" in row.values:
            assert math.log(total / modes) <= row.values["reverse_kl"].value + 0.005
            assert row.values["reverse_kl"].value < math.log(total)
        if "high_quality" in row.values:
            assert 0 < row.values["high_quality"].value < 1
    assert len({row.method for row in protocol.rows}) == len(protocol.rows)


def test_papers_are_not_mixed():
    """The plain GAN of two papers differs by 14 modes; each protocol has one of them."""
    plain = {
        name: row.values["modes"].value
        for name, protocol in PROTOCOLS.items()
        for row in protocol.rows
        if protocol.data == "grid" and row.method == "GAN"
    }
    assert plain == {"veegan-grid": 3.3, "pacgan-grid": 17.3}


def test_what_reports_read_imports_no_torch():
    modules = "lsdr.gan.published, lsdr.gan.measures.catalogue, lsdr.gan.measures.config"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
