"""Backward eliminations printed by other programs, with their data.

The printed figures are rounded; that data and figures belong together is held against exact rational arithmetic.
"""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Printed:
    """A data set and the path that was printed for it.

    `names` are the columns of `table`, the response first. `removed` are the names in the order of their removal, `rss`
    and `aic` the values of the full model and after each removal (R's `extractAIC`), as printed. `drop_rss` has, for
    each printed step, the residual sum of squares after dropping each of the names. `t` are printed t values by step.
    """

    name: str
    names: tuple[str, ...]
    table: str
    removed: tuple[str, ...]
    rss: tuple[str, ...]
    aic: tuple[str, ...]
    drop_rss: tuple[dict[str, str], ...]
    t: dict[int, dict[str, str]]

    def rows(self) -> list[list[Fraction]]:
        """The table as rational numbers."""
        return [[Fraction(value) for value in row.split()] for row in self.table.split(";")]

    def y(self) -> list[Fraction]:
        """The response."""
        return [row[0] for row in self.rows()]

    def columns(self) -> dict[str, list[Fraction]]:
        """The predictors by name."""
        return dict(zip(self.names[1:], map(list, list(zip(*self.rows(), strict=True))[1:]), strict=True))


# Woods, Steinour and Starke (1932), heat of hardening of cement, in Hald (1952); path by R's step().
HALD = Printed(
    "hald",
    ("heat", "x1", "x2", "x3", "x4"),
    """78.5 7 26 6 60; 74.3 1 29 15 52; 104.3 11 56 8 20; 87.6 11 31 8 47; 95.9 7 52 6 33; 109.2 11 55 9 22;
    102.7 3 71 17 6; 72.5 1 31 22 44; 93.1 2 54 18 22; 115.9 21 47 4 26; 83.8 1 40 23 34; 113.3 11 66 9 12;
    109.4 10 68 8 12""",
    ("x3", "x4"),
    ("47.864", "47.973", "57.90"),
    ("26.944", "24.974", "25.420"),
    (
        {"x3": "47.973", "x4": "48.111", "x2": "50.836", "x1": "73.815"},
        {"x4": "57.90", "x2": "74.76", "x1": "868.88"},
    ),
    {
        0: {"Intercept": "0.891", "x1": "2.083", "x2": "0.705", "x3": "0.135", "x4": "-0.203"},
        1: {"Intercept": "5.066", "x1": "12.410", "x2": "2.242", "x4": "-1.365"},
        2: {"Intercept": "23.00", "x1": "12.11", "x2": "14.44"},
    },
)

# Fertility in 47 French-speaking Swiss provinces about 1888, Mosteller and Tukey (1977); R's `swiss`, path by step().
SWISS = Printed(
    "swiss",
    ("Fertility", "Agriculture", "Examination", "Education", "Catholic", "Infant.Mortality"),
    """80.2 17 15 12 9.96 22.2; 83.1 45.1 6 9 84.84 22.2; 92.5 39.7 5 5 93.4 20.2; 85.8 36.5 12 7 33.77 20.3;
    76.9 43.5 17 15 5.16 20.6; 76.1 35.3 9 7 90.57 26.6; 83.8 70.2 16 7 92.85 23.6; 92.4 67.8 14 8 97.16 24.9;
    82.4 53.3 12 7 97.67 21; 82.9 45.2 16 13 91.38 24.4; 87.1 64.5 14 6 98.61 24.5; 64.1 62 21 12 8.52 16.5;
    66.9 67.5 14 7 2.27 19.1; 68.9 60.7 19 12 4.43 22.7; 61.7 69.3 22 5 2.82 18.7; 68.3 72.6 18 2 24.2 21.2;
    71.7 34 17 8 3.3 20; 55.7 19.4 26 28 12.11 20.2; 54.3 15.2 31 20 2.15 10.8; 65.1 73 19 9 2.84 20;
    65.5 59.8 22 10 5.23 18; 65 55.1 14 3 4.52 22.4; 56.6 50.9 22 12 15.14 16.7; 57.4 54.1 20 6 4.2 15.3;
    72.5 71.2 12 1 2.4 21; 74.2 58.1 14 8 5.23 23.8; 72 63.5 6 3 2.56 18; 60.5 60.8 16 10 7.72 16.3;
    58.3 26.8 25 19 18.46 20.9; 65.4 49.5 15 8 6.1 22.5; 75.5 85.9 3 2 99.71 15.1; 69.3 84.9 7 6 99.68 19.8;
    77.3 89.7 5 2 100 18.3; 70.5 78.2 12 6 98.96 19.4; 79.4 64.9 7 3 98.22 20.2; 65 75.9 9 9 99.06 17.8;
    92.2 84.6 3 3 99.46 16.3; 79.3 63.1 13 13 96.83 18.1; 70.4 38.4 26 12 5.62 20.3; 65.7 7.7 29 11 13.79 20.5;
    72.7 16.7 22 13 11.22 18.9; 64.4 17.6 35 32 16.92 23; 77.6 37.6 15 7 4.97 20; 67.6 18.7 25 7 8.65 19.5;
    35 1.2 37 53 42.34 18; 44.7 46.6 16 29 50.43 18.2; 42.8 27.7 22 29 58.33 19.3""",
    ("Examination", "Agriculture"),
    ("2105.0", "2158.1", "2422.2"),
    ("190.69", "189.86", "193.29"),
    (
        {"Examination": "2158.1", "Agriculture": "2412.8", "Infant.Mortality": "2513.8", "Catholic": "2552.8",
         "Education": "3267.6"},
        {"Agriculture": "2422.2", "Infant.Mortality": "2567.9", "Catholic": "3114.6", "Education": "4408.0"},
    ),
    {
        0: {"Intercept": "6.250", "Agriculture": "-2.448", "Examination": "-1.016", "Education": "-4.758",
            "Catholic": "2.953", "Infant.Mortality": "2.822"},
        1: {"Agriculture": "-2.267", "Education": "-6.617", "Catholic": "4.315", "Infant.Mortality": "2.824"},
    },
)  # fmt: skip

