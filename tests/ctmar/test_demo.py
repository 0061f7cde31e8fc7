"""The demo with everything made small: what it writes, and that the corrected series is a series."""

import json

import numpy as np
import pydicom
import pytest

from ctmar import demo, slice_correction, sources
from ctmar.evaluation import without_nan
from ctmar.method_names import METHODS
from ctmar.simulation_settings import SimulationSettings
from data_sim.geometry import FanArc, ImageGrid
from tests.ctmar.small import tree

GRIDS = {"pelvis": ImageGrid(144, 144, 2.9), "head": ImageGrid(144, 144, 1.6)}
FAN = FanArc(views=360, bins=460, bin_pitch_rad=0.002)


@pytest.fixture
def small_demo(monkeypatch):
    monkeypatch.setattr(sources, "PHANTOM_PATIENTS", 2)
    monkeypatch.setattr(sources, "PHANTOM_SLICES_MM", (0.0,))
    monkeypatch.setattr(sources, "REGIONS", tuple(GRIDS))
    for module in (sources, demo):
        monkeypatch.setattr(module, "PHANTOM_GRIDS", GRIDS)
    monkeypatch.setattr(demo, "FanArc", lambda: FAN)
    monkeypatch.setattr(slice_correction, "reprojection_geometry", lambda grid: FAN)

    def few_cases(*, seed, cases, implants, materials):
        assert cases >= len(implants)
        return SimulationSettings(cases=2, seed=seed, implants=("hip",), materials=materials, views=120, bins=230)

    monkeypatch.setattr(demo, "SimulationSettings", few_cases)


@pytest.mark.slow
def test_demo(tmp_path, small_demo):
    told = []
    out = tmp_path / "demo"
    rows = demo.run_demo(out, device="cpu", overwrite=False, progress=lambda what, *_: told.append(what))
    assert {path.name for path in out.iterdir()} >= {
        "series", "corrected", "db", "metrics.json", "metrics.csv", "report.html", "before-after.png",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    # the cases' 230 bins see 68 mm about the middle: soft tissue near the metal may have no pixel within its HU
    assert json.loads((out / "metrics.json").read_text()) == without_nan(rows)
    assert {row["case"] for row in rows} == {path.stem for path in (out / "db").glob("*.h5")}
    for path in ("raw", "dicom"):
        assert {row["method"] for row in rows if row["path"] == path} == {*METHODS, "cnn-mar-blended", "limit"}
    series, corrected = (sorted((out / name).glob("*.dcm")) for name in ("series", "corrected"))
    assert len(series) == len(corrected) == 5
    for k, (old, new) in enumerate(zip(series, corrected, strict=True)):
        before, after = pydicom.dcmread(old), pydicom.dcmread(new)
        assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
        assert np.array_equal(before.pixel_array, after.pixel_array) == (k in (0, 4))  # free of metal
    assert {"correcting", "evaluating"} <= set(told)


@pytest.mark.slow
def test_a_demo_that_fails_leaves_the_old_one(tmp_path, small_demo, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("broken")

    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "metrics.json").write_text("old")
    before = tree(tmp_path)
    monkeypatch.setattr(demo, "correct_series", fail)
    with pytest.raises(RuntimeError, match="broken"):
        demo.run_demo(tmp_path / "demo", device="cpu", overwrite=True, progress=lambda *_: None)
    assert tree(tmp_path) == before
