"""A made-up table of houses and their prices, to reduce: nine features matter, one is noise. Nothing in it was sold.

`python examples/houses.py` writes 2000 houses to houses.parquet, `python examples/houses.py few.csv 36` 36 as CSV;
then `lsdr reduce houses.parquet --target price`.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

LOCATIONS = ("centre", "harbour", "hills", "suburb")
PREMIUM = {"centre": 18.0, "harbour": 9.0, "hills": 4.0, "suburb": 0.0}
NOISE = 10.0  # standard deviation of what no feature explains: no model's error can be below 100, its square


def houses(count: int = 2000, seed: int = 0) -> dict[str, np.ndarray]:
    """Ten features and a price in thousands; the house number has no part in the price."""
    random = np.random.default_rng(seed)
    area = np.round(random.gamma(12.0, 11.0, count), 1)  # square metres
    bedrooms = np.clip(np.round(area / 38 + random.normal(0, 0.7, count)), 1, 8).astype(int)
    bathrooms = np.clip(np.round(bedrooms / 2 + random.normal(0, 0.5, count)), 1, 5).astype(int)
    lot = np.round(area * random.lognormal(1.1, 0.4, count), 0)  # square metres
    age = random.integers(0, 110, count)
    floors = random.choice([1, 2, 3], count, p=[0.45, 0.45, 0.1])
    garage = random.binomial(2, 0.45, count)
    location = random.choice(LOCATIONS, count, p=[0.2, 0.15, 0.25, 0.4])
    distance = np.round(random.gamma(3.0, 2.0, count) * np.where(location == "centre", 0.3, 1.0), 1)  # km
    house_number = random.integers(1, 200, count)
    price = (
        40 + 1.9 * area + 2.5 * bedrooms + 4.0 * bathrooms + 0.02 * lot - 0.25 * age + 2.0 * floors + 6.0 * garage
        - 1.4 * distance + np.array([PREMIUM[name] for name in location]) + 0.0 * house_number
        + NOISE * random.standard_normal(count)
    )  # fmt: skip
    return {
        "area": area, "bedrooms": bedrooms, "bathrooms": bathrooms, "lot": lot, "age": age, "floors": floors,
        "garage": garage, "distance": distance, "location": location, "house_number": house_number,
        "price": np.round(price, 2),
    }  # fmt: skip


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "houses.parquet")
    table = pa.table(houses(int(sys.argv[2]) if len(sys.argv) > 2 else 2000))
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    print(f"{path}: {table.num_rows} simulated houses, {table.num_columns - 1} features and the price in thousands")


if __name__ == "__main__":
    main()
