from dataclasses import replace

import numpy as np
import pytest

from data_sim.field_of_view import narrowed
from data_sim.geometry import FanArc, FanFlat, ImageGrid, Parallel
from data_sim.projection import Projector
from tests.data_sim.analytic import disc, sinogram


@pytest.mark.parametrize(
    ("geometry", "half_width_mm"),
    [
        (FanArc(), lambda bins: 595 * np.sin((bins - 1) / 2 * 0.001)),
        (FanFlat(), lambda bins: 595 * np.sin(np.arctan((bins - 1) / 2 / 1085.6))),
        (Parallel(), lambda bins: (bins - 1) / 2),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_as_few_bins_as_see_the_circle(geometry, half_width_mm):
    narrow = narrowed(geometry, 300.0)
    assert half_width_mm(narrow.bins) >= 150 > half_width_mm(narrow.bins - 1)
    assert replace(narrow, bins=geometry.bins) == geometry
    assert narrowed(geometry, 2 * geometry.field_of_view_mm) == geometry


def test_a_field_of_view_that_the_scan_has_not():
    for fov_mm in (0.0, -5.0, 600.0, float("nan")):
        with pytest.raises(ValueError, match="fov_mm must lie between 0 and what the scan sees, 528 mm"):
            narrowed(FanArc(), fov_mm)


def test_a_patient_wider_than_the_field_of_view_leaves_a_bright_rim():
    """As documented: plain FBP shows what is missing as too much at the edge of the circle."""
    scanner = FanArc(views=240, bins=300, bin_pitch_rad=0.003)
    grid = ImageGrid(96, 96, 3.0)
    x, y = np.meshgrid(grid.x_mm(), grid.y_mm())
    distance = np.hypot(x, y)
    images = {}
    for geometry in (scanner, narrowed(scanner, 200.0)):
        images[geometry.bins] = Projector(geometry, grid, device="cpu").fbp(sinogram(geometry, disc(1.0, 0, 0, 180)))
    narrow, whole = images[min(images)], images[300]
    assert whole[distance < 90].mean() == pytest.approx(1, abs=0.01)
    centre, rim = narrow[distance < 20].mean(), narrow[(distance > 92) & (distance < 98)].mean()
    assert centre > 1.02
    assert rim > centre + 0.2
