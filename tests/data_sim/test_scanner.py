"""The virtual scanner: path lengths against chords, scans against the sum over their parts."""

import numpy as np
import pytest

from data_sim.acquisition import ScanSettings, scan
from data_sim.geometry import FanArc, FanFlat, ImageGrid, Parallel
from data_sim.implants import Piece, fine_masks
from data_sim.implants import disc as circle
from data_sim.materials import linear_attenuation
from data_sim.projection import Projector
from data_sim.scanner import KERNEL, CasePaths, project_case, scan_case, simulate_slices
from data_sim.units import MU_WATER_PER_MM, hu_to_mu

GEOMETRY = FanArc(views=120, bins=230, bin_pitch_rad=0.004)
GRID = ImageGrid(128, 128, 3.2)


def disc(grid, radius_mm, x_mm=0.0, y_mm=0.0):
    x, y = np.meshgrid(grid.x_mm() - x_mm, grid.y_mm() - y_mm)
    return np.hypot(x, y) < radius_mm


# --- from paths to sinograms ----------------------------------------------------------------------


def test_scan_case_is_a_scan_of_each():
    rng = np.random.default_rng(0)
    water = rng.uniform(0, 200, (40, 50)).astype(np.float32)
    bone = rng.uniform(0, 20, (40, 50)).astype(np.float32)
    iron = np.where(rng.random((40, 50)) < 0.2, 15, 0).astype(np.float32)
    reference = {"water": water, "bone": bone}
    metal = {"water": np.maximum(water - iron, 0), "bone": bone, "fe": iron}
    one_ray = {code: path[..., None] for code, path in metal.items()}
    got = scan_case(CasePaths(reference, one_ray), ScanSettings(photons=1e14), rng=rng)
    for sinogram, paths in zip(got, (metal, reference), strict=True):
        assert sinogram.dtype == np.float32
        np.testing.assert_allclose(sinogram, scan(paths, ScanSettings(photons=1e14), rng=rng), atol=2e-3)
    assert np.array_equal(got[0] > got[1] + 0.1, iron > 0)


def test_a_bin_detects_the_mean_intensity_of_its_rays():
    reference = {"water": np.array([[100.0, 100.0]])}
    metal = {"water": np.full((1, 2, 2), 100.0), "au": np.array([[[0.0, 50.0], [0.0, 0.0]]])}
    settings = ScanSettings(photons=1e14, water_correction=False)
    half_hidden, plain = scan_case(CasePaths(reference, metal), settings, rng=np.random.default_rng(0))[0][0]
    assert half_hidden - plain == pytest.approx(np.log(2), abs=1e-4)


# --- from image to paths --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    """A disc of water with a disc of bone, and an iron rod of 8 mm radius across its edge."""
    hu = np.where(disc(GRID, 120), 0.0, -1000.0)
    hu[disc(GRID, 40, 50)] = 1500.0
    fine_grid = GRID.crop(50, 70, 80, 100).refined(8)
    rod = disc(fine_grid, 8, 85, 15)
    assert rod.sum() * fine_grid.pixel_mm**2 == pytest.approx(np.pi * 64, rel=0.01)
    return project_case(hu, GRID, {"fe": rod}, fine_grid, GEOMETRY, rays_per_bin=2, device="cpu")


def test_metal_paths_are_the_chords_of_the_rod(case):
    theta, s_mm = FanArc(views=120, bins=460, bin_pitch_rad=0.002).line_coordinates()
    offset_mm = 85 * np.cos(theta) + 15 * np.sin(theta) - s_mm
    chord_mm = 2 * np.sqrt(np.maximum(64 - offset_mm**2, 0))
    metal_mm = case.metal["fe"].reshape(120, 460)
    error_mm = (metal_mm - chord_mm)[np.abs(offset_mm) < 7]
    assert abs(error_mm.mean()) < 0.01 * chord_mm.max()  # the pixels' area is right within 1 %
    assert np.abs(error_mm).max() < 2 * 0.4  # pixels of the fine grid
    assert not metal_mm[np.abs(offset_mm) > 9].any()


