"""The beam in air: bowtie filter and photons against a calculation by hand."""

import numpy as np
import pytest

from data_sim.acquisition import ScanSettings
from data_sim.beam import bowtie_thickness_mm, photons_per_ray, pitch_mm
from data_sim.geometry import FanArc, FanFlat, Parallel
from data_sim.spectrum import load_spectrum

ARC, FLAT, PARALLEL = FanArc(), FanFlat(), Parallel()


def test_pitch_at_the_isocentre():
    assert pitch_mm(ARC) == pytest.approx(0.595, rel=1e-5)
    assert pitch_mm(FLAT) == pytest.approx(595 / 1085.6, rel=1e-5)
    assert pitch_mm(PARALLEL) == pytest.approx(1.0)


@pytest.mark.parametrize("geometry", [ARC, FLAT, PARALLEL], ids=lambda g: g.type)
def test_bowtie_and_cylinder_together_weaken_every_ray_alike(geometry):
    """NIST at 70 keV: water 0.1929 / cm; PMMA between 0.1924 (60 keV) and 0.1751 cm2/g (80 keV), 1.19 g/cm3."""
    bins = np.arange(geometry.bins) - (geometry.bins - 1) / 2
    fan = {"fan-arc": bins * 0.001, "fan-flat": np.arctan(bins / 1085.6)}
    s_mm = 595 * np.sin(fan[geometry.type]) if geometry.type in fan else bins
    water_mm = 2 * np.sqrt(np.maximum(110**2 - s_mm**2, 0))
    mu_pmma = 1.19 * np.exp(np.interp(np.log(70), np.log([60, 80]), np.log([0.1924, 0.1751])))
    filter_mm = bowtie_thickness_mm(geometry, 220.0)
    together = 0.01929 * water_mm + mu_pmma / 10 * filter_mm
    np.testing.assert_allclose(together, 0.01929 * 220, rtol=0.005)
    assert filter_mm.min() == pytest.approx(0, abs=1e-2)  # of the two middle bins
    half = ScanSettings(bowtie_mm=220.0, bowtie_share=0.5).beam(geometry).bowtie_mm
    np.testing.assert_allclose(half, filter_mm / 2)


def test_photons_from_milliampere_seconds():
    """200 mAs over 984 views, a bin of 1 mm x 1.681 mm at 1 m, 2.335e6 photons per mm2 and mAs there."""
    expected = 2.335e6 * (200 / 984) * 1.0 * (1000 / 595)
    n = photons_per_ray(200.0, ARC, slice_mm=1.0, kvp=120)
    assert n == pytest.approx(expected, rel=1e-3)
    flat = photons_per_ray(200.0, FLAT, slice_mm=5.0, kvp=120)
    assert flat == pytest.approx(5 * expected * 1000 / 1085.6, rel=1e-3)
    assert ScanSettings(mas=200.0).beam(ARC).photons == pytest.approx(n)
    assert ScanSettings(mas=200.0, slice_thickness_mm=5.0).beam(FLAT).photons == pytest.approx(flat)


def test_a_filter_costs_photons_of_mas_but_not_those_that_were_asked_for():
    """1 mm of copper passes exp(-1.593 x 0.896) = 24 % at 60 keV (NIST), the mean energy, and more behind itself."""
    bare, filtered = (ScanSettings(mas=100.0, filter_cu_mm=t).beam(ARC).photons for t in (0.0, 1.0))
    assert 0.2 < filtered / bare < 0.28
    assert ScanSettings(filter_cu_mm=1.0).beam(ARC).photons == 2e7


def test_variance_of_an_added_up_signal_in_air():
    """<E^2> / <E>^2 of the photons themselves."""
    counting = load_spectrum(120)
    e, n = counting.energies_kev, counting.weights
    beam = ScanSettings(detector="energy-integrating").beam()
    assert beam.variance_per_photon == pytest.approx((n @ e**2) / (n @ e) ** 2, rel=1e-12)
    assert 1.05 < beam.variance_per_photon < 1.15
    assert len(beam.spectra) == 2
    assert len(ScanSettings().beam().spectra) == 1


def test_what_needs_a_geometry_says_so():
    for name, value in (("bowtie_mm", 200.0), ("mas", 100.0), ("scatter_ratio", 0.02), ("focal_spot_mm", 0.5)):
        with pytest.raises(ValueError, match=f"{name} needs the geometry"):
            ScanSettings(**{name: value}).beam()
    with pytest.raises(ValueError, match="mas needs a fan"):
        ScanSettings(mas=100.0).beam(PARALLEL)
