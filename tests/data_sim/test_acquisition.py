import numpy as np
import pytest

from data_sim.acquisition import (
    ScanSettings,
    add_noise,
    apply_water_correction,
    fit_water_correction,
    polychromatic,
    scan,
    split_tissue,
)
from data_sim.geometry import FanArc, ImageGrid
from data_sim.materials import linear_attenuation
from data_sim.projection import Projector
from data_sim.spectrum import TUBE_POTENTIALS_KV, Spectrum, load_spectrum
from data_sim.units import MU_WATER_PER_MM, mu_to_hu

GEOMETRY = FanArc(views=120, bins=230, bin_pitch_rad=0.004)
GRID = ImageGrid(128, 128, 3.2)


def direct_integral(paths_mm, spectrum):
    """Beer-Lambert as written, float64, with the largest term taken out of the sum."""
    exponents = sum(
        -np.asarray(length, np.float64)[..., None] * linear_attenuation(code, spectrum.energies_kev)
        for code, length in paths_mm.items()
    )
    largest = exponents.max(axis=-1)
    return -largest - np.log(np.exp(exponents - largest[..., None]) @ spectrum.weights)


def disc(grid, radius_mm, x_mm=0.0, y_mm=0.0):
    x, y = np.meshgrid(grid.x_mm() - x_mm, grid.y_mm() - y_mm)
    return np.hypot(x, y) < radius_mm


# --- tissue split ---------------------------------------------------------------------------------


def test_split_reproduces_attenuation_at_70_kev():
    hu = np.array([[-1000.0, -100, 0, 40, 100], [101, 500, 800, 1500, 3000]])
    water, bone = split_tissue(hu)
    assert water.dtype == bone.dtype == np.float32
    mu = water * float(linear_attenuation("water", 70.0)) + bone * float(linear_attenuation("bone", 70.0))
    np.testing.assert_allclose(mu_to_hu(mu), hu, atol=0.05)


def test_split_thresholds():
    water, bone = split_tissue([-500, 0, 100, 800, 1500, 2500])
    np.testing.assert_allclose(water, [0.5, 1.0, 1.1, 0.9, 0, 0], atol=1e-6)  # half of 1.8 at 800 HU
    assert np.all(bone[:3] == 0)
    assert np.all(bone[3:] > 0)
    # NIST's mass attenuation of bone between 60 and 80 keV, and of water (0.1929 / cm at 70 keV)
    mu_bone_per_cm = 1.92 * np.exp(np.interp(np.log(70), np.log([60, 80]), np.log([0.3148, 0.2229])))
    np.testing.assert_allclose(bone[4:], np.array([2.5, 3.5]) * 0.1929 / mu_bone_per_cm, rtol=0.02)


def test_padding_is_air():
    water, bone = split_tissue([-1000, -1500, -2000, -32768])
    assert not water.any()
    assert not bone.any()


def test_split_with_another_water():
    water, bone = split_tissue([0.0, 1500.0], mu_water_per_mm=0.02)
    assert water[0] == pytest.approx(1)
    assert bone[1] * float(linear_attenuation("bone", 70.0)) == pytest.approx(0.05, rel=1e-6)


# --- polychromatic line integrals -----------------------------------------------------------------


def test_monoenergetic_limit():
    line = Spectrum(np.array([70.0]), np.array([1.0]))
    paths = {"water": np.array([0.0, 100, 300]), "ti": np.array([0.0, 0, 20])}
    mu_water, mu_ti = (float(linear_attenuation(code, 70.0)) for code in paths)
    expected = mu_water * paths["water"] + mu_ti * paths["ti"]
    np.testing.assert_allclose(polychromatic(paths, line), expected, rtol=1e-6)


@pytest.mark.parametrize("metal", ["ti", "fe", "au", "amalgam"])
@pytest.mark.parametrize("kvp", TUBE_POTENTIALS_KV)
def test_agrees_with_the_integral_in_double_precision(metal, kvp):
    rng = np.random.default_rng(3)
    shape = (30, 70)  # more rays than one block
    paths = {
        "water": rng.uniform(0, 500, shape),
        "bone": rng.uniform(0, 60, shape),
        metal: rng.uniform(0, 80, shape) * (rng.random(shape) < 0.5),
    }
    p = polychromatic(paths, load_spectrum(kvp))
    expected = direct_integral(paths, load_spectrum(kvp))
    assert p.dtype == np.float32
    assert p.shape == shape
    assert np.max(np.abs(p - expected) / (1 + expected)) < 1e-6


def test_air_is_zero_and_metal_without_end_is_finite():
    p = polychromatic({"water": np.array([0.0, 0.0]), "au": np.array([0.0, 500.0])}, load_spectrum(120))
    assert abs(p[0]) < 1e-6
    assert 500 < p[1] < 5000


def test_steel_hardens_the_beam():
    """Behind steel, the next centimetre of water attenuates less than in air; the more steel, the less."""
    steel_mm = np.array([0.0, 2, 5, 10, 20])
    spectrum = load_spectrum(120)
    behind = polychromatic({"ss316l": steel_mm, "water": np.full(5, 10.0)}, spectrum)
    before = polychromatic({"ss316l": steel_mm, "water": np.zeros(5)}, spectrum)
    effective_mu = (behind - before) / 10
    assert np.all(np.diff(effective_mu) < 0)
    assert effective_mu[0] > MU_WATER_PER_MM > effective_mu[-1]