def test_metal_takes_the_place_of_tissue(case):
    met = case.metal["fe"] > 0
    replaced = {}
    for code in ("water", "bone"):
        replaced[code] = case.reference[code][..., None] - case.metal[code]
        assert not replaced[code][~met].any()
        assert replaced[code].min() > -1e-3
        assert case.metal[code].min() > -GRID.pixel_mm
    mu_bone_ratio = float(linear_attenuation("bone", 70.0)) / MU_WATER_PER_MM
    filled = replaced["water"] + replaced["bone"] * mu_bone_ratio / 2.5  # 1500 HU is 2.5 times water
    np.testing.assert_allclose(filled, case.metal["fe"], atol=1e-3)
    assert replaced["bone"].max() > 5


def test_replacing_everything_leaves_nothing():
    """Fine and native grids agree on the line integrals of the same tissue."""
    hu = np.where(disc(GRID, 60), 0.0, -1000.0)
    fine_grid = GRID.crop(40, 88, 40, 88).refined(4)
    whole = {"ti": np.ones(fine_grid.shape, bool)}
    paths = project_case(hu, GRID, whole, fine_grid, GEOMETRY, rays_per_bin=1, device="cpu")
    left_mm, whole_mm = paths.metal["water"], paths.reference["water"]
    # Along the rim a ray sees the interpolated edge differently on the two grids, by a fraction of a pixel.
    assert abs(left_mm.mean()) < 1e-4 * whole_mm.mean()
    assert np.abs(left_mm).mean() < 5e-3 * whole_mm.mean()
    assert np.abs(left_mm).max() < GRID.pixel_mm


@pytest.mark.parametrize(
    "geometry",
    [
        FanFlat(views=4, bins=40, bin_pitch_mm=20.0),
        Parallel(views=4, bins=40, bin_pitch_mm=12.0),
        FanArc(views=4, bins=40, bin_pitch_rad=0.02),
    ],
)
def test_rays_of_a_bin_surround_its_centre(geometry):
    """A smooth slope of metal: the mean over a bin's rays is the value of the middle one."""
    fine_grid = GRID.crop(48, 80, 48, 80).refined(8)
    rod = {"ti": disc(fine_grid, 48)}
    image = np.full(GRID.shape, -1000.0)
    one, three = (
        project_case(image, GRID, rod, fine_grid, geometry, rays_per_bin=n, device="cpu").metal["ti"] for n in (1, 3)
    )
    assert one.shape == (4, 40, 1)
    np.testing.assert_allclose(three[..., 1], one[..., 0], atol=1e-3)
    assert three[..., 0].mean() == pytest.approx(one.mean(), rel=0.1)


def test_without_metal_the_two_scans_are_the_same():
    fine_grid = GRID.crop(60, 64, 60, 64)
    empty = {"ti": np.zeros(fine_grid.shape, bool)}
    for masks in ({}, empty):
        paths = project_case(np.zeros(GRID.shape), GRID, masks, fine_grid, GEOMETRY, device="cpu")
        assert set(paths.metal) == {"water", "bone"}
        for code, path in paths.reference.items():
            np.testing.assert_array_equal(paths.metal[code][..., 0], path)
        metal, reference = scan_case(paths, ScanSettings(photons=1e14), rng=np.random.default_rng(0))
        np.testing.assert_allclose(metal, reference, atol=1e-3)


def test_project_case_refuses_nonsense():
    hu, fine_grid = np.zeros(GRID.shape), GRID.crop(60, 64, 60, 64)
    whole = np.ones(fine_grid.shape, bool)
    with pytest.raises(ValueError, match="shape of the fine grid"):
        project_case(hu, GRID, {"ti": np.ones((2, 2), bool)}, fine_grid, GEOMETRY)
    with pytest.raises(ValueError, match="must not overlap"):
        project_case(hu, GRID, {"ti": whole, "fe": whole}, fine_grid, GEOMETRY)
    with pytest.raises(ValueError, match="tissue, not metal"):
        project_case(hu, GRID, {"bone": whole}, fine_grid, GEOMETRY)


