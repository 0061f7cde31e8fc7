from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from skimage.measure import points_in_poly

from ctmar.dicom.contours import filled
from ctmar.dicom.given_masks import given_metal
from ctmar.dicom.series import Series, choose_series, find_series
from ctmar.errors import UnsupportedInputError, UsageError
from tests.ctmar.dicom.build import FRAME_UID, ramp_hu, write_ct_series

PIXEL_MM = (0.8, 0.5)
SIZE = 64


@pytest.fixture
def series(tmp_path: Path) -> Series:
    write_ct_series(tmp_path / "ct", ramp_hu(4, SIZE), pixel_mm=PIXEL_MM, z_mm=[0, 2, 4, 6])
    return choose_series(find_series(tmp_path / "ct"))[0]


def ring(x: float, y: float, radius: float, n: int = 400) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def at(ring_xy: np.ndarray, z: float) -> np.ndarray:
    return np.concatenate([ring_xy, np.full((len(ring_xy), 1), z)], axis=1)


def structure_set(path: Path, rois: dict[str, list[np.ndarray]], *, frame: str = FRAME_UID, kind="CLOSED_PLANAR"):
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = RTStructureSetStorage, "2.25.9", "RTSTRUCT"
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        ds.StructureSetROISequence.append(roi)
        drawn = Dataset()
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = []
        for points in contours:
            one = Dataset()
            one.ContourGeometricType, one.NumberOfContourPoints = kind, len(points)
            one.ContourData = [f"{v:.6g}" for v in points.ravel()]
            drawn.ContourSequence.append(one)
        ds.ROIContourSequence.append(drawn)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, "2.25.9"
    ds.save_as(path, enforce_file_format=True)
    return path


# --- filling --------------------------------------------------------------------------------------


def test_the_centre_of_a_pixel_decides():
    square = np.array([[1.4, 2.4], [1.4, 5.6], [4.6, 5.6], [4.6, 2.4]])
    expected = np.zeros((8, 9), bool)
    expected[2:5, 3:6] = True
    np.testing.assert_array_equal(filled([square], (8, 9)), expected)
    np.testing.assert_array_equal(filled([square[::-1]], (8, 9)), expected)


def test_agrees_with_another_fill():
    rng = np.random.default_rng(1)
    points = rng.uniform(-5, 45, (30, 2))
    rows, cols = np.indices((40, 38))
    inside = np.zeros((40, 38), int)
    for triangle in points.reshape(-1, 3, 2):
        inside += points_in_poly(np.stack([rows.ravel(), cols.ravel()], 1), triangle).reshape(40, 38)
    np.testing.assert_array_equal(filled(list(points.reshape(-1, 3, 2)), (40, 38)), inside % 2 == 1)


def test_beyond_the_image_and_far_away():
    everything = np.array([[-1e9, -1e9], [-1e9, 1e9], [1e9, 1e9], [1e9, -1e9]])
    assert filled([everything], (5, 6)).all()
    assert not filled([everything * 0.001 + 1e12], (5, 6)).any()


def test_a_contour_between_all_centres_marks_the_nearest_pixel():
    mask = filled([np.array([[3.2, 4.3], [3.2, 4.4], [3.3, 4.4]])], (8, 9))
    assert np.argwhere(mask).tolist() == [[3, 4]]


# --- structure sets -------------------------------------------------------------------------------


def test_disc_has_its_area_and_centre(tmp_path, series):
    """In mm, with pixels that are not square: half a pixel of error would show."""
    x, y, radius = 1.37, -2.11, 7.3
    path = structure_set(tmp_path / "rs.dcm", {"Implant": [at(ring(x, y, radius), 2.0)]})
    metal = given_metal(path, series)
    assert metal.source == "RTSTRUCT"
    assert metal.slices == [1]
    rows, cols = np.nonzero(metal.masks[1])
    area = rows.size * PIXEL_MM[0] * PIXEL_MM[1]
    assert area == pytest.approx(np.pi * radius**2, rel=0.02)
    one = series.slices[1]
    assert one.position_mm[0] + cols.mean() * PIXEL_MM[1] == pytest.approx(x, abs=0.05)
    assert one.position_mm[1] + rows.mean() * PIXEL_MM[0] == pytest.approx(y, abs=0.05)


