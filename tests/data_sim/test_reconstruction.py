"""What reconstructions must be, whatever the geometry: flat, round, in place, turned as the object is."""

from dataclasses import replace

import numpy as np
import pytest

from data_sim.geometry import FanArc, ImageGrid, geometry_from_dict
from data_sim.projection import Projector
from tests.data_sim.analytic import ARC, GEOMETRIES, GRID, Ellipse, disc, pixel_centres, raster, rays, sinogram

each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())

BODY = (Ellipse(0.02, -12.3, 8.1, 80, 55, 0.4), Ellipse(0.03, 30.2, -21.7, 25, 12, -1.1), disc(-0.01, -40, 35, 13))


def fbp(geometry, *ellipses, grid=GRID, **options):
    return Projector(geometry, grid, device="cpu").fbp(sinogram(geometry, *ellipses), **options).astype(float)


@each_geometry
def test_a_uniform_disc_has_neither_cup_nor_rim_nor_centre(geometry):
    """Mean of each ring of 4 mm within 0.1 % of the true value, from the centre to two rings from the edge.

    The disc is not centred: its edge would meet the bins at the same place in all views, and rays that are lines
    would then miss it by the same fraction of a bin in all of them.
    """
    image = fbp(replace(geometry, views=720), disc(0.02, 3.3, -2.1, 100))
    x, y = pixel_centres(GRID)
    radius = np.hypot(x - 3.3, y + 2.1)
    rings = [image[(radius >= r) & (radius < r + 4)].mean() for r in range(0, 92, 4)]
    np.testing.assert_allclose(rings, 0.02, rtol=1e-3)
    assert image[63:65, 63:65].mean() == pytest.approx(0.02, rel=1e-3)


@each_geometry
def test_a_turned_object_gives_a_turned_image(geometry):
    """180 views: a quarter turn is 45 views of a fan, and half the views of a parallel scan (then the ray returns)."""
    image = raster(GRID, *BODY, factor=2).astype(np.float32)
    scan = Projector(geometry, GRID, device="cpu")
    p, turned = scan.forward(image), scan.forward(np.rot90(image))
    quarter = geometry.views // (2 if geometry.type == "parallel" else 4)
    # an object turned by +90 degrees looks from b + 90 as the object itself from b
    np.testing.assert_allclose(turned[quarter:], p[: geometry.views - quarter], atol=2e-5 * p.max())
    np.testing.assert_allclose(scan.fbp(turned), np.rot90(scan.fbp(p)), atol=2e-5 * 0.03)


@each_geometry
def test_quarters_worked_as_one_give_what_single_views_give(geometry):
    """A grid that is not square is worked without the quarters; its middle is the square grid's image."""
    wide = ImageGrid(GRID.rows, GRID.cols + 2, GRID.pixel_mm)
    image = raster(GRID, *BODY, factor=2).astype(np.float32)
    p = Projector(geometry, GRID, device="cpu").forward(image)
    plain = Projector(geometry, wide, device="cpu")
    np.testing.assert_allclose(plain.forward(np.pad(image, ((0, 0), (1, 1)))), p, atol=2e-6 * p.max())
    folded = Projector(geometry, GRID, device="cpu")
    np.testing.assert_allclose(plain.fbp(p)[:, 1:-1], folded.fbp(p), atol=2e-7)
    np.testing.assert_allclose(plain.back(p)[:, 1:-1], folded.back(p), rtol=1e-5)


@each_geometry
@pytest.mark.parametrize(("x_mm", "y_mm"), [(70.4, 30.2), (-45.1, 80.3), (-20.7, -90.9), (20.3, -1.0)])
def test_a_point_lands_within_a_tenth_of_a_pixel(geometry, x_mm, y_mm):
    grid = ImageGrid(512, 512, 0.5)
    image = fbp(replace(geometry, views=360), disc(1.0, x_mm, y_mm, 1.5), grid=grid, window="hann")
    x, y = pixel_centres(grid)
    weight = np.where(np.hypot(x - x_mm, y - y_mm) < 4, np.maximum(image, 0), 0)
    assert (weight * x).sum() / weight.sum() == pytest.approx(x_mm, abs=0.1 * 0.5)
    assert (weight * y).sum() / weight.sum() == pytest.approx(y_mm, abs=0.1 * 0.5)


@each_geometry
@pytest.mark.parametrize("offset", [0.25, -3.5])
def test_a_shifted_detector(geometry, offset):
    """Rays where the formula puts them, the image where it was; the geometry survives its dictionary."""
    shifted = replace(geometry, bin_offset=offset)
    assert geometry_from_dict(shifted.to_dict()) == shifted
    point, direction = rays(shifted)
    theta, s = shifted.line_coordinates()
    np.testing.assert_allclose(point[..., 0] * np.cos(theta) + point[..., 1] * np.sin(theta), s, atol=1e-9)
    np.testing.assert_allclose(np.stack([np.sin(theta), -np.cos(theta)], -1), direction, atol=1e-12)
    exact = sinogram(shifted, *BODY)
    error = Projector(shifted, GRID, device="cpu").forward(raster(GRID, *BODY)) - exact
    assert np.sqrt(np.mean(error**2)) < 0.005 * exact.max()
    image = fbp(shifted, *BODY, window="hann")
    x, y = pixel_centres(GRID)
    assert image[np.hypot(x - 30.2, y + 21.7) < 4] == pytest.approx(0.05, rel=0.02)
    assert np.abs(image - fbp(geometry, *BODY, window="hann")).mean() < 0.01 * 0.02


def test_a_quarter_of_a_bin_halves_the_aliasing():
    """Opposite views then sample between each other's rays: P. M. Joseph, Opt. Eng. 19(3):396-401, 1980."""
    thin = disc(1.0, 30.3, 11.7, 0.8)
    coarse = FanArc(views=360, bins=125, bin_pitch_rad=0.004)
    x, y = pixel_centres(GRID)
    streaks = (np.hypot(x - 30.3, y - 11.7) > 10) & (np.hypot(x, y) < 100)
    plain, quarter = (fbp(replace(coarse, bin_offset=o), thin)[streaks].std() for o in (0.0, 0.25))
    assert quarter < 0.7 * plain


@pytest.mark.parametrize("values", [{"bin_offset": 125.0}, {"bin_offset": float("nan")}])
def test_shifts_that_leave_the_detector(values):
    with pytest.raises(ValueError, match="bin_offset must leave the central ray on the detector"):
        replace(ARC, **values)