# --- from slices to images ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slices():
    """Two slices of water with bone; a titanium rod across the border of the bone, and two rods of iron."""
    hu = np.where(disc(GRID, 150), 0.0, -1000.0).astype(np.float32)
    hu[disc(GRID, 40, 50)] = 1000.0
    implants = (
        (Piece(circle(24.0, 85.0, 15.0), "ti"),),
        (Piece(circle(20.0, -60.0, 30.0), "fe"), Piece(circle(14.0, 60.0, -40.0), "fe")),
    )
    return np.stack([hu, hu + 20]), implants


def simulated(slices, seeds=(1, 2), which=slice(None), **settings):
    images, implants = slices
    return simulate_slices(
        images[which],
        GRID,
        implants[which],
        [np.random.default_rng(seed) for seed in seeds],
        geometry=GEOMETRY,
        settings=ScanSettings(**settings),
        device="cpu",
    )


@pytest.fixture(scope="module")
def quiet(slices):
    return simulated(slices, photons=1e12, scatter_photons=0)


def test_metal_pixels_are_the_discs(quiet):
    for metal, discs in zip(quiet.metal, ([(12, 85, 15)], [(10, -60, 30), (7, 60, -40)]), strict=True):
        certain = np.any([disc(GRID, r - 2.3, x, y) for r, x, y in discs], axis=0)  # half a pixel's diagonal
        possible = np.any([disc(GRID, r + 2.3, x, y) for r, x, y in discs], axis=0)
        assert metal[certain].all()
        assert not metal[~possible].any()
        area = sum(np.pi * r**2 for r, _, _ in discs)
        assert metal.sum() * GRID.pixel_mm**2 == pytest.approx(area, rel=0.1)


def test_the_reference_is_the_slice(slices, quiet):
    """Water and bone come back through polychromatic scan, correction and reconstruction."""
    for image, reference in zip(slices[0], quiet.reference_hu, strict=True):
        water = disc(GRID, 135) & ~disc(GRID, 60, 50)
        assert reference[water].mean() == pytest.approx(image[64, 30], abs=10)
        assert reference[disc(GRID, 30, 50)].mean() == pytest.approx(image[64, 79], rel=0.1)
        assert reference[~disc(GRID, 160) & disc(GRID, 190)].mean() == pytest.approx(image[0, 0], abs=10)


def test_sinograms_differ_where_rays_meet_metal_only(slices, quiet):
    """The rays of the rod by hand: nearer to its centre than its radius, and half a bin more (1.2 mm at 0.6 m)."""
    theta, s_mm = GEOMETRY.line_coordinates()
    away_mm = np.abs(85 * np.cos(theta) + 15 * np.sin(theta) - s_mm)
    change = quiet.sinogram_metal[0] - quiet.sinogram_reference[0]
    assert np.abs(change[away_mm > 12 + 2.5]).max() < 1e-3  # noise of 1e12 photons behind 30 cm of water
    # 24 mm of titanium for water, hardened: more than at 120 keV, less than at 40 keV
    low, high = (24 * (linear_attenuation("ti", e) - linear_attenuation("water", e)) for e in (120.0, 40.0))
    central = change[(away_mm < 1) & (np.abs(s_mm - 90) > 60)]
    assert central.min() > low
    assert central.max() < high


def test_images_are_reconstructions_of_the_sinograms(quiet):
    projector = Projector(GEOMETRY, GRID, device="cpu")
    for sinogram, hu in (
        (quiet.sinogram_metal, quiet.uncorrected_hu),
        (quiet.sinogram_reference, quiet.reference_hu),
    ):
        expected = projector.fbp(sinogram, window=KERNEL) / MU_WATER_PER_MM * 1000 - 1000
        np.testing.assert_allclose(hu, expected, atol=0.1)


def test_stored_image_is_12_bit(quiet):
    assert quiet.stored_hu.dtype == np.float32
    np.testing.assert_array_equal(quiet.stored_hu, np.round(quiet.stored_hu))
    assert quiet.stored_hu.min() >= -1024
    assert quiet.stored_hu.max() <= 3071
    inside = (quiet.uncorrected_hu > -1024) & (quiet.uncorrected_hu < 3071)
    assert np.abs(quiet.stored_hu - quiet.uncorrected_hu)[inside].max() <= 0.5
    assert (quiet.uncorrected_hu > 3071).any()
    assert (quiet.stored_hu[quiet.uncorrected_hu > 3071] == 3071).all()


