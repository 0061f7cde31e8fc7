"""CT series made from arrays, for the demo and the tests: conformant enough that dciodvfy finds no error in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

STUDY_UID = "2.25.1001"
SERIES_UID = "2.25.2001"
FRAME_UID = "2.25.3001"


def ct_dataset(
    image_hu: ArrayLike,
    *,
    z_mm: float = 0.0,
    number: int = 1,
    series_uid: str = SERIES_UID,
    pixel_mm: float | tuple[float, float] = 1.0,
    thickness_mm: float = 2.0,
    slope: float = 1.0,
    intercept: float = -1024.0,
    signed: bool = False,
    bits_stored: int = 12,
    patient_id: str = "PHANTOM1",
) -> Dataset:
    """One axial CT image in 16-bit words; values outside of the stored range are clipped."""
    hu = np.asarray(image_hu, float)
    rows_mm, cols_mm = (pixel_mm, pixel_mm) if isinstance(pixel_mm, int | float) else pixel_mm
    low, high = (-(2 ** (bits_stored - 1)), 2 ** (bits_stored - 1) - 1) if signed else (0, 2**bits_stored - 1)
    stored = np.clip(np.rint((hu - intercept) / slope), low, high).astype("<i2" if signed else "<u2")
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{series_uid}.{number}"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20240102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101112"
    ds.AccessionNumber = ""
    ds.Modality = "CT"
    ds.Manufacturer = "ctmar developers"
    ds.ManufacturerModelName = "Virtual scanner"
    ds.StationName = "CT1"
    ds.DeviceSerialNumber = "4711"
    ds.SoftwareVersions = "7.0"
    ds.ReferringPhysicianName = ""
    ds.SeriesDescription = "Pelvis 2.0"
    ds.PatientName = "Test^Phantom"
    ds.PatientID = patient_id
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.BodyPartExamined = "PELVIS"
    ds.SliceThickness = thickness_mm
    ds.KVP = 120
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = STUDY_UID
    ds.SeriesInstanceUID = series_uid
    ds.StudyID = "1"
    ds.SeriesNumber = 3
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = number
    ds.ImagePositionPatient = [-cols_mm * hu.shape[1] / 2, -rows_mm * hu.shape[0] / 2, z_mm]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID = FRAME_UID
    ds.PositionReferenceIndicator = ""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = hu.shape
    ds.PixelSpacing = [rows_mm, cols_mm]
    ds.BitsAllocated = 16
    ds.BitsStored = bits_stored
    ds.HighBit = bits_stored - 1
    ds.PixelRepresentation = int(signed)
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = intercept, slope, "HU"
    ds.add_new("PixelData", "OW", stored.tobytes())
    return ds


def save(ds: Dataset, path: Path, *, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write a data set in a transfer syntax that pydicom can write; its pixels must be uncompressed."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    ds.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax == RLELossless:
        ds.compress(RLELossless, generate_instance_uid=False)
    dcmwrite(
        path,
        ds,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax.is_little_endian,
        enforce_file_format=True,
    )
    return path


def write_ct_series(
    folder: Path,
    volume_hu: ArrayLike,
    *,
    pixel_mm: float | tuple[float, float] = 1.0,
    spacing_mm: float = 2.0,
    z_mm: Sequence[float] | None = None,
    series_uid: str = SERIES_UID,
    slope: float = 1.0,
    intercept: float = -1024.0,
    signed: bool = False,
    bits_stored: int = 12,
    patient_id: str = "PHANTOM1",
    syntax: UID = ExplicitVRLittleEndian,
) -> list[Path]:
    """Write (slice, row, column) HU as files ``0001.dcm``, ...; slices lie at `z_mm`, or evenly spaced."""
    volume = np.asarray(volume_hu)
    positions = [spacing_mm * k for k in range(len(volume))] if z_mm is None else z_mm
    return [
        save(
            ct_dataset(
                image,
                z_mm=z,
                number=k,
                series_uid=series_uid,
                pixel_mm=pixel_mm,
                thickness_mm=spacing_mm,
                slope=slope,
                intercept=intercept,
                signed=signed,
                bits_stored=bits_stored,
                patient_id=patient_id,
            ),
            folder / f"{k:04d}.dcm",
            syntax=syntax,
        )
        for k, (image, z) in enumerate(zip(volume, positions, strict=True), start=1)
    ]
