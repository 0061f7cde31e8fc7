"""Whole scans of given path lengths: each setting against what it should do to the line integrals."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from data_sim.acquisition import ScanSettings, scan, starved_share
from data_sim.geometry import FanArc
from data_sim.materials import linear_attenuation
from data_sim.noise import poisson
from data_sim.spectrum import load_spectrum
from tests.data_sim.direct import direct_integral

ARC = FanArc(views=60, bins=400, bin_pitch_rad=0.002)
S_MM = 595 * np.sin((np.arange(400) - 199.5) * 0.002)
QUIET = {"photons": 1e14, "scatter_photons": 0.0, "water_correction": False}


def chords(radius_mm):
    """Of a centred disc, (views, bins)."""
    return np.broadcast_to(2 * np.sqrt(np.maximum(radius_mm**2 - S_MM**2, 0)), ARC.shape)


def scanned(paths, *, seed=0, geometry=ARC, **settings):
    return scan(paths, ScanSettings(**settings), rng=np.random.default_rng(seed), geometry=geometry)


# --- settings -------------------------------------------------------------------------------------


def test_settings_survive_a_dictionary():
    settings = ScanSettings(kvp=100, mas=150.0, detector="energy-integrating", bowtie_mm=200.0, water_correction=False)
    assert ScanSettings(**settings.to_dict()) == settings


def test_the_defaults_are_the_papers_scanner():
    assert ScanSettings().to_dict() == {
        "kvp": 120,
        "photons": 2e7,
        "scatter_photons": 20.0,
        "detector": "photon-counting",
        "water_correction": True,
        "rays_per_bin": 3,
        # what the paper does not model is off
        "filter_al_mm": 0.0,
        "filter_cu_mm": 0.0,
        "bowtie_mm": 0.0,
        "bowtie_share": 0.5,
        "mas": None,
        "slice_thickness_mm": 1.0,
        "scatter_ratio": 0.0,
        "scatter_fwhm_mm": 100.0,
        "focal_spot_mm": 0.0,
        "crosstalk": 0.0,
        "metal_fill": 1.0,
        "electronic_noise_photons": 0.0,
    }


def test_settings_refuse_nonsense():
    with pytest.raises(ValueError, match="no spectrum for 90 kVp"):
        ScanSettings(kvp=90)
    with pytest.raises(ValueError, match="unknown detector"):
        ScanSettings(detector="film")
    for name, value in (
        ("photons", 0.0),
        ("scatter_photons", -1.0),
        ("filter_al_mm", -0.1),
        ("filter_cu_mm", 51.0),
        ("bowtie_mm", -1.0),
        ("bowtie_share", 1.1),
        ("mas", 0.0),
        ("slice_thickness_mm", 0.0),
        ("scatter_ratio", 1.5),
        ("scatter_fwhm_mm", 0.0),
        ("focal_spot_mm", float("nan")),
        ("crosstalk", 0.3),
        ("rays_per_bin", 0),
        ("metal_fill", 0.0),
        ("electronic_noise_photons", -3.0),
    ):
        with pytest.raises(ValueError, match=f"{name} must lie between"):
            ScanSettings(**{name: value})


def test_every_setting_is_documented_and_the_examples_load():
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    examples = [tomllib.loads(block).get("scan") for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    scans = [ScanSettings(**values) for values in examples if values is not None]
    assert len(scans) >= 2
    assert any(settings.mas for settings in scans)
    for name in ScanSettings().to_dict():
        assert name in text


# --- scans ----------------------------------------------------------------------------------------


def test_a_default_scan_is_the_noisy_line_integral():
    """N of mean photons e^-p + scatter, then -ln(max(N, 1) / photons)."""
    paths = {"water": np.linspace(0, 400, 50).reshape(5, 10)}
    mean = 2e7 * np.exp(-direct_integral(paths, load_spectrum(140))) + 20
    counts = poisson(mean, np.random.default_rng(7))
    got = scanned(paths, seed=7, geometry=None, kvp=140, water_correction=False)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, -np.log(counts / 2e7), atol=2e-6)


@pytest.mark.parametrize(
    ("p", "photons", "scatter", "electronic"),
    [(0.0, 1e5, 0.0, 0.0), (3.0, 1e6, 0.0, 0.0), (5.0, 1e6, 5000.0, 0.0), (5.0, 1e6, 500.0, 60.0)],
)
def test_variance_of_the_line_integral(p, photons, scatter, electronic):
    """(N + S + sigma^2) / (N + S)^2, with N = photons e^-p."""
    water_mm = np.full((200, 1000), np.interp(p, *_thickness_of()))
    noisy = scanned(
        {"water": water_mm},
        geometry=None,
        photons=photons,
        scatter_photons=scatter,
        electronic_noise_photons=electronic,
        water_correction=False,
    ).astype(float)
    n = photons * np.exp(-p)
    assert noisy.var() == pytest.approx((n + scatter + electronic**2) / (n + scatter) ** 2, rel=0.02)
    assert noisy.mean() == pytest.approx(np.log(photons / (n + scatter)), abs=0.01 / np.sqrt(n))


def _thickness_of():
    """Line integrals of 0 to 500 mm of water at 120 kVp, and those thicknesses, for interpolation."""
    thickness_mm = np.linspace(0, 500, 20_001)
    return direct_integral({"water": thickness_mm}, load_spectrum(120)), thickness_mm


def test_starved_rays_stay_finite():
    dark = scanned({"au": np.array([[40.0, 500.0]])}, geometry=None, scatter_photons=0.0, water_correction=False)
    np.testing.assert_allclose(dark, np.log(2e7), rtol=1e-6)


def test_a_detector_that_adds_energies_up_is_noisier_and_hardens_less():
    """Variance sum E^2 N / (sum E N)^2, behind 25 cm of water."""
    photons, water_mm = 1e6, np.full((300, 400), 250.0)
    counting = load_spectrum(120)
    e = counting.energies_kev
    n = photons * counting.weights * np.exp(-linear_attenuation("water", e) * 250)
    settings = {"geometry": None, "photons": photons, "scatter_photons": 0.0, "water_correction": False}
    added = scanned({"water": water_mm}, detector="energy-integrating", **settings).astype(float)
    counted = scanned({"water": water_mm}, **settings).astype(float)
    assert added.mean() == pytest.approx(np.log(photons * counting.mean_energy_kev / (n @ e)), abs=3e-4)
    assert added.var() == pytest.approx((n @ e**2) / (n @ e) ** 2, rel=0.02)
    assert counted.var() == pytest.approx(1 / n.sum(), rel=0.02)
    assert added.mean() < counted.mean()


def test_a_bowtie_filter_is_calibrated_out_but_shapes_noise_and_hardness():
    paths = {"water": chords(100.0)}
    plain = scanned(paths, **QUIET)
    behind = scanned(paths, bowtie_mm=200.0, bowtie_share=1.0, **QUIET)
    middle, edge = np.abs(S_MM) < 5, (np.abs(S_MM) > 90) & (np.abs(S_MM) < 95)
    air = np.abs(S_MM) > 105
    np.testing.assert_allclose(behind[:, middle], plain[:, middle], rtol=1e-3)
    np.testing.assert_allclose(behind[:, air], 0, atol=1e-5)
    # by hand: the same sum with the filter's PMMA in the beam and divided by the air behind it
    ratio = float(linear_attenuation("water", 70.0)) / float(linear_attenuation("pmma", 70.0))
    filter_mm = ratio * (200 - chords(100.0))
    spectrum = load_spectrum(120)
    expected = direct_integral(paths | {"pmma": filter_mm}, spectrum) - direct_integral({"pmma": filter_mm}, spectrum)
    np.testing.assert_allclose(behind, expected, atol=2e-5)
    assert (behind[:, edge] < 0.99 * plain[:, edge]).all()
    # noise of the photons that are left: nearly even over the cylinder, where it fell to the edge without the filter
    first, second = (
        scanned(
            paths, seed=n, bowtie_mm=200.0, bowtie_share=1.0, photons=1e5, scatter_photons=0.0, water_correction=False
        )
        for n in (1, 2)
    )
    total = direct_integral(paths | {"pmma": filter_mm}, spectrum)
    assert (((first - second).astype(float) ** 2) * 1e5 * np.exp(-total) / 2).mean() == pytest.approx(1, abs=0.05)
    for p, (low, high) in ((total, (0.95, 1.05)), (direct_integral(paths, spectrum), (0.05, 0.15))):
        variance = np.exp(p[0])
        assert low < variance[edge].mean() / variance[middle].mean() < high


def test_object_scatter_lowers_the_line_integrals_behind_water():
    """ln(1 + ratio p) in the middle of something wide; a narrow spread makes 300 mm wide enough."""
    paths = {"water": chords(150.0)}
    clean = scanned(paths, **QUIET).astype(float)
    scattered = scanned(paths, scatter_ratio=0.03, scatter_fwhm_mm=20.0, **QUIET).astype(float)
    middle = np.abs(S_MM) < 10
    loss = (clean - scattered)[:, middle]
    np.testing.assert_allclose(loss, np.log1p(0.03 * clean[:, middle]), rtol=0.02)


def test_a_focal_spot_blurs_intensities():
    """A slit between thick walls: 1 / 2.3548 of its width is the standard deviation, at 1.19 mm a bin."""
    iron = np.full(ARC.shape, 1000.0)
    iron[:, 200] = 0
    p = scanned({"fe": iron}, focal_spot_mm=2.0, **QUIET).astype(float)
    intensity = np.exp(-p[0, 190:211]) - 1e-14
    at = np.arange(-10, 11)
    assert intensity.sum() == pytest.approx(1, rel=1e-5)
    assert (intensity * at**2).sum() == pytest.approx((2.0 / 2.35482 / 1.19) ** 2, rel=1e-3)


def test_crosstalk_in_a_scan_blurs_signal_and_noise():
    iron = np.full(ARC.shape, 1000.0)
    iron[:, 200] = 0
    p = scanned({"fe": iron}, crosstalk=0.04, **QUIET).astype(float)
    np.testing.assert_allclose(np.exp(-p[:, 199:202]), np.broadcast_to([0.04, 0.92, 0.04], (60, 3)), rtol=1e-5)
    air = scanned({"fe": np.zeros(ARC.shape)}, crosstalk=0.04, photons=1e6, water_correction=False).astype(float)
    assert air.var() == pytest.approx((0.92**2 + 2 * 0.04**2) / 1e6, rel=0.05)


def test_share_of_starved_rays():
    """Signals of 50 to 150 photons beside 20 scattered ones: those below 100 - 20 are starved."""
    wanted = np.linspace(50, 150, 101)
    table = direct_integral({"fe": np.linspace(0, 200, 40_001)}, load_spectrum(120))
    iron_mm = np.interp(np.log(2e7 / wanted), table, np.linspace(0, 200, 40_001))
    paths = {"fe": np.broadcast_to(iron_mm, (500, 101))}
    trace = np.ones((500, 101), bool)
    expected = (wanted < 80).mean()
    for water_correction in (True, False):
        settings = ScanSettings(water_correction=water_correction)
        sinogram = scan(paths, settings, rng=np.random.default_rng(0))
        assert starved_share(sinogram, trace, settings) == pytest.approx(expected, abs=0.02)
        assert starved_share(sinogram, trace, settings, fewer_than=1e7) == 1
    assert np.isnan(starved_share(sinogram, ~trace, settings))
