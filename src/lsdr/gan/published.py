"""What papers print for the benchmarks of mode collapse, each table under its protocol. Imports no torch."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Printed:
    """A printed number."""

    value: float
    error: float | None = None
    """What is printed after the plus-minus sign, if anything."""


@dataclass(frozen=True)
class Row:
    """One method of a table."""

    method: str
    values: dict[str, Printed]
    """By the names of our measures; shares, not per cent."""


@dataclass(frozen=True)
class Protocol:
    """One paper's table: its rows compare with each other, and with no other table's.

    The plain GAN of the grid captures 3.3 modes in VEEGAN's table and 17.3 in PacGAN's: what surrounds a method decides
    as much as the method.
    """

    name: str
    title: str
    data: str
    """"ring", "grid" or "stacked"."""
    citation: str
    samples: int | None
    """Samples that the numbers are made of; None where it is not stated."""
    runs: int | None
    note: str
    rows: tuple[Row, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures that any row has."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.values))


def published(data: str) -> tuple[Protocol, ...]:
    """The tables about some data.

    Args:
        data: As in the options of a run: "ring", "grid", "stacked-digits" or "stacked:" and a source; other data have
            none. All tables of stacked digits are about MNIST's: beside scikit-learn's smaller ones they are context.

    Returns:
        The protocols, one a table.

    Example:
        >>> [protocol.name for protocol in published("grid")]
        ['veegan-grid', 'pacgan-grid']
        >>> PROTOCOLS["pacgan-grid"].rows[-1].values["modes"]
        Printed(value=24.8, error=0.2)
    """
    kind = "stacked" if data.startswith("stacked") else data
    return tuple(protocol for protocol in PROTOCOLS.values() if protocol.data == kind)


_Numbers = tuple[float | int, ...]


def _points(method: str, modes: _Numbers, quality: _Numbers, kl: _Numbers = ()) -> Row:
    """A row of modes, per cent of high quality and, if printed, reverse KL; each a value and perhaps its error."""
    row = _classes(method, modes, kl)
    return Row(method, {**row.values, "high_quality": _printed(round(number / 100, 6) for number in quality)})


def _classes(method: str, modes: _Numbers, kl: _Numbers) -> Row:
    values = {"modes": _printed(modes)}
    return Row(method, {**values, "reverse_kl": _printed(kl)} if kl else values)


def _printed(numbers: Iterable[float | int]) -> Printed:
    return Printed(*map(float, numbers))


_VEEGAN = "Srivastava, Valkov, Russell, Gutmann, Sutton: VEEGAN. NeurIPS 2017, arXiv:1705.07761"
_PACGAN = "Lin, Khetan, Fanti, Oh: PacGAN. NeurIPS 2018, arXiv:1712.04086"
_UNROLLED = "Metz, Poole, Pfau, Sohl-Dickstein: Unrolled Generative Adversarial Networks. ICLR 2017, arXiv:1611.02163"
_R3GAN = "Huang, Gokaslan, Kuleshov, Tompkin: The GAN is dead; long live the GAN! NeurIPS 2024, arXiv:2501.05441"

_PACGAN_POINTS = (
    "Errors are standard errors. Latent of 2 dimensions, 400,000 iterations of 100 of 100,000 fixed points."
)
_STACKED_64 = "DCGAN of 64x64 pictures, 128,000 fixed pictures, 50 epochs. Classes as MNIST's classifier sees them."
_UNROLLED_NOTE = (
    "Generator of 287,875 parameters, discriminator {} as wide, batch normalisation in both, 28x28 pictures; errors as "
    "printed."
)

_TABLES = (
    Protocol(
        name="veegan-ring",
        title="VEEGAN's table: ring of 8",
        data="ring",
        citation=_VEEGAN,
        samples=2500,
        runs=5,
        note="Ring of radius 1, standard deviation 0.01. The reverse KL is not printed.",
        rows=(
            _points("GAN", (1,), (99.3,)),
            _points("ALI", (2.8,), (0.13,)),
            _points("Unrolled GAN", (7.6,), (35.6,)),
            _points("VEEGAN", (8,), (52.9,)),
        ),
    ),
    Protocol(
        name="veegan-grid",
        title="VEEGAN's table: grid of 25",
        data="grid",
        citation=_VEEGAN,
        samples=2500,
        runs=5,
        note="Grid -4, -2, 0, 2, 4 in both directions, standard deviation 0.05. The reverse KL is not printed.",
        rows=(
            _points("GAN", (3.3,), (0.5,)),
            _points("ALI", (15.8,), (1.6,)),
            _points("Unrolled GAN", (23.6,), (16,)),
            _points("VEEGAN", (24.6,), (40,)),
        ),
    ),
    Protocol(
        name="pacgan-ring",
        title="PacGAN's table: ring of 8",
        data="ring",
        citation=_PACGAN,
        samples=2500,
        runs=10,
        note=_PACGAN_POINTS,
        rows=(
            _points("GAN", (6.3, 0.5), (98.2, 0.2), (0.45, 0.09)),
            _points("ALI", (6.6, 0.3), (97.6, 0.4), (0.36, 0.04)),
            _points("PacGAN2", (7.9, 0.1), (95.6, 2.0), (0.07, 0.03)),
            _points("PacGAN3", (7.8, 0.1), (97.7, 0.3), (0.10, 0.02)),
            _points("PacGAN4", (7.8, 0.1), (95.9, 1.4), (0.07, 0.02)),
        ),
    ),
    Protocol(
        name="pacgan-grid",
        title="PacGAN's table: grid of 25",
        data="grid",
        citation=_PACGAN,
        samples=2500,
        runs=10,
        note=_PACGAN_POINTS,
        rows=(
            _points("GAN", (17.3, 0.8), (94.8, 0.7), (0.70, 0.07)),
            _points("ALI", (24.1, 0.4), (95.7, 0.6), (0.14, 0.03)),
            _points("PacGAN2", (23.8, 0.7), (91.3, 0.8), (0.13, 0.04)),
            _points("PacGAN3", (24.6, 0.4), (94.2, 0.4), (0.06, 0.02)),
            _points("PacGAN4", (24.8, 0.2), (93.6, 0.6), (0.04, 0.01)),
        ),
    ),
    Protocol(
        name="veegan-stacked",
        title="VEEGAN's table: stacked MNIST",
        data="stacked",
        citation=_VEEGAN,
        samples=26_000,
        runs=None,
        note=_STACKED_64,
        rows=(
            _classes("DCGAN", (99,), (3.40,)),
            _classes("ALI", (16,), (5.40,)),
            _classes("Unrolled GAN", (48.7,), (4.32,)),
            _classes("VEEGAN", (150,), (2.95,)),
        ),
    ),
    Protocol(
        name="pacgan-stacked",
        title="PacGAN's runs in VEEGAN's setting: stacked MNIST",
        data="stacked",
        citation=_PACGAN,
        samples=26_000,
        runs=10,
        note=_STACKED_64
        + " The published code classifies the generator's output in [-1, 1] with a classifier of [0, 1] pictures.",
        rows=(
            _classes("DCGAN", (78.9, 6.5), (4.50,)),
            _classes("PacDCGAN2", (1000,), (0.06, 0.003)),
            _classes("PacDCGAN3", (1000,), (0.06,)),
            _classes("PacDCGAN4", (1000,), (0.07,)),
        ),
    ),
    Protocol(
        name="unrolled-stacked-quarter",
        title="Unrolled GAN's table: stacked MNIST, discriminator a quarter as wide",
        data="stacked",
        citation=_UNROLLED,
        samples=25_600,
        runs=None,
        note=_UNROLLED_NOTE.format("a quarter"),
        rows=(
            _classes("DCGAN", (30.6, 20.7), (5.99,)),
            _classes("Unrolled 1 step", (65.4, 34.8), (5.91,)),
            _classes("Unrolled 5 steps", (236.4, 63.3), (4.67,)),
            _classes("Unrolled 10 steps", (327.2, 74.7), (4.66,)),
        ),
    ),
    Protocol(
        name="unrolled-stacked-half",
        title="Unrolled GAN's table: stacked MNIST, discriminator half as wide",
        data="stacked",
        citation=_UNROLLED,
        samples=25_600,
        runs=None,
        note=_UNROLLED_NOTE.format("half"),
        rows=(
            _classes("DCGAN", (628, 141), (2.58,)),
            _classes("Unrolled 1 step", (523.6, 55.8), (2.44,)),
            _classes("Unrolled 5 steps", (732, 45), (1.66,)),
            _classes("Unrolled 10 steps", (817.4, 37.9), (1.43,)),
        ),
    ),
    Protocol(
        name="pacgan-unrolled-stacked-quarter",
        title="PacGAN's runs in Unrolled GAN's setting: stacked MNIST, discriminator a quarter as wide",
        data="stacked",
        citation=_PACGAN,
        samples=25_600,
        runs=50,
        note=_UNROLLED_NOTE.format("a quarter"),
        rows=(
            _classes("DCGAN", (78.5, 17.6), (5.21,)),
            _classes("PacDCGAN2", (484.5, 33.0), (2.61,)),
            _classes("PacDCGAN3", (601.3, 32.2), (2.00,)),
            _classes("PacDCGAN4", (667.4, 29.0), (1.81,)),
        ),
    ),
    Protocol(
        name="pacgan-unrolled-stacked-half",
        title="PacGAN's runs in Unrolled GAN's setting: stacked MNIST, discriminator half as wide",
        data="stacked",
        citation=_PACGAN,
        samples=25_600,
        runs=50,
        note=_UNROLLED_NOTE.format("half"),
        rows=(
            _classes("DCGAN", (487.7, 34.6), (2.24,)),
            _classes("PacDCGAN2", (840.7, 15.9), (1.00,)),
            _classes("PacDCGAN3", (866.6, 12.1), (0.90,)),
            _classes("PacDCGAN4", (820.2, 25.5), (1.15,)),
        ),
    ),
    Protocol(
        name="r3gan-stacked",
        title="R3GAN's table 3: stacked MNIST",
        data="stacked",
        citation=_R3GAN,
        samples=None,
        runs=None,
        note="A small ResNet without normalisation. The relativistic loss with R1 alone and the plain loss with R1 "
        "alone diverged.",
        rows=(
            _classes("RpGAN + R1 + R2", (1000,), (0.0781,)),
            _classes("GAN + R1 + R2", (693,), (0.9270,)),
        ),
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _TABLES}
"""Every table by its protocol's name."""
