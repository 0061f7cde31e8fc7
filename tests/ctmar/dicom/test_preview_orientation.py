"""A preview says where left and back are, also of patients who lie prone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from ctmar import slice_correction
from ctmar.correction import correct_series
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.synthetic import ct_dataset, save
from tests.ctmar.small import GEOMETRY, small_volumes


@pytest.mark.parametrize(
    ("orientation", "towards"),
    [
        ((1, 0, 0, 0, 1, 0), ["L", "P"]),
        ((-1, 0, 0, 0, -1, 0), ["R", "A"]),
        ((-1, 0, 0, 0, 0.96, 0.28), ["R", "P"]),
        ((0, 1, 0, -1, 0, 0), ["P", "R"]),
    ],
)
def test_patient_orientation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: tuple[float, ...], towards: list[str]
) -> None:
    pytest.importorskip("highdicom")
    monkeypatch.setattr(slice_correction, "reprojection_geometry", lambda grid: GEOMETRY)
    ds = ct_dataset(np.asarray(small_volumes(3)[0][1]))
    ds.ImageOrientationPatient = list(orientation)
    save(ds, tmp_path / "source" / "a.dcm")
    (series,) = choose_series(find_series(tmp_path / "source"))
    correct_series(series, tmp_path / "out", CorrectionSettings("li", device="cpu", preview=True))
    (preview,) = (tmp_path / "out" / "preview").iterdir()
    read = pydicom.dcmread(preview)
    assert list(read.PatientOrientation) == towards
    assert read.BodyPartExamined == "PELVIS"
