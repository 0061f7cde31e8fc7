"""What the sheets show, by their pixels."""

import numpy as np
import pytest
from PIL import Image

from ctmar.database import Case, write_case
from ctmar.planning import PlacedCase, PlannedCase
from ctmar.report.contact_sheet import planned_sheet, simulated_sheet
from ctmar.screening import Screened
from ctmar.sources import SourceSlice
from data_sim.geometry import FanArc, ImageGrid
from data_sim.implants import Piece, disc

GRID = ImageGrid(256, 256, 1.0)


def placed(number, x_mm=50.0):
    planned = PlannedCase(number, "clip", Screened(SourceSlice("s", lambda: None), "p", GRID, ("clip",)))
    water = np.full(GRID.shape, 40, np.float32)  # mid-grey in the soft tissue window
    return PlacedCase(planned, water, GRID, "p", (Piece(disc(20.0, x_mm, 0.0), "ti"),), np.random.default_rng(0))


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_metal_is_orange_where_it_will_be(tmp_path):
    planned_sheet([placed(1), placed(2, -50.0)], tmp_path / "sheet.png")
    sheet = pixels(tmp_path / "sheet.png")
    assert sheet.shape == (6 + 20 + 256 + 6, 6 + 2 * (256 + 6), 3)
    tops, lefts = 26, (6, 6 + 256 + 6)
    for left, col in zip(lefts, (128 + 50, 128 - 50), strict=True):
        assert tuple(sheet[tops + 128, left + col]) == (255, 138, 31)
        assert tuple(sheet[tops + 128, left + 255 - col]) == (128, 128, 128)
        orange = (sheet[tops:, left : left + 256] == (255, 138, 31)).all(axis=-1).sum()
        assert orange == pytest.approx(np.pi * 100, rel=0.15)


def test_images_of_case_files(tmp_path):
    geometry = FanArc(views=4, bins=8)
    for number in (1, 2):
        write_case(
            tmp_path / f"case-{number:06d}.h5",
            Case(
                geometry=geometry,
                grid=GRID,
                mu_water_per_mm=0.0192,
                sinogram_metal=np.zeros(geometry.shape, np.float32),
                mask_metal=np.zeros(GRID.shape, bool),
                images={"uncorrected": np.full(GRID.shape, 1000 * (number - 1), np.float32)},
            ),
        )
    simulated_sheet(sorted(tmp_path.glob("*.h5")), tmp_path / "simulated.png")
    sheet = pixels(tmp_path / "simulated.png")
    assert tuple(sheet[200, 100]) == (102, 102, 102)  # (0 - 40) / 400 + 0.5
    assert tuple(sheet[200, 400]) == (255, 255, 255)


def test_a_sheet_of_nothing(tmp_path):
    simulated_sheet([], tmp_path / "simulated.png")
    with Image.open(tmp_path / "simulated.png") as sheet:
        assert sheet.size == (268, 288)
