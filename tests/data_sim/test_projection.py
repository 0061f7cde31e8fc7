"""Projections against exact line integrals, and reconstructions from exact sinograms."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numba
import numpy as np
import pytest

from data_sim.geometry import FanArc, ImageGrid, Parallel
from data_sim.projection import Projector, choose_device, joseph
from data_sim.projection.astra import why_no_cuda
from data_sim.projection.filters import FILTERS
from tests.data_sim.analytic import GEOMETRIES, GRID, Ellipse, disc, pixel_centres, raster, rays, sinogram

each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())

BODY = (Ellipse(0.02, -12.3, 8.1, 80, 55, 0.4), Ellipse(0.03, 30.2, -21.7, 25, 12, -1.1), disc(-0.01, -40, 35, 13))


def projector(geometry, grid=GRID):
    return Projector(geometry, grid, device="cpu")


# --- forward --------------------------------------------------------------------------------------


@each_geometry
def test_forward_of_ellipses(geometry):
    """Pixels of 2 mm: 0.5 % of the largest line integral in the mean, more only where a ray grazes an edge."""
    exact = sinogram(geometry, *BODY)
    error = projector(geometry).forward(raster(GRID, *BODY)) - exact
    assert np.sqrt(np.mean(error**2)) < 0.005 * exact.max()
    assert np.abs(error).max() < 0.08 * exact.max()
    assert abs(error.sum()) < 2e-4 * exact.sum()


@each_geometry
def test_forward_of_a_smooth_blob(geometry):
    """A Gaussian's line integral is a Gaussian of the ray's distance: no edges to hide a shift behind."""
    x_mm, y_mm, sigma_mm = 37.3, -21.9, 12.0
    x, y = pixel_centres(GRID)
    image = np.exp(-((x - x_mm) ** 2 + (y - y_mm) ** 2) / (2 * sigma_mm**2))
    point, direction = rays(geometry)
    away = (point[..., 0] - x_mm) * direction[..., 1] - (point[..., 1] - y_mm) * direction[..., 0]
    exact = np.sqrt(2 * np.pi) * sigma_mm * np.exp(-(away**2) / (2 * sigma_mm**2))
    # linear interpolation widens it by less than 1 %; a shift of a tenth of a pixel would cost 1 %, too
    np.testing.assert_allclose(projector(geometry).forward(image), exact, atol=0.006 * exact.max())


@each_geometry
@pytest.mark.parametrize(("x_mm", "y_mm"), [(70.4, 30.2), (-45.1, 80.3), (-20.7, -90.9), (60.6, -12.5)])
def test_a_point_falls_where_the_case_format_says(geometry, x_mm, y_mm):
    k = np.arange(geometry.views)
    if geometry.type == "parallel":
        b = k * np.pi / geometry.views
        position = (x_mm * np.cos(b) + y_mm * np.sin(b)) / geometry.bin_pitch_mm
    else:
        b = 2 * np.pi * k / geometry.views
        from_source_x, from_source_y = x_mm + 595 * np.sin(b), y_mm - 595 * np.cos(b)
        forwards = from_source_x * np.sin(b) - from_source_y * np.cos(b)
        sideways = from_source_x * np.cos(b) + from_source_y * np.sin(b)
        g = np.arctan2(sideways, forwards)
        position = g / geometry.bin_pitch_rad if geometry.type == "fan-arc" else np.tan(g) * 1085.6 / 2.2
    expected = position + (geometry.bins - 1) / 2
    p = projector(geometry).forward(raster(GRID, disc(1.0, x_mm, y_mm, 4.0))).astype(float)
    centroid = (p * np.arange(geometry.bins)).sum(axis=1) / p.sum(axis=1)
    np.testing.assert_allclose(centroid, expected, atol=0.3)  # pixels of 2 mm do not make a round disc
    assert np.sqrt(np.mean((centroid - expected) ** 2)) < 0.05
    assert abs(np.mean(centroid - expected)) < 0.03


@each_geometry
def test_forward_is_linear_and_takes_masks(geometry):
    mask = raster(GRID, BODY[1]) > 0.01
    scan = projector(geometry)
    one = scan.forward(mask)
    np.testing.assert_allclose(scan.forward(np.where(mask, 3.0, 0)), 3 * one, rtol=1e-5, atol=1e-5)
    assert one.dtype == np.float32
    assert one.max() < np.hypot(50, 24) + 2 * GRID.pixel_mm  # mm, from the ellipse's axes


@each_geometry
def test_empty_and_single_pixel_images(geometry):
    scan = projector(geometry)
    image = np.zeros(GRID.shape)
    assert not scan.forward(image).any()
    assert not scan.forward(np.zeros((2, *GRID.shape))).any()
    for row, col in ((0, 0), (127, 64), (50, 127)):
        image[:] = 0
        image[row, col] = 1
        met = scan.forward(image).max(axis=1)
        # Joseph's triangle is at most one pixel's width over cos 45 degrees high
        assert met.max() <= GRID.pixel_mm * np.sqrt(2) + 1e-4
        assert met.max() > 0.8 * GRID.pixel_mm


@each_geometry
def test_rays_restrict_the_projection(geometry):
    image = raster(GRID, *BODY, factor=2)
    wanted = np.random.default_rng(0).random(geometry.shape) < 0.3
    whole, part = projector(geometry).forward(image), projector(geometry).forward(image, rays=wanted)
    np.testing.assert_allclose(part, np.where(wanted, whole, 0), atol=1e-6)
    assert not projector(geometry).forward(image, rays=np.zeros_like(wanted)).any()


# --- crops, stacks, adjoint -----------------------------------------------------------------------


@each_geometry
def test_crops_project_as_the_full_image(geometry):
    image = np.zeros(GRID.shape, np.float32)
    image[20:61, 70:99] = np.random.default_rng(1).random((41, 29))
    whole = projector(geometry).forward(image)
    crop = projector(geometry, GRID.crop(20, 61, 70, 99)).forward(image[20:61, 70:99])
    np.testing.assert_allclose(crop, whole, atol=1e-4)
    assert whole.max() > 5


@each_geometry
def test_crops_reconstruct_and_backproject_as_the_full_image(geometry):
    p = sinogram(geometry, *BODY)
    full, crop = projector(geometry), projector(geometry, GRID.crop(31, 90, 5, 70))
    np.testing.assert_allclose(crop.fbp(p), full.fbp(p)[31:90, 5:70], atol=2e-6)
    np.testing.assert_allclose(crop.back(p), full.back(p)[31:90, 5:70], rtol=1e-4, atol=1e-3)


@each_geometry
@pytest.mark.parametrize("grid", [ImageGrid(40, 40, 8.0), ImageGrid(24, 33, 8.0)], ids=["folded", "not-folded"])
def test_a_slice_is_the_same_in_any_stack_with_any_threads(geometry, grid):
    """Bit for bit: 33 slices take blocks of both widths, whole and half empty; some of them hold nothing."""
    small = replace(geometry, views=12)
    scan = projector(small, grid)
    rng = np.random.default_rng(0)
    images = rng.random((33, *grid.shape), np.float32)
    sinograms = rng.random((33, *small.shape), np.float32)
    images[5:7] = 0
    sinograms[5:7] = 0
    sinograms[8, :5] = 0
    for method, stack in ((scan.forward, images), (scan.back, sinograms), (scan.fbp, sinograms)):
        together = method(stack)
        assert together.shape[0] == 33
        for some in (slice(0, 1), slice(3, 6), slice(4, 12), slice(32, 33)):
            np.testing.assert_array_equal(method(stack[some]), together[some])
        assert method(stack[0]).ndim == 2
        before = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            np.testing.assert_array_equal(method(stack), together)
        finally:
            numba.set_num_threads(before)


@each_geometry
def test_projectors_of_several_threads_do_not_disturb_each_other(geometry):
    """Callers may have threads of their own, as PyTorch's and Dask's have."""
    image = raster(GRID, *BODY, factor=2)
    scan = projector(geometry)
    once = scan.fbp(scan.forward(image))
    with ThreadPoolExecutor(4) as pool:
        for other in pool.map(lambda _: scan.fbp(scan.forward(image)), range(8)):
            np.testing.assert_array_equal(other, once)


def test_only_tiles_with_something_in_them_are_projected():
    """A small mask costs what it covers: the tiles that hold it, and the one whose last column is beside it."""
    block = np.zeros((130, 98, 8), np.float32)
    block[40:45, 70:72, 3] = 1
    block[10, 32, 0] = 1  # the first column of the second tile is also read by the steps that end the first
    occupied = np.zeros((4, 4), bool)
    joseph._find_occupied(0, 4, block, occupied)
    assert set(zip(*np.nonzero(occupied), strict=True)) == {(1, 2), (0, 0), (0, 1)}


@each_geometry
@pytest.mark.parametrize("grid", [GRID, ImageGrid(51, 90, 2.3, 20.0, -35.0)], ids=["centred", "off-centre"])
def test_back_is_the_adjoint_of_forward(geometry, grid):
    rng = np.random.default_rng(2)
    x = rng.random(grid.shape)
    y = rng.random(geometry.shape)
    scan = projector(geometry, grid)
    forward, back = scan.forward(x).astype(float), scan.back(y).astype(float)
    assert np.vdot(forward, y) == pytest.approx(np.vdot(x, back), rel=1e-5)
    # and without the positive mean, which would hide a local error
    x, y = x - 0.5, y - 0.5
    forward, back = scan.forward(x).astype(float), scan.back(y).astype(float)
    scale = np.linalg.norm(forward) * np.linalg.norm(y)
    assert np.vdot(forward, y) == pytest.approx(np.vdot(x, back), abs=1e-5 * scale)


# --- filtered backprojection ----------------------------------------------------------------------


@each_geometry
@pytest.mark.parametrize("window", FILTERS)
def test_disc_has_its_value_its_place_and_no_offset_outside(geometry, window):
    value, x_mm, y_mm, radius_mm = 0.02, 31.3, -22.7, 50.0
    image = projector(geometry).fbp(sinogram(geometry, disc(value, x_mm, y_mm, radius_mm)), window=window).astype(float)
    x, y = pixel_centres(GRID)
    away = np.hypot(x - x_mm, y - y_mm)
    inside, outside = away < radius_mm - 6, (away > radius_mm + 6) & (np.hypot(x, y) < 120)
    np.testing.assert_allclose(image[inside], value, rtol=0.005)
    assert image[inside].mean() == pytest.approx(value, rel=5e-4)
    assert abs(image[outside].mean()) < 5e-4 * value
    mass = np.where(away < radius_mm + 4, image, 0)
    assert (mass * x).sum() / mass.sum() == pytest.approx(x_mm, abs=0.1 * GRID.pixel_mm)
    assert (mass * y).sum() / mass.sum() == pytest.approx(y_mm, abs=0.1 * GRID.pixel_mm)


@each_geometry
def test_a_bin_is_smeared_back_along_its_ray(geometry):
    """One view alone, since over a whole turn a shift of the detector only blurs.

    At view 0 a fan's source stands at (0, R) and looks down: the ray of fan angle g is at x = (R - y) tan g.
    """
    p = np.zeros(geometry.shape)
    away_from_bin = np.arange(geometry.bins) - 160.0
    p[0] = np.exp(-(away_from_bin**2) / (2 * 8.0**2))
    image = projector(geometry).fbp(p)
    x, y = (axis.ravel() for axis in pixel_centres(GRID))
    for row in (10, 64, 110):
        if geometry.type == "parallel":
            position = x / 1.2
        elif geometry.type == "fan-arc":
            position = np.arctan(x / (595 - y[row])) / 0.002
        else:
            position = x / (595 - y[row]) * 1085.6 / 2.2
        away = position + 249 / 2 - 160
        lobe = np.abs(away) < 5
        assert lobe.sum() >= 5
        bend, slope, _ = np.polyfit(away[lobe], image[row, lobe], 2)
        assert -slope / (2 * bend) == pytest.approx(0, abs=0.1)  # the vertex, in bins


@each_geometry
def test_ellipses_come_back(geometry):
    image = projector(geometry).fbp(sinogram(geometry, *BODY), window="hann")
    truth = raster(GRID, *BODY)
    flat = np.ptp([np.roll(truth, s, (0, 1)) for s in np.ndindex(5, 5)], axis=0)  # 0 away from every edge
    flat = np.roll(flat, (-2, -2), (0, 1)) < 1e-9
    x, y = pixel_centres(GRID)
    flat &= np.hypot(x, y) < 115
    assert set(np.unique(truth[flat].round(3))) == {0.0, 0.01, 0.02, 0.03, 0.05}
    body = flat & (truth > 0)
    np.testing.assert_allclose(image[body], truth[body], atol=0.05 * 0.02)
    # outside, 180 views leave faint streaks but no offset
    air = image[flat & ~body].astype(float)
    assert np.sqrt(np.mean(air**2)) < 0.02 * 0.02
    assert abs(air.mean()) < 5e-4 * 0.02


def test_parallel_views_over_a_full_turn():
    p = sinogram(Parallel(views=180, bins=250, bin_pitch_mm=1.2), *BODY)
    half = projector(Parallel(views=180, bins=250, bin_pitch_mm=1.2)).fbp(p)
    turn = Parallel(views=360, bins=250, bin_pitch_mm=1.2, arc_rad=2 * np.pi)
    np.testing.assert_allclose(projector(turn).fbp(np.concatenate([p, p[:, ::-1]])), half, atol=2e-5)


def test_a_lower_cutoff_blurs():
    geometry = GEOMETRIES["fan-arc"]
    edges = [
        np.abs(np.diff(projector(geometry).fbp(sinogram(geometry, disc(0.02, 0, 0, 50)), cutoff=c)[64])).max()
        for c in (1.0, 0.5, 0.25)
    ]
    assert edges[0] > edges[1] > edges[2]


def test_nothing_comes_from_behind_the_source():
    """A grid that reaches beyond the source, which stands at (0, 60) in the first view and looks down."""
    scan = projector(FanArc(views=36, bins=40, source_isocentre_mm=60.0, bin_pitch_rad=0.01), ImageGrid(40, 40, 5.0))
    p = np.zeros(scan.geometry.shape)
    p[0] = 1.0
    image = scan.fbp(p)
    assert np.isfinite(image).all()
    assert not image[scan.grid.y_mm() > 60].any()
    assert image[30, 19:21].all()


# --- mistakes -------------------------------------------------------------------------------------


@each_geometry
def test_wrong_shapes(geometry):
    scan = projector(geometry)
    with pytest.raises(ValueError, match="do not fit the grid"):
        scan.forward(np.zeros((128, 127)))
    with pytest.raises(ValueError, match="do not fit the grid"):
        scan.forward(np.zeros(128))
    for method in (scan.back, scan.fbp):
        with pytest.raises(ValueError, match="do not fit the geometry"):
            method(np.zeros((2, geometry.views, geometry.bins + 1)))
    with pytest.raises(ValueError, match="rays has the shape"):
        scan.forward(np.zeros(GRID.shape), rays=np.ones((3, 3), bool))


def test_wrong_options():
    scan = projector(GEOMETRIES["fan-arc"])
    with pytest.raises(ValueError, match="unknown filter"):
        scan.fbp(np.zeros(scan.geometry.shape), window="gauss")
    with pytest.raises(ValueError, match="cutoff"):
        scan.fbp(np.zeros(scan.geometry.shape), cutoff=2.0)
    short = Parallel(views=10, bins=20, arc_rad=3.0)
    with pytest.raises(ValueError, match="multiple of 180 degrees"):
        projector(short).fbp(np.zeros(short.shape))


def test_devices():
    with pytest.raises(ValueError, match="unknown device"):
        choose_device("gpu")
    assert choose_device("cpu") == ("cpu", "asked for")
    device, reason = choose_device("auto")
    problem = why_no_cuda()
    if problem is None:
        assert device == "cuda"
        assert choose_device("cuda")[0] == "cuda"
    else:
        assert (device, reason) == ("cpu", problem)
        with pytest.raises(ValueError, match="no CUDA projections here"):
            choose_device("cuda")


@pytest.mark.parametrize("views", [90, 91])
def test_views_without_anything_do_not_tie_a_slice_to_its_stack(views):
    """Corrections change few views, other ones in every slice: which are left out must not show in the rounding."""
    projector = Projector(FanArc(views=views, bins=230), ImageGrid(144, 144, 2.9), device="cpu")
    sinograms = np.random.default_rng(0).random((6, views, 230), np.float32)
    for k, one in enumerate(sinograms):
        one[10 * k : 10 * k + 15] = 0
    together = projector.fbp(sinograms)
    for one, image in zip(sinograms, together, strict=True):
        np.testing.assert_array_equal(projector.fbp(one), image)


@each_geometry
@pytest.mark.parametrize("grid", [ImageGrid(1, 1, 2.0), ImageGrid(1, 40, 2.0), ImageGrid(33, 1, 2.0)])
def test_tiny_grids(geometry, grid):
    """Rows and columns that do not fill a tile; the adjoint still is one."""
    small = replace(geometry, views=3)
    scan = projector(small, grid)
    rng = np.random.default_rng(0)
    x, y = rng.random(grid.shape), rng.random(small.shape)
    assert np.vdot(scan.forward(x).astype(float), y) == pytest.approx(np.vdot(x, scan.back(y).astype(float)), rel=1e-5)
    assert np.isfinite(scan.fbp(y)).all()


def test_one_bin_has_no_filter():
    with pytest.raises(ValueError, match="at least two bins"):
        projector(Parallel(views=4, bins=1)).fbp(np.zeros((4, 1)))


def test_rays_are_whole_lines_where_the_source_stands_in_the_image():
    """No scanner does that, but a file may say so: the line through source and isocentre crosses the whole square."""
    scan = projector(FanArc(views=8, bins=5, source_isocentre_mm=50.0, bin_pitch_rad=0.01))
    p = scan.forward(np.ones(GRID.shape))
    np.testing.assert_allclose(p[::2, 2], GRID.rows * GRID.pixel_mm, rtol=1e-5)


def test_grids_need_a_finite_centre():
    with pytest.raises(ValueError, match="must be finite"):
        ImageGrid(4, 4, 1.0, float("nan"), 0.0)
