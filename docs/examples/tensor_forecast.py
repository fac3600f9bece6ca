"""Fit a tensor model to scattered measurements, check its intervals on held-out rows, and predict new places."""

import argparse
from pathlib import Path

import numpy as np

from fieldmorph.bayes import FunBaTRegressor


def measure(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates (n, 3), latitude, longitude and day, and noisy temperatures (n,) in degrees Celsius."""
    places = rng.uniform([-60, -180, 0], [60, 180, 365], size=(n, 3))
    latitude, longitude, day = places.T
    season = np.sin(np.deg2rad(latitude)) * np.cos(2 * np.pi * (day - 200) / 365)
    mean = 25 * np.cos(np.deg2rad(latitude)) + 8 * season + 2 * np.cos(np.deg2rad(longitude))
    return places, mean + rng.normal(0, 0.5, n)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4000, help="measurements to fit")
    parser.add_argument("--steps", type=int, default=100, help="maximum number of sweeps")
    parser.add_argument("--output", type=Path, default=Path("example_output"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(0)
    X, y = measure(rng, args.rows)
    X_test, y_test = measure(rng, 1000)
    model = FunBaTRegressor(
        rank=4, kernel="matern52", calibration=0.1, sweeps=args.steps, random_state=0
    ).fit(X, y)

    lower, upper = model.predict_interval(X_test, level=0.9).T
    error = np.sqrt(np.mean((model.predict(X_test) - y_test) ** 2))
    print(
        f"RMSE {error:.2f} degrees, {np.mean((lower <= y_test) & (y_test <= upper)):.0%} inside the 90 % intervals"
    )

    mean, sd = model.predict(X_test, return_std=True)
    table = np.column_stack([X_test, mean, sd])
    header = "latitude,longitude,day,mean,sd"
    np.savetxt(args.output / "predicted.csv", table, fmt="%.4f", delimiter=",", header=header, comments="")


if __name__ == "__main__":
    main()
