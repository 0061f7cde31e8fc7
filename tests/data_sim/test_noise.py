"""Readings of the detector: their moments against theory, or against photons drawn energy by energy."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from data_sim.noise import FEWEST, detect, poisson
from data_sim.spectrum import load_spectrum

SAMPLES = 200_000  # 4.5 standard deviations of a variance are then 1.4 %


def readings(signal, *, seed=0, **options):
    return detect(np.full(SAMPLES, signal), rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("photons", [30.0, 5e3, 1e7])
def test_counted_photons_are_poisson(photons):
    counts = readings(photons)
    np.testing.assert_array_equal(counts, np.round(counts))
    assert counts.mean() == pytest.approx(photons, abs=5 * np.sqrt(photons / SAMPLES))
    assert counts.var() == pytest.approx(photons, rel=0.02)


@pytest.mark.parametrize("mean", [0.3, 8.0, 49.0, 51.0, 700.0])
def test_counts_have_the_distribution_of_poisson(mean):
    counts = poisson(np.full(SAMPLES, mean), np.random.default_rng(4))
    k = np.arange(int(mean + 8 * np.sqrt(mean) + 8))
    below = np.searchsorted(np.sort(counts), k, side="right") / SAMPLES
    # 1.95 / sqrt(samples) is exceeded by one in a thousand Kolmogorov-Smirnov distances
    assert np.abs(below - stats.poisson.cdf(k, mean)).max() < 1.95 / np.sqrt(SAMPLES)
    assert stats.skew(counts) == pytest.approx(1 / np.sqrt(mean), abs=0.03)


def test_noise_does_not_change_with_rounding():
    """Means that differ in the seventh digit, as on another device, give counts that differ by a few at most."""
    mean = np.random.default_rng(0).uniform(0, 1e6, SAMPLES)
    first = poisson(mean, np.random.default_rng(1))
    second = poisson(mean * (1 + 1e-7), np.random.default_rng(1))
    assert np.abs(second - first).max() <= 1
    alone = poisson(mean[:1000], np.random.default_rng(1))
    np.testing.assert_array_equal(alone, first[:1000])


def test_added_up_energies_have_the_moments_of_every_energy_drawn_by_itself():
    """Compound Poisson by brute force: a count for each energy of a hardened spectrum, times the energy."""
    air = load_spectrum(120)
    behind = air.weights * np.exp(-0.03 * (120 - air.energies_kev))
    numbers = 400 * behind / behind.sum()
    rng = np.random.default_rng(1)
    added = rng.poisson(numbers, (40_000, numbers.size)) @ air.energies_kev / air.mean_energy_kev
    mean = numbers @ air.energies_kev / air.mean_energy_kev
    variance = numbers @ air.energies_kev**2 / air.mean_energy_kev**2
    ours = detect(np.full(SAMPLES, mean), np.full(SAMPLES, variance), rng=np.random.default_rng(2))
    assert ours.mean() == pytest.approx(added.mean(), rel=2e-3)
    assert ours.var() == pytest.approx(added.var(), rel=0.04)
    assert variance / mean > 1.2  # noisier than counted photons of the same signal


def test_electronic_noise_adds_its_variance():
    counts = readings(400.0, electronic_noise=30.0)
    assert counts.mean() == pytest.approx(400, abs=0.5)
    assert counts.var() == pytest.approx(400 + 900, rel=0.02)


@pytest.mark.parametrize("crosstalk", [0.05, 0.2])
def test_crosstalk_correlates_neighbours_before_electronics(crosstalk):
    """Of white noise through [c, 1 - 2c, c]: variance (1 - 2c)^2 + 2 c^2, neighbours 2 c (1 - 2c), next c^2."""
    noise = readings(1e4, crosstalk=crosstalk, electronic_noise=50.0) - 1e4
    c = crosstalk
    got = [np.mean(noise[lag:] * noise[: SAMPLES - lag]) for lag in range(4)]
    expected = [1e4 * ((1 - 2 * c) ** 2 + 2 * c**2) + 2500, 1e4 * 2 * c * (1 - 2 * c), 1e4 * c**2, 0]
    np.testing.assert_allclose(got, expected, atol=0.015 * 1e4)


def test_nothing_is_read_as_less_than_one_photon():
    assert FEWEST == 1
    for options in ({}, {"electronic_noise": 10.0}, {"variance": np.zeros(SAMPLES)}):
        variance = options.pop("variance", None)
        dark = detect(np.zeros(SAMPLES), variance, rng=np.random.default_rng(0), **options)
        assert dark.min() == 1
        assert np.isfinite(dark).all()
    glare = readings(20.0)
    assert glare.mean() == pytest.approx(20, rel=0.01)


def test_noise_follows_its_generator():
    first, again, other = (readings(1e4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_threads_and_forks_do_not_end_the_process():
    """Callers have threads of their own, and some fork; the counts stay the same."""
    mean = np.full(100_000, 30.0)
    expected = poisson(mean, np.random.default_rng(0))
    with ThreadPoolExecutor(3) as pool:
        for counts in pool.map(lambda _: poisson(mean, np.random.default_rng(0)), range(6)):
            np.testing.assert_array_equal(counts, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(poisson(mean, np.random.default_rng(0)), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
