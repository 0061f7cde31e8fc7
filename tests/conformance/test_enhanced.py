"""dciodvfy and dcentvfy (dicom3tools) on the enhanced CT objects of the tests, and on what is derived from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.conformance.test_dciodvfy import MISSING, derive_all, errors, output
from tests.ctmar.dicom.build import ramp_hu, save, write_ct_series
from tests.ctmar.dicom.enhanced import enhanced_ct_dataset

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.mark.parametrize("tilt_deg", [0.0, 12.5])
def test_enhanced_object_and_what_is_derived_from_it(tmp_path: Path, tilt_deg: float) -> None:
    source = save(enhanced_ct_dataset(ramp_hu(3), tilt_deg=tilt_deg), tmp_path / "e.dcm")
    assert output("dciodvfy", "-new", source).strip() == "EnhancedCTImage"  # not even a warning
    derived = derive_all(source, tmp_path / "derived")
    assert len(derived) == 3
    for path in derived:
        assert not errors(path)
        assert output("dcmdump", "-q", path).count("E:") == 0
    assert output("dcentvfy", *derived) == ""


def test_legacy_converted_object_and_what_is_derived_from_it(tmp_path: Path) -> None:
    legacy = pytest.importorskip("highdicom.legacy")
    sources = [pydicom.dcmread(path) for path in write_ct_series(tmp_path / "classic", ramp_hu(3))]
    converted = legacy.LegacyConvertedEnhancedCTImage(
        legacy_datasets=sources, series_instance_uid="2.25.8", series_number=8, sop_instance_uid="2.25.81",
        instance_number=1,
    )  # fmt: skip
    converted.save_as(tmp_path / "e.dcm")
    derived = derive_all(tmp_path / "e.dcm", tmp_path / "derived")
    for path in derived:
        assert not errors(path)
    assert output("dcentvfy", *derived) == ""
    values = np.stack([pydicom.dcmread(path).pixel_array for path in derived])
    np.testing.assert_array_equal(values[1], ramp_hu(3)[1] + 1024)
