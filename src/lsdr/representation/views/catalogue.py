"""The transformations that views are made of, by modality, each named with one strength. Free of torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A transformation that can be named. At strength 0 it would do nothing; the larger, the stronger.

    Attributes:
        description: What it does, in terms of its strength s.
        unit: Of the strength, "" for a plain number.
        default: Strength where none is given.
        largest: Largest strength that makes sense.
        sweep: Strengths at which invariance is measured, none if it does nothing to an encoder that is not trained.
    """

    description: str
    unit: str
    default: float
    largest: float
    sweep: tuple[float, ...]


TRANSFORMATIONS: dict[str, dict[str, Kind]] = {
    "image": {
        "lighting": Kind("brightness and contrast, each by a factor of 1 ± s", "", 0.4, 1.0, (0.1, 0.2, 0.4, 0.6)),
        "brightness": Kind("pixels times a factor of 1 ± s", "", 0.4, 1.0, (0.1, 0.2, 0.4, 0.6)),
        "contrast": Kind("distance from the image's mean times a factor of 1 ± s", "", 0.4, 1.0, (0.1, 0.2, 0.4, 0.6)),
        "gamma": Kind("pixels to a power between 1/(1 + s) and 1 + s", "", 0.5, 1.0, (0.1, 0.25, 0.5, 1.0)),
        "colour": Kind("every channel times a factor of its own, 1 ± s", "", 0.2, 1.0, (0.1, 0.2, 0.4)),
        "grey": Kind("every channel their mean, with probability s", "", 0.2, 1.0, (1.0,)),
        "rotation": Kind("turned by up to ± s", "degrees", 15.0, 180.0, (5.0, 15.0, 30.0, 60.0, 90.0, 180.0)),
        "scale": Kind("magnified by 1/(1 + s) to 1 + s", "", 0.25, 3.0, (0.1, 0.25, 0.5, 1.0)),
        "shift": Kind("moved by up to ± s of the width and of the height", "", 0.1, 1.0, (0.05, 0.1, 0.2)),
        "crop": Kind(
            "up to s of the area cut away, the rest stretched over the image", "", 0.5, 0.95, (0.25, 0.5, 0.75)
        ),
        "flip": Kind("left and right exchanged, with probability s", "", 0.5, 1.0, (1.0,)),
        "blur": Kind("Gaussian blur with a standard deviation of up to s", "pixels", 1.0, 10.0, (0.5, 1.0, 2.0)),
        "noise": Kind("Gaussian noise with a standard deviation of up to s", "", 0.05, 1.0, (0.02, 0.05, 0.1)),
    },
    "text": {
        "token_dropout": Kind("every token masked with probability s", "", 0.1, 0.95, (0.05, 0.1, 0.2, 0.4)),
        "span_deletion": Kind("one stretch of s of the tokens taken out", "", 0.2, 0.95, (0.1, 0.2, 0.4)),
        "dropout": Kind("nothing but the encoder's own dropout, at rate s, while it trains", "", 0.1, 0.9, ()),
    },
    "table": {
        "marginal": Kind(
            "s of the cells of a row redrawn, each from its column's cells in training rows",
            "",
            0.3,
            1.0,
            (0.1, 0.3, 0.6),
        ),
        "noise": Kind(
            "Gaussian noise on numbers, of up to s of their column's deviation",
            "deviations",
            0.3,
            10.0,
            (0.1, 0.3, 1.0),
        ),
        "missing": Kind("every cell missing with probability s", "", 0.2, 0.95, (0.1, 0.2, 0.4)),
    },
}
"""Every transformation of every modality."""

DEFAULTS = {
    "image": "crop:0.5,rotation:15,lighting:0.4,noise:0.05",
    "text": "token_dropout:0.1,span_deletion:0.2,dropout:0.1",
    "table": "marginal:0.3",
}
"""What "default" stands for; images of several channels get "colour:0.2" more, those of three "grey:0.2" too."""

STRENGTHS = {
    modality: {name: kind.sweep for name, kind in kinds.items() if kind.sweep}
    for modality, kinds in TRANSFORMATIONS.items()
}
"""At which strengths invariance to each transformation is measured."""
