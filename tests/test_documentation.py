"""What documents tell other programs to do with a case gives what our own code gives."""

import re
from pathlib import Path

import numpy as np
import pytest

from ctmar.case_maker import make_cases
from ctmar.database import write_case
from ctmar.interpolation import interpolate_trace
from ctmar.planning import PlacedCase, PlannedCase
from ctmar.screening import Screened
from ctmar.segmentation import metal_path_mm
from ctmar.simulation_settings import SimulationSettings
from ctmar.sources import SourceSlice
from data_sim.geometry import ImageGrid
from data_sim.implants import Piece, disc
from data_sim.projection import Projector

ROOT = Path(__file__).parents[1]
GRID = ImageGrid(96, 96, 3.0)


def blocks(name):
    """The Python code blocks of a document."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("geometry", "views", "bins"), [("arc", 90, 500), ("flat", 90, 600), ("parallel", 90, 320)])
def test_arrays_for_other_code(tmp_path, monkeypatch, geometry, views, bins):
    """Against our own projector and LI, for each geometry."""
    settings = SimulationSettings(geometry=geometry, views=views, bins=bins)
    rows, cols = np.mgrid[:96, :96] - 47.5
    water = np.where(np.hypot(rows, cols) < 35, 0, -1000).astype(np.float32)
    pieces = (Piece(disc(14.0, 40.0, 25.0), "ti"), Piece(disc(9.0, -30.0, -50.0), "fe"))
    planned = PlannedCase(1, "random", Screened(SourceSlice("s", lambda: None), "p", GRID, ("random",)))
    placed = PlacedCase(planned, water, GRID, "p", pieces, np.random.default_rng(0))
    ((name, case),) = make_cases([placed], settings, device="cpu")
    write_case(tmp_path / "db" / f"{name}.h5", case)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks("docs/other-mar-code.md"):
        exec(compile(code, "other-mar-code.md", "exec"), names)
    found = names["case"]

    trace = found["metal_trace"] > 0
    path_mm = metal_path_mm(case.mask_metal[None], Projector(settings.scanner(), GRID, device="cpu"))[0]
    assert trace[path_mm > 0.01].all()
    assert np.count_nonzero(trace & (path_mm == 0)) < 0.2 * np.count_nonzero(trace)
    expected = interpolate_trace(case.sinogram_metal[None], trace[None])[0]
    np.testing.assert_allclose(found["LI_sinogram"], expected, atol=1e-5)
    for kind, image in (("ma_CT", "uncorrected"), ("LI_CT", "li"), ("gt_CT", "reference")):
        mu_per_cm = np.maximum(0.0192851 * 10 * (1 + case.images[image] / 1000), 0)
        np.testing.assert_allclose(found[kind], mu_per_cm, atol=1e-6)
    np.testing.assert_array_equal(found["mask"], case.mask_metal)
    np.testing.assert_array_equal(found["gt_sinogram"], case.sinogram_reference)
    body = np.hypot(rows, cols) < 20
    assert names["indudonet"]["gt_CT"][body].mean() == pytest.approx(255 * 0.1929, rel=0.02)
    assert names["adn"]["gt_CT"][body].mean() == pytest.approx(2 * 0.1929 / 0.5 - 1, abs=0.02)
