"""A simulated case as DICOM, to try other software on: the image with metal, the one without, and the metal.

Three CT series of one image each in one study, in the same frame of reference. They are marked as derived and as
simulated, name no patient but a pseudonym, and carry UIDs that follow from the case alone.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctmar import __version__
from ctmar.database import Case, read_case
from ctmar.dicom.derived import MANUFACTURER, MODEL_NAME
from ctmar.dicom.synthetic import ct_dataset, save
from ctmar.errors import UnsupportedInputError
from ctmar.files import building
from ctmar.simulation_settings import SimulationSettings

SERIES = ("metal", "reference", "mask")
"""With metal and uncorrected, without metal, and where the metal is (1 or 0)."""

_DESCRIPTIONS = {
    "metal": "Simulated, with metal, uncorrected",
    "reference": "Simulated, without metal",
    "mask": "Simulated, metal mask (1 is metal)",
}
_NAMESPACE = uuid.UUID("7f0a0b0c-6a51-4f5e-9d0e-2b6d5f1f7a11")
_THICKNESS_MM = 1.0
"""The virtual scanner has one plane; DICOM wants a thickness."""


def write_case_dicom(case_file: Path, folder: Path, settings: SimulationSettings) -> None:
    """Write `folder/{metal,reference,mask}/0001.dcm` from a case file that `ctmar simulate` has made.

    Images are stored as a 12-bit scanner does: whole HU from -1024 to 3071. The folder appears when it is complete.

    Raises
    ------
    UnsupportedInputError
        Where the case lacks an image or the mask.
    """
    case = read_case(case_file)
    stored = case.dicom_images.get("uncorrected")
    reference = case.images.get("reference")
    if stored is None or reference is None or case.mask_metal is None:
        raise UnsupportedInputError(f"{case_file}: lacks an image; simulate the database again.")
    pixels = {"metal": stored, "reference": reference, "mask": case.mask_metal}
    with building(folder, kind=()) as partial:
        for number, kind in enumerate(SERIES, start=1):
            save(_dataset(kind, number, pixels[kind], case, case_file.stem, settings), partial / kind / "0001.dcm")


def case_uid(case: Case, name: str, settings: SimulationSettings, what: str) -> str:
    """A UID below 2.25 (PS3.5 section B.2) that is the same whenever the same case is made, and never otherwise.

    It follows from the case's sinogram, from its name and source, and from all settings but the number of cases, on
    which no case depends.
    """
    made_with = {key: value for key, value in asdict(settings).items() if key != "cases"}
    scan = hashlib.sha256(np.ascontiguousarray(case.sinogram_metal).tobytes()).hexdigest()
    identity = [name, case.patient, case.source, case.grid.to_dict(), made_with, scan, what]
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(identity, sort_keys=True)).int}"


def _dataset(
    kind: str, number: int, pixels: NDArray[np.generic], case: Case, name: str, settings: SimulationSettings
) -> Dataset:
    mask = kind == "mask"
    ds = ct_dataset(
        pixels,
        pixel_mm=case.grid.pixel_mm,
        thickness_mm=_THICKNESS_MM,
        intercept=0.0 if mask else -1024.0,
    )
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    ds.StudyInstanceUID = case_uid(case, name, settings, "study")
    ds.FrameOfReferenceUID = case_uid(case, name, settings, "frame")
    ds.SeriesInstanceUID = case_uid(case, name, settings, f"series {kind}")
    ds.SOPInstanceUID = case_uid(case, name, settings, f"image {kind}")
    ds.PatientID = case.patient
    ds.PatientName = f"Simulated^{case.patient}"
    ds.PatientSex = ""
    ds.Laterality = ""
    ds.StudyID = str(int(name.rpartition("-")[2]))
    ds.SeriesNumber = number
    ds.StudyDescription = f"ctmar simulation, {name}"
    ds.SeriesDescription = _DESCRIPTIONS[kind]
    metal = "" if kind == "reference" else f" Metal: {case.implant}, {case.material}."
    ds.DerivationDescription = (
        f"Simulated by ctmar {__version__}, seed {case.seed}, {name}.{metal} Not a measurement; not for diagnostic use."
    )
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = MODEL_NAME
    ds.SoftwareVersions = __version__
    ds.KVP = settings.scan.kvp
    ds.BurnedInAnnotation = "NO"
    for keyword in ("StationName", "DeviceSerialNumber", "BodyPartExamined"):
        delattr(ds, keyword)
    # there was no examination, hence no date
    ds.StudyDate = ds.StudyTime = ds.ContentDate = ds.ContentTime = ""
    for event in ("Series", "Acquisition"):
        delattr(ds, f"{event}Date")
        delattr(ds, f"{event}Time")
    if mask:
        ds.RescaleType = "US"  # unspecified
        ds.WindowCenter, ds.WindowWidth = 0.5, 1
    return ds