# Henderson and Velleman (1981), Motor Trend's road tests of 1974; R's `mtcars`, path by step() down to three.
MTCARS = Printed(
    "mtcars",
    ("mpg", "cyl", "disp", "hp", "drat", "wt", "qsec", "vs", "am", "gear", "carb"),
    """21 6 160 110 3.9 2.62 16.46 0 1 4 4; 21 6 160 110 3.9 2.875 17.02 0 1 4 4; 22.8 4 108 93 3.85 2.32 18.61 1 1 4 1;
    21.4 6 258 110 3.08 3.215 19.44 1 0 3 1; 18.7 8 360 175 3.15 3.44 17.02 0 0 3 2;
    18.1 6 225 105 2.76 3.46 20.22 1 0 3 1; 14.3 8 360 245 3.21 3.57 15.84 0 0 3 4;
    24.4 4 146.7 62 3.69 3.19 20 1 0 4 2; 22.8 4 140.8 95 3.92 3.15 22.9 1 0 4 2;
    19.2 6 167.6 123 3.92 3.44 18.3 1 0 4 4; 17.8 6 167.6 123 3.92 3.44 18.9 1 0 4 4;
    16.4 8 275.8 180 3.07 4.07 17.4 0 0 3 3; 17.3 8 275.8 180 3.07 3.73 17.6 0 0 3 3;
    15.2 8 275.8 180 3.07 3.78 18 0 0 3 3; 10.4 8 472 205 2.93 5.25 17.98 0 0 3 4; 10.4 8 460 215 3 5.424 17.82 0 0 3 4;
    14.7 8 440 230 3.23 5.345 17.42 0 0 3 4; 32.4 4 78.7 66 4.08 2.2 19.47 1 1 4 1;
    30.4 4 75.7 52 4.93 1.615 18.52 1 1 4 2; 33.9 4 71.1 65 4.22 1.835 19.9 1 1 4 1;
    21.5 4 120.1 97 3.7 2.465 20.01 1 0 3 1; 15.5 8 318 150 2.76 3.52 16.87 0 0 3 2;
    15.2 8 304 150 3.15 3.435 17.3 0 0 3 2; 13.3 8 350 245 3.73 3.84 15.41 0 0 3 4;
    19.2 8 400 175 3.08 3.845 17.05 0 0 3 2; 27.3 4 79 66 4.08 1.935 18.9 1 1 4 1; 26 4 120.3 91 4.43 2.14 16.7 0 1 5 2;
    30.4 4 95.1 113 3.77 1.513 16.9 1 1 5 2; 15.8 8 351 264 4.22 3.17 14.5 0 1 5 4;
    19.7 6 145 175 3.62 2.77 15.5 0 1 5 6; 15 8 301 335 3.54 3.57 14.6 0 1 5 8;
    21.4 4 121 109 4.11 2.78 18.6 1 1 4 2""",
    ("cyl", "vs", "carb", "gear", "drat", "disp", "hp", "am"),
    ("147.49", "147.57", "147.84", "148.53", "150.09", "153.44", "160.07", "169.29", "195.46"),
    ("70.898", "68.915", "66.973", "65.121", "63.457", "62.162", "61.515", "61.307", "63.908"),
    (
        {"cyl": "147.57", "vs": "147.66", "carb": "147.90", "gear": "148.85", "drat": "149.12", "disp": "151.41",
         "hp": "154.33", "qsec": "156.36", "am": "158.04", "wt": "174.51"},
        {"vs": "147.84", "carb": "148.09", "gear": "149.40", "drat": "149.56", "disp": "151.47", "hp": "154.94",
         "qsec": "157.67", "am": "159.41", "wt": "174.60"},
        {"carb": "148.53", "gear": "149.99", "drat": "150.06", "disp": "151.49", "hp": "154.95", "am": "159.41",
         "qsec": "163.53", "wt": "175.22"},
        {"gear": "150.09", "drat": "150.46", "disp": "158.64", "am": "160.85", "hp": "163.35", "qsec": "174.94",
         "wt": "217.66"},
        {"drat": "153.44", "disp": "158.64", "hp": "163.38", "am": "170.13", "qsec": "175.67", "wt": "217.66"},
        {"disp": "160.07", "hp": "166.01", "qsec": "179.91", "am": "185.63", "wt": "222.48"},
        {"hp": "169.29", "qsec": "180.29", "am": "186.06", "wt": "238.56"},
        {"am": "195.46", "qsec": "278.32", "wt": "352.63"},
    ),
    {
        0: {"Intercept": "0.657", "cyl": "-0.107", "disp": "0.747", "hp": "-0.987", "drat": "0.481", "wt": "-1.961",
            "qsec": "1.123", "vs": "0.151", "am": "1.225", "gear": "0.439", "carb": "-0.241"},
        7: {"Intercept": "1.382", "wt": "-5.507", "qsec": "4.247", "am": "2.081"},
    },
)  # fmt: skip