def test_noise_is_drawn_slice_by_slice(slices):
    """A slice does not depend on its neighbours in the batch, and follows its own generator."""
    both = simulated(slices)
    alone = simulated(slices, seeds=(2,), which=slice(1, 2))
    other = simulated(slices, seeds=(3,), which=slice(1, 2))
    np.testing.assert_allclose(alone.sinogram_metal[0], both.sinogram_metal[1], atol=1e-5)
    assert not np.allclose(other.sinogram_metal[0], both.sinogram_metal[1], atol=1e-4)


def test_noise_has_the_variance_of_photons(slices):
    photons = 1e5
    noisy, again = (simulated(slices, seeds=s, photons=photons, water_correction=False) for s in ((1, 2), (3, 4)))
    difference = (noisy.sinogram_reference - again.sinogram_reference) / np.sqrt(2)
    p = simulated(slices, photons=1e14, scatter_photons=0, water_correction=False).sinogram_reference
    counts = photons * np.exp(-p.astype(float)) + 20
    assert (difference.astype(float) ** 2 * counts).mean() == pytest.approx(1, abs=0.03)


def test_rays_per_bin_are_those_that_were_asked_for(slices):
    """The scan with five rays is that of paths projected with five: not that of three, the default."""
    images, implants = slices
    fine_grid, masks = fine_masks(implants[0], GRID)
    paths = project_case(images[0], GRID, masks, fine_grid, GEOMETRY, rays_per_bin=5, device="cpu")
    settings = ScanSettings(rays_per_bin=5, photons=1e12)
    expected = scan_case(paths, settings, rng=np.random.default_rng(1))[0]
    five, three = (simulated(slices, (1,), slice(1), photons=1e12, rays_per_bin=n).sinogram_metal[0] for n in (5, 3))
    np.testing.assert_allclose(five, expected, atol=1e-4)
    assert np.abs(three - expected).max() > 0.01


def test_plastic_weakens_the_beam_but_is_no_metal(slices):
    images, _ = slices
    ring = Piece(circle(40.0, -60.0, 30.0), "pmma")
    rod = Piece(circle(20.0, -60.0, 30.0), "fe")
    alone, both = (simulated((images[:1], (pieces,)), (1,), photons=1e12) for pieces in ((ring,), (ring, rod)))
    assert not alone.metal.any()
    assert both.metal.sum() * GRID.pixel_mm**2 == pytest.approx(np.pi * 100, rel=0.1)
    inside = disc(GRID, 14, -60, 30)
    # PMMA for water at 70 keV: 1.19 x 0.183 against 0.193 / cm (NIST, between 60 and 80 keV)
    assert alone.uncorrected_hu[0][inside].mean() == pytest.approx(1000 * (1.19 * 0.183 / 0.193 - 1), abs=20)


def test_settings_that_need_the_geometry_get_it(slices):
    """Photons from mAs, 100 in a turn: variance of the line integrals in air is one over their number."""
    air = np.full((1, *GRID.shape), -1000.0, np.float32)
    implants = (Piece(circle(5.0, 0.0, 0.0), "ti"),)
    scan = simulated((air, (implants,)), (1,), mas=100.0, scatter_photons=0.0, water_correction=False)
    photons = 2.335e6 * (100 / 120) * 4.0 * (1000 / 595)  # 120 views; 4 mm wide and 1 mm / 0.595 high at 1 m
    assert scan.sinogram_reference.astype(float).var() * photons == pytest.approx(1, abs=0.03)


def test_simulate_slices_refuses_unequal_lists(slices):
    with pytest.raises(ValueError, match="every slice needs"):
        simulated(slices, seeds=(1,))


def test_metal_free_attenuation_is_preserved(slices, quiet):
    """Far from metal, what the reference shows integrates to what was put in."""
    mu = hu_to_mu(slices[0][0])
    got = hu_to_mu(quiet.reference_hu[0])
    assert got.sum() == pytest.approx(float(mu.sum()), rel=0.02)
