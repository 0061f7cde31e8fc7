import numpy as np
import pytest

from data_sim.acquisition import ScanSettings, scan
from data_sim.geometry import FanArc, ImageGrid
from data_sim.projection import Projector
from data_sim.spectrum import TUBE_POTENTIALS_KV, Spectrum, load_spectrum
from data_sim.units import MU_WATER_PER_MM, mu_to_hu
from data_sim.water_correction import apply_water_correction, fit_behind_bowtie, fit_water_correction
from tests.data_sim.direct import direct_integral

GEOMETRY = FanArc(views=120, bins=230, bin_pitch_rad=0.004)
GRID = ImageGrid(128, 128, 3.2)


def disc(grid, radius_mm, x_mm=0.0, y_mm=0.0):
    x, y = np.meshgrid(grid.x_mm() - x_mm, grid.y_mm() - y_mm)
    return np.hypot(x, y) < radius_mm


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


@pytest.mark.parametrize("detector", ["photon-counting", "energy-integrating"])
def test_any_thickness_of_water_is_zero_hu_behind_any_of_the_filter(detector):
    spectrum = load_spectrum(120, detector)
    filter_mm = np.linspace(0, 250, 41)
    thickness_mm = np.concatenate([[0.1, 1, 3], np.arange(10.0, 500.5, 7.0)])[:, None]
    water, pmma = np.broadcast_arrays(thickness_mm, filter_mm)
    behind = direct_integral({"water": water, "pmma": pmma}, spectrum)
    p = behind - direct_integral({"pmma": filter_mm}, spectrum)
    hu = 1000 * (
        apply_water_correction(p, fit_behind_bowtie(spectrum, filter_mm)) / (MU_WATER_PER_MM * thickness_mm) - 1
    )
    assert np.abs(hu).max() < 5
    plain = 1000 * (apply_water_correction(p, fit_water_correction(spectrum)) / (MU_WATER_PER_MM * thickness_mm) - 1)
    assert plain[:, -1].max() < -30  # hardened water needs more correction than the plain fit gives
