"""The chain against physics derived or computed without it: chords, another attenuation library, closed forms."""

import numpy as np
import pytest
from scipy.special import beta

from data_sim.acquisition import ScanSettings, measure, scan
from data_sim.beam import Beam
from data_sim.geometry import Parallel
from data_sim.materials import METALS, find_material
from data_sim.polychromatic import polychromatic
from data_sim.projection import Projector
from data_sim.scanner import project_case, scan_case
from data_sim.spectrum import Spectrum, load_spectrum
from tests.data_sim.analytic import GEOMETRIES, GRID, Ellipse, disc, pixel_centres, raster, sinogram
from tests.data_sim.direct import direct_integral

NIST_60_KEV = {"water": 0.02059, "ti": 0.07661 * 4.506}
"""Attenuation at 60 keV, mm^-1: 0.2059 and 0.7661 cm2/g in NIST Standard Reference Database 126."""


# --- one energy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_one_energy_gives_the_analytic_sinogram(geometry):
    """An ellipse of water with a rod of titanium: sum of attenuation times chord, metal in the place of water."""
    body, rod = Ellipse(1.0, 3.0, -5.0, 90, 60, 0.3), disc(1.0, 40.3, 10.2, 9.0)
    hu = 1000 * raster(GRID, body) - 1000
    fine_grid = GRID.crop(40, 76, 64, 104).refined(8)
    x, y = pixel_centres(GRID, 8)
    inside = (np.hypot(x - 40.3, y - 10.2) < 9)[320:608, 512:832]
    paths = project_case(hu, GRID, {"ti": inside}, fine_grid, geometry, rays_per_bin=1, device="cpu")
    beam = Beam(Spectrum(np.array([60.0]), np.array([1.0])), 1e15)
    one_ray = {code: path[..., 0] for code, path in paths.metal.items()}
    settings = ScanSettings(scatter_photons=0.0, water_correction=False)
    p = measure([beam.attenuation(one_ray, beam.spectrum)], beam, settings, np.random.default_rng(0))
    water, titanium = NIST_60_KEV["water"], NIST_60_KEV["ti"]
    expected = water * sinogram(geometry, body) + (titanium - water) * sinogram(geometry, rod)
    error = p - expected
    assert np.sqrt(np.mean(error**2)) < 0.005 * expected.max()
    assert abs(error.mean()) < 2e-3 * expected.mean()


# --- beam hardening -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", METALS)
@pytest.mark.parametrize("detector", ["photon-counting", "energy-integrating"])
def test_hardening_curve_of_each_metal_with_another_attenuation_library(code, detector):
    """Line integral against mm of metal behind 20 cm of water: the tube's table summed with xraylib's data."""
    xraylib = pytest.importorskip("xraylib")
    metal_mm = np.array([0.1, 0.5, 1, 2, 5, 10, 20, 40])
    spectrum = load_spectrum(120, detector)

    def mu_per_mm(material):
        cm2_g = [
            sum(w * xraylib.CS_Total(xraylib.SymbolToAtomicNumber(z), e) for z, w in material.composition.items())
            for e in spectrum.energies_kev
        ]
        return np.array(cm2_g) * material.density_g_cm3 / 10

    exponent = -200 * mu_per_mm(find_material("water")) - metal_mm[:, None] * mu_per_mm(METALS[code])
    top = exponent.max(axis=1)
    expected = -np.log(np.exp(exponent - top[:, None]) @ spectrum.weights) - top
    p = polychromatic({"water": np.full(8, 200.0), code: metal_mm}, spectrum)
    np.testing.assert_allclose(p, expected, rtol=0.01)
    slope = np.diff(p) / np.diff(metal_mm)
    assert (np.diff(slope) < 0).all()  # the beam hardens all the way


