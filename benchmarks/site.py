"""A day at a site, simulated: series arrive, wait for a worker, are corrected and sent; where it breaks first.

python -m benchmarks.site --slice-s S --clean-slice-s S [--per-day N] [--metal SHARE] [--slices N] [--workers N ...]

The arrivals are a Poisson process whose rate follows a working day; the times of a correction are those measured by
`benchmarks.correction`, for as many slices as a series has, which vary from series to series.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

HOURS = np.array([1, 1, 1, 1, 1, 1, 2, 5, 9, 10, 10, 9, 8, 9, 10, 9, 8, 6, 4, 3, 2, 2, 1, 1], float)
"""Series an hour of the day, in proportion: a day clinic with an emergency room."""

SLICE_MB = 0.53
"""A 512 x 512 CT image, stored in 16 bits with its header."""


@dataclass
class Day:
    """What happened: waits and latencies in s, the longest queue, the largest spool in MB."""

    latencies_s: list[float] = field(default_factory=list)
    longest_queue: int = 0
    spool_mb: float = 0.0
    largest_mb: float = 0.0
    busy_s: float = 0.0
    left: int = 0


def simulate(
    *,
    per_day: float,
    metal: float,
    slices: float,
    slice_s: float,
    clean_slice_s: float,
    workers: int,
    days: int,
    seed: int,
) -> Day:
    """Days of a site; `metal` is the share of series with metal, `slices` the mean number of slices."""
    rng = np.random.default_rng(seed)
    world = simpy.Environment()
    pool = simpy.Resource(world, workers)
    day = Day()
    rates = HOURS / HOURS.sum() * per_day / 3600

    def arrivals() -> Iterator[Any]:
        while True:
            yield world.timeout(rng.exponential(1 / rates.max()))
            hour = int(world.now // 3600) % 24
            if rng.random() < rates[hour] / rates.max():  # thinned to the rate of this hour
                world.process(series())

    def series() -> Iterator[Any]:
        count = max(20, rng.lognormal(np.log(slices) - 0.125, 0.5))  # mean as given
        begin = world.now
        day.spool_mb += count * SLICE_MB
        day.largest_mb = max(day.largest_mb, day.spool_mb)
        with pool.request() as turn:
            day.longest_queue = max(day.longest_queue, len(pool.queue))
            yield turn
            seconds = count * (slice_s if rng.random() < metal else clean_slice_s)
            day.busy_s += seconds
            yield world.timeout(seconds)
        day.latencies_s.append(world.now - begin)
        day.spool_mb -= count * SLICE_MB

    world.process(arrivals())
    world.run(until=days * 86400)
    day.left = pool.count + len(pool.queue)
    return day


def main() -> None:
    """Print a line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-day", type=float, default=500)
    parser.add_argument("--metal", type=float, default=0.3)
    parser.add_argument("--slices", type=float, default=200)
    parser.add_argument("--slice-s", type=float, required=True, help="a slice of a series with metal, all counted")
    parser.add_argument("--clean-slice-s", type=float, required=True, help="a slice of a series without")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--days", type=int, default=10)
    given = parser.parse_args()
    print(f"{given.per_day:g} series a day of {given.slices:g} slices, {100 * given.metal:g} % with metal")
    for workers in given.workers:
        day = simulate(
            per_day=given.per_day, metal=given.metal, slices=given.slices, slice_s=given.slice_s, workers=workers,
            clean_slice_s=given.clean_slice_s, days=given.days, seed=0,
        )  # fmt: skip
        used = 100 * day.busy_s / (workers * given.days * 86400)
        ordered = np.percentile(day.latencies_s, [50, 95, 100]) / 60
        print(
            f"{workers} worker(s), {used:.0f} % busy:"
            f" latency {ordered[0]:.1f} / {ordered[1]:.1f} / {ordered[2]:.0f} min (median, 95 %, longest),"
            f" queue up to {day.longest_queue}, {day.left} left, spool up to {day.largest_mb / 1000:.1f} GB"
        )


if __name__ == "__main__":
    main()