def test_polychromatic_refuses_nonsense():
    with pytest.raises(ValueError, match="at least one material"):
        polychromatic({}, load_spectrum(120))
    with pytest.raises(ValueError, match="same shape"):
        polychromatic({"water": np.zeros(3), "bone": np.zeros(4)}, load_spectrum(120))


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "photons", "scatter"), [(0.0, 1e5, 0.0), (3.0, 1e6, 0.0), (5.0, 1e6, 5000.0)])
def test_variance_is_that_of_counted_photons(p, photons, scatter):
    noisy = add_noise(np.full(200_000, p), photons=photons, scatter_photons=scatter, rng=np.random.default_rng(0))
    counts = photons * np.exp(-p) + scatter
    assert noisy.var(dtype=np.float64) == pytest.approx(1 / counts, rel=0.02)  # 4.5 sigma of 2e5 samples is 1.4 %
    assert noisy.mean(dtype=np.float64) == pytest.approx(np.log(photons / counts), abs=0.01 / np.sqrt(counts))


def test_starved_rays_stay_finite():
    p = np.array([12.0, 30.0, 1e4])
    dark = add_noise(p, photons=2e7, scatter_photons=0.0, rng=np.random.default_rng(0))
    np.testing.assert_allclose(dark[1:], np.log(2e7), rtol=1e-6)
    rng = np.random.default_rng(0)
    glare = add_noise(np.full(10_000, 1e4), photons=2e7, scatter_photons=20.0, rng=rng)
    assert np.isfinite(glare).all()
    assert np.exp(-glare.astype(np.float64)).mean() * 2e7 == pytest.approx(20, rel=0.01)


def test_noise_follows_its_generator():
    p = np.full(1000, 2.0)
    first, again, other = (
        add_noise(p, photons=1e4, scatter_photons=1.0, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32


# --- water correction -----------------------------------------------------------------------------


@pytest.mark.parametrize("kvp", TUBE_POTENTIALS_KV)
def test_any_thickness_of_water_is_zero_hu(kvp):
    thickness_mm = np.concatenate([[0.1, 1, 3], np.arange(10.0, 500.5, 3.0)])
    spectrum = load_spectrum(kvp)
    p = direct_integral({"water": thickness_mm}, spectrum)
    corrected = apply_water_correction(p, fit_water_correction(spectrum))
    hu = 1000 * (corrected / (MU_WATER_PER_MM * thickness_mm) - 1)
    assert np.abs(hu).max() < 5
    uncorrected_hu = 1000 * (p / (MU_WATER_PER_MM * thickness_mm) - 1)
    assert np.ptp(uncorrected_hu) > 60  # what there was to correct


@pytest.mark.parametrize("kvp", TUBE_POTENTIALS_KV)
def test_correction_keeps_the_order_of_starved_rays(kvp):
    """Metal goes beyond the fitted range, up to p = ln(2e7) = 16.8."""
    p = np.linspace(0, 17, 500)
    corrected = apply_water_correction(p, fit_water_correction(load_spectrum(kvp)))
    assert np.all(np.diff(corrected) > 0)


def test_one_energy_needs_no_correction_but_scale():
    coefficients = fit_water_correction(Spectrum(np.array([70.0]), np.array([1.0])))
    np.testing.assert_allclose(coefficients, [1, 0, 0], atol=1e-4)


@pytest.mark.parametrize("radius_mm", [50, 150])
def test_water_disc_reconstructs_to_zero_hu(radius_mm):
    """From the chord lengths of a disc, no projector involved, to the reconstructed image."""
    s_mm = GEOMETRY.line_coordinates()[1]
    chords_mm = 2 * np.sqrt(np.maximum(radius_mm**2 - s_mm**2, 0))
    sinogram = scan({"water": chords_mm}, ScanSettings(photons=1e12), rng=np.random.default_rng(0))
    hu = mu_to_hu(Projector(GEOMETRY, GRID, device="cpu").fbp(sinogram))
    assert hu[disc(GRID, 0.7 * radius_mm)].mean() == pytest.approx(0, abs=5)


# --- settings and whole scans ---------------------------------------------------------------------


def test_settings_survive_a_dictionary():
    settings = ScanSettings(kvp=100, photons=1e6, detector="energy-integrating", water_correction=False)
    assert ScanSettings(**settings.to_dict()) == settings
    assert ScanSettings().to_dict() == {
        "kvp": 120,
        "photons": 2e7,
        "scatter_photons": 20.0,
        "detector": "photon-counting",
        "water_correction": True,
    }


def test_settings_refuse_nonsense():
    with pytest.raises(ValueError, match="no spectrum for 90 kVp"):
        ScanSettings(kvp=90)
    with pytest.raises(ValueError, match="unknown detector"):
        ScanSettings(detector="film")
    with pytest.raises(ValueError, match="photons per ray must"):
        ScanSettings(photons=0)
    with pytest.raises(ValueError, match="scatter photons"):
        ScanSettings(scatter_photons=-1)


def test_scan_without_water_correction_is_the_noisy_line_integral():
    paths = {"water": np.linspace(0, 400, 50).reshape(5, 10)}
    settings = ScanSettings(kvp=140, water_correction=False)
    p = polychromatic(paths, load_spectrum(140))
    expected = add_noise(p, photons=2e7, scatter_photons=20.0, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(scan(paths, settings, rng=np.random.default_rng(7)), expected)