def test_cupping_of_an_uncorrected_cylinder_is_the_closed_form():
    """With p(L) = sum a_k L^k and chords L = 2 sqrt(r^2 - s^2), the inverse Abel transform of each power is

    f_k(q) = 2^(k-1) k / pi B(k/2, 1/2) (r^2 - q^2)^((k-1)/2),

    1 for k = 1 and, for k > 1, a cup.
    """
    radius_mm = 100.0
    geometry = Parallel(views=180, bins=401, bin_pitch_mm=0.6)
    lengths_mm = np.linspace(0, 2 * radius_mm, 400)
    powers = np.arange(1, 7)
    p = direct_integral({"water": lengths_mm}, load_spectrum(80))
    scaled, *_ = np.linalg.lstsq((lengths_mm[:, None] / 200) ** powers, p, rcond=None)
    a = scaled / 200.0**powers
    chord_mm = sinogram(geometry, disc(1.0, 0, 0, radius_mm))
    settings = ScanSettings(kvp=80, photons=1e15, scatter_photons=0.0, water_correction=False)
    measured = scan({"water": chord_mm}, settings, rng=np.random.default_rng(0), geometry=geometry)
    image = Projector(geometry, GRID, device="cpu").fbp(measured)
    distance = np.hypot(GRID.x_mm()[None, :], GRID.y_mm()[:, None])
    inside = distance < 0.95 * radius_mm
    expected = sum(
        a_k * 2.0 ** (k - 1) * k / np.pi * beta(k / 2, 0.5) * (radius_mm**2 - distance[inside] ** 2) ** ((k - 1) / 2)
        for k, a_k in zip(powers, a, strict=True)
    )
    np.testing.assert_allclose(image[inside], expected, rtol=5e-3)
    assert np.ptp(expected) > 0.05 * expected.min()  # a cup of more than 50 HU


# --- noise ----------------------------------------------------------------------------------------


def test_noise_of_the_sinogram_is_white():
    """Power over 16 bands of frequency along the detector, each the variance (N + S) / (N + S)^2 of a bin."""
    settings = ScanSettings(photons=1e5, scatter_photons=300.0, water_correction=False)
    p = scan({"water": np.full((4000, 256), 150.0)}, settings, rng=np.random.default_rng(3)).astype(float)
    counts = 1e5 * np.exp(-float(direct_integral({"water": 150.0}, load_spectrum(120)))) + 300
    power = np.mean(np.abs(np.fft.rfft(p - p.mean(), axis=1)) ** 2, axis=0) / 256
    bands = power[1:].reshape(16, 8).mean(axis=1)
    np.testing.assert_allclose(bands * counts, 1, atol=0.03)  # 8 x 4000 estimates: 0.6 %


def test_noise_in_the_image_of_a_water_disc():
    """Parallel beam, bare ramp: var = c pi^2 sigma^2 / (pitch^2 views), sigma^2 that of the rays through the middle.

    c is 1/12 where a ray hits the pixel (the integral of f^2 up to Nyquist). Linear interpolation between bins,
    averaged over where a ray falls between them, makes it (2/3)(1/12) - (1/3) / (2 pi^2) = 0.0387.
    """
    geometry = Parallel(views=200, bins=301, bin_pitch_mm=1.0)
    chord_mm = sinogram(geometry, disc(1.0, 0, 0, 100.0))
    settings = ScanSettings(photons=1e5, scatter_photons=0.0, water_correction=False)
    projector = Projector(geometry, GRID, device="cpu")
    seeds = range(12)
    scans = [scan({"water": chord_mm}, settings, rng=np.random.default_rng(s), geometry=geometry) for s in seeds]
    images = projector.fbp(np.stack(scans)).astype(float)
    middle = np.hypot(GRID.x_mm()[None, :], GRID.y_mm()[:, None]) < 20
    variance = images.var(axis=0, ddof=1)[middle].mean()
    sigma2 = np.exp(float(direct_integral({"water": 199.0}, load_spectrum(120)))) / 1e5  # mean chord within 20 mm
    expected = (2 / 3 / 12 - 1 / (6 * np.pi**2)) * np.pi**2 * sigma2 / (1.0**2 * 200)
    assert variance == pytest.approx(expected, rel=0.05)


# --- metal ----------------------------------------------------------------------------------------


def test_metal_in_a_part_of_the_slice_is_seen_through_the_other_part():
    """-ln(f e^-p + (1 - f) e^-p0): opaque metal in a quarter of the thickness costs -ln(3/4), however thick it is."""
    hu = np.full(GRID.shape, -1000.0)
    fine_grid = GRID.crop(54, 74, 54, 74).refined(4)
    block = {"au": np.ones(fine_grid.shape, bool)}
    geometry = Parallel(views=4, bins=60, bin_pitch_mm=1.0)
    paths = project_case(hu, GRID, block, fine_grid, geometry, device="cpu")
    settings = {"photons": 1e12, "scatter_photons": 0.0, "water_correction": False}
    whole, quarter = (
        scan_case(paths, ScanSettings(metal_fill=fill, **settings), rng=np.random.default_rng(0))[0]
        for fill in (1.0, 0.25)
    )
    behind = slice(15, 45)
    assert whole[::2, behind].min() > 20
    np.testing.assert_allclose(quarter[::2, behind], -np.log(0.75), atol=1e-3)
    np.testing.assert_allclose(quarter[::2, :5], 0, atol=1e-4)
