"""Geometries against the formulas of the case file, written out here a second time."""

import json

import numpy as np
import pytest

from data_sim.geometry import FanArc, FanFlat, ImageGrid, Parallel, geometry_from_dict
from tests.data_sim.analytic import GEOMETRIES, rays

each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())


# --- image grid -----------------------------------------------------------------------------------


def test_pixel_centres_of_a_small_grid():
    grid = ImageGrid(2, 3, 2.0)
    assert grid.shape == (2, 3)
    np.testing.assert_allclose(grid.x_mm(), [-2, 0, 2])
    np.testing.assert_allclose(grid.y_mm(), [1, -1])  # y goes up, rows go down


def test_index_of_inverts_the_pixel_centres():
    grid = ImageGrid(5, 8, 0.7, 12.0, -3.0)
    for row, y in enumerate(grid.y_mm()):
        for col, x in enumerate(grid.x_mm()):
            assert grid.index_of(x, y) == (pytest.approx(row, abs=1e-9), pytest.approx(col, abs=1e-9))


def test_crop_keeps_the_pixels_where_they_are():
    grid = ImageGrid(20, 31, 0.8, 5.0, -7.0)
    part = grid.crop(3, 11, 6, 29)
    assert part.shape == (8, 23)
    np.testing.assert_allclose(part.x_mm(), grid.x_mm()[6:29])
    np.testing.assert_allclose(part.y_mm(), grid.y_mm()[3:11])


def test_refined_splits_every_pixel():
    grid = ImageGrid(4, 6, 1.5, 2.0, 1.0)
    fine = grid.refined(3)
    assert fine.shape == (12, 18)
    np.testing.assert_allclose(fine.x_mm().reshape(6, 3).mean(axis=1), grid.x_mm())
    np.testing.assert_allclose(fine.y_mm().reshape(4, 3).mean(axis=1), grid.y_mm())
    np.testing.assert_allclose(np.diff(fine.x_mm()), 0.5)


def test_grid_in_a_case_file():
    assert ImageGrid(512, 256, 0.8).to_dict() == {"rows": 512, "cols": 256, "pixel_mm": 0.8}
    with pytest.raises(ValueError, match="centred on the isocentre"):
        ImageGrid(4, 4, 1.0, 0.0, 1.0).to_dict()


@pytest.mark.parametrize(
    "values", [(0, 4, 1.0), (4, 0, 1.0), (4, 4, 0.0), (4, 4, -1.0), (4, 4, np.nan), (4, 4, np.inf)]
)
def test_grid_refuses_nonsense(values):
    with pytest.raises(ValueError, match=r"at least one pixel|pixel_mm must be positive"):
        ImageGrid(*values)


# --- scans ----------------------------------------------------------------------------------------


def test_defaults_are_the_case_format_examples():
    """The JSON lines of the case file's description."""
    for text, scan in (
        (
            '{"type": "fan-arc", "views": 984, "bins": 920, "source_isocentre_mm": 595.0, "bin_pitch_rad": 0.001}',
            FanArc(),
        ),
        (
            '{"type": "fan-flat", "views": 984, "bins": 920, "source_isocentre_mm": 595.0, '
            '"source_detector_mm": 1085.6, "bin_pitch_mm": 1.0}',
            FanFlat(),
        ),
        (
            '{"type": "parallel", "views": 720, "bins": 736, "bin_pitch_mm": 1.0, "arc_rad": 3.141592653589793}',
            Parallel(),
        ),
    ):
        assert scan.to_dict() == json.loads(text)
        assert geometry_from_dict(json.loads(text)) == scan


@each_geometry
def test_rays_are_those_of_the_case_format(geometry):
    """x cos(theta) + y sin(theta) = s for two points of every ray, and the ray runs along (sin, -cos)."""
    theta, s_mm = geometry.line_coordinates()
    assert theta.shape == s_mm.shape == geometry.shape
    point, direction = rays(geometry)
    for distance_mm in (0.0, 400.0):
        x, y = np.moveaxis(point + distance_mm * direction, -1, 0)
        np.testing.assert_allclose(x * np.cos(theta) + y * np.sin(theta), s_mm, atol=1e-9)
    np.testing.assert_allclose(np.stack([np.sin(theta), -np.cos(theta)], -1), direction, atol=1e-12)


def test_arc_rays_at_hand_computed_places():
    """Source at the top looking down; a quarter turn later it stands at the left looking right."""
    scan = FanArc(views=4, bins=3, source_isocentre_mm=100.0, bin_pitch_rad=np.pi / 6)
    theta, s_mm = scan.line_coordinates()
    np.testing.assert_allclose(s_mm[0], [-50, 0, 50])
    np.testing.assert_allclose(theta[0], [-np.pi / 6, 0, np.pi / 6])
    np.testing.assert_allclose(theta[1, 1], np.pi / 2)
    point, direction = rays(scan)
    np.testing.assert_allclose(point[0, 1], [0, 100], atol=1e-12)
    np.testing.assert_allclose(direction[0, 1], [0, -1], atol=1e-12)
    np.testing.assert_allclose(point[1, 1], [-100, 0], atol=1e-12)
    np.testing.assert_allclose(direction[1, 1], [1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("geometry", "radius_mm"),
    [
        (FanArc(bins=921, bin_pitch_rad=0.001), 595 * np.sin(0.46)),
        (FanFlat(bins=921, bin_pitch_mm=2.0), 595 * 920 / np.hypot(920, 1085.6)),
        (Parallel(bins=737, bin_pitch_mm=0.5), 184.0),
    ],
)
def test_field_of_view(geometry, radius_mm):
    assert geometry.field_of_view_mm == pytest.approx(radius_mm)


@each_geometry
def test_a_dictionary_gives_the_geometry_back(geometry):
    assert geometry_from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry


def test_dictionaries_from_strangers():
    good = Parallel().to_dict()
    with pytest.raises(ValueError, match="unknown geometry type 'cone'"):
        geometry_from_dict({**good, "type": "cone"})
    with pytest.raises(ValueError, match="unknown geometry type None"):
        geometry_from_dict({})
    with pytest.raises(ValueError, match="needs exactly"):
        geometry_from_dict({k: v for k, v in good.items() if k != "bins"})
    with pytest.raises(ValueError, match="needs exactly"):
        geometry_from_dict({**good, "pitch": 1})
    with pytest.raises(ValueError, match="bins must be positive"):
        geometry_from_dict({**good, "bins": -3})
    with pytest.raises(ValueError, match="could not convert"):
        geometry_from_dict({**good, "bin_pitch_mm": "wide"})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_scans_refuse_what_is_not_positive(value):
    with pytest.raises(ValueError, match="must be positive"):
        FanArc(source_isocentre_mm=value)
    with pytest.raises(ValueError, match="must be positive"):
        FanFlat(bin_pitch_mm=value)
    with pytest.raises(ValueError, match="must be positive"):
        Parallel(views=value)


def test_a_fan_is_narrower_than_half_a_turn():
    with pytest.raises(ValueError, match="narrower than 180"):
        FanArc(bins=920, bin_pitch_rad=0.0035)