# Brownlee (1965), a plant oxidising ammonia to nitric acid; R's `stackloss`, path by step().
STACKLOSS = Printed(
    "stackloss",
    ("stack.loss", "Air.Flow", "Water.Temp", "Acid.Conc."),
    """42 80 27 89; 37 80 27 88; 37 75 25 90; 28 62 24 87; 18 62 22 87; 18 62 23 87; 19 62 24 93; 20 62 24 93;
    15 58 23 87; 14 58 18 80; 14 58 18 89; 13 58 17 88; 11 58 18 82; 12 58 19 93; 8 50 18 89; 7 50 18 86; 8 50 19 72;
    8 50 19 79; 9 50 20 80; 15 56 20 82; 15 70 20 91""",
    ("Acid.Conc.", "Water.Temp"),
    ("178.83", "188.80", "319.12"),
    ("52.980", "52.119", "61.142"),
    (
        {"Acid.Conc.": "188.80", "Water.Temp": "309.14", "Air.Flow": "475.06"},
        {"Water.Temp": "319.12", "Air.Flow": "483.15"},
    ),
    {1: {"Intercept": "-9.801", "Air.Flow": "5.298"}},
)

# Aerobic fitness, North Carolina State University; SAS/STAT User's Guide, the REG procedure, example "Aerobic Fitness
# Prediction". Printed there: the full model's sums of squares; its t values as R prints them.
FITNESS = Printed(
    "fitness",
    ("Oxygen", "Age", "Weight", "RunTime", "RestPulse", "RunPulse", "MaxPulse"),
    """44.609 44 89.47 11.37 62 178 182; 45.313 40 75.07 10.07 62 185 185; 54.297 44 85.84 8.65 45 156 168;
    59.571 42 68.15 8.17 40 166 172; 49.874 38 89.02 9.22 55 178 180; 44.811 47 77.45 11.63 58 176 176;
    45.681 40 75.98 11.95 70 176 180; 49.091 43 81.19 10.85 64 162 170; 39.442 44 81.42 13.08 63 174 176;
    60.055 38 81.87 8.63 48 170 186; 50.541 44 73.03 10.13 45 168 168; 37.388 45 87.66 14.03 56 186 192;
    44.754 45 66.45 11.12 51 176 176; 47.273 47 79.15 10.60 47 162 164; 51.855 54 83.12 10.33 50 166 170;
    49.156 49 81.42 8.95 44 180 185; 40.836 51 69.63 10.95 57 168 172; 46.672 51 77.91 10.00 48 162 168;
    46.774 48 91.63 10.25 48 162 164; 50.388 49 73.37 10.08 67 168 168; 39.407 57 73.37 12.63 58 174 176;
    46.080 54 79.38 11.17 62 156 165; 45.441 52 76.32 9.63 48 164 166; 54.625 50 70.87 8.92 48 146 155;
    45.118 51 67.25 11.08 48 172 172; 39.203 54 91.63 12.88 44 168 172; 45.790 51 73.71 10.47 59 186 188;
    50.545 57 59.08 9.93 49 148 155; 48.673 49 76.32 9.40 56 186 188; 47.920 48 61.24 11.50 52 170 176;
    47.467 52 82.78 10.50 53 170 172""",
    ("RestPulse",),
    ("128.83794",),
    (),
    (),
    {
        0: {"Intercept": "8.299", "Age": "-2.273", "Weight": "-1.359", "RunTime": "-6.835", "RestPulse": "-0.326",
            "RunPulse": "-3.084", "MaxPulse": "2.221"},
    },
)  # fmt: skip

PRINTED = (HALD, SWISS, MTCARS, STACKLOSS, FITNESS)