def test_holes_and_keyholes_stay_open(tmp_path, series):
    outer, inner = ring(0, 0, 10), ring(0, 0, 5)
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    xor = given_metal(structure_set(tmp_path / "a.dcm", {"m": [at(outer, 2), at(inner, 2)]}), series).masks[1]
    key = given_metal(structure_set(tmp_path / "b.dcm", {"m": [at(keyhole, 2)]}), series).masks[1]
    assert not xor[SIZE // 2, SIZE // 2]
    assert xor.sum() * 0.4 == pytest.approx(np.pi * 75, rel=0.03)
    assert (xor ^ key).sum() <= 2


def test_between_slices_goes_to_the_nearest_and_adds_up(tmp_path, series):
    contours = [at(ring(0, 0, 5), 2.3), at(ring(0, 0, 5), 1.6), at(ring(0, 0, 3), 60)]
    metal = given_metal(structure_set(tmp_path / "rs.dcm", {"m": contours}), series)
    assert metal.slices == [1]
    assert metal.masks[1].sum() * 0.4 == pytest.approx(np.pi * 25, rel=0.05)  # no hole where both lie
    assert [w.split()[0] for w in metal.warnings] == ["2", "1"]
    with pytest.raises(UsageError, match="none of the contours"):
        given_metal(structure_set(tmp_path / "rs2.dcm", {"m": [at(ring(0, 0, 3), 60)]}), series)


def test_structures_are_chosen_by_name(tmp_path, series):
    drawn = {"Liver": (9, 0), "Hip Prosthesis L": (5, 2), "Fillings": (3, 4)}
    rois = {name: [at(ring(0, 0, radius), z)] for name, (radius, z) in drawn.items()}
    path = structure_set(tmp_path / "rs.dcm", rois)
    assert given_metal(path, series).slices == [1, 2]
    assert given_metal(f"{path}:liver", series).slices == [0]
    assert given_metal(f"{path}:3", series).slices == [2]
    with pytest.raises(UsageError, match="Fillings, Hip Prosthesis L, Liver"):
        given_metal(f"{path}:spleen", series)
    path = structure_set(tmp_path / "other.dcm", {"Liver": rois["Liver"], "Spleen": rois["Fillings"]})
    with pytest.raises(UsageError, match=r"choose a structure.*Liver, Spleen"):
        given_metal(path, series)


def test_what_does_not_fit_is_refused(tmp_path, series):
    with pytest.raises(UsageError, match="another frame of reference"):
        given_metal(structure_set(tmp_path / "a.dcm", {"m": [at(ring(0, 0, 5), 2)]}, frame="2.25.77"), series)
    upright = at(ring(0, 0, 9), 0)[:, [0, 2, 1]] + [0, 0, 2]
    with pytest.raises(UsageError, match="not in the planes"):
        given_metal(structure_set(tmp_path / "b.dcm", {"m": [upright]}), series)
    with pytest.raises(UsageError, match="no closed planar"):
        given_metal(structure_set(tmp_path / "c.dcm", {"m": [at(ring(0, 0, 5), 2)]}, kind="POINT"), series)
    with pytest.raises(UnsupportedInputError, match="no readable mask"):  # numbers that are no points
        given_metal(structure_set(tmp_path / "d.dcm", {"m": [at(ring(0, 0, 5), 2).ravel()[:-1]]}), series)


def test_a_tiny_ring_beside_a_large_one_marks_its_pixel() -> None:
    large = np.array([[9.5, 9.5], [9.5, 20.5], [20.5, 20.5], [20.5, 9.5]])
    tiny = np.array([[30.2, 5.3], [30.2, 5.4], [30.3, 5.4]])
    mask = filled([large, tiny], (40, 40))
    assert mask.sum() == 11 * 11 + 1
    assert mask[30, 5]
