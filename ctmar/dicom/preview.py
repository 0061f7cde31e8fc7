"""A quick look at a corrected slice as DICOM Secondary Capture: before, after and difference side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from ctmar.dicom.derived import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    SERIES_NUMBER_OFFSET,
    new_uid,
    reference,
    series_number,
)
from ctmar.dicom.pixels import Slice
from ctmar.dicom.segment import completed
from ctmar.dicom.source import PARSE_ERRORS, optional_number, quiet_pydicom
from ctmar.errors import UnsupportedInputError
from ctmar.report.pictures import SOFT_TISSUE, SlicePreview, sheet

PREVIEW_NUMBER_OFFSET = SERIES_NUMBER_OFFSET + 300


def preview_image(source: Slice, corrected_hu: NDArray[np.float32], derived: Dataset, *, series_uid: str) -> Dataset:
    """An 8-bit picture with a legend that it is not for diagnostic use (PS3.3 section A.8.1).

    Parameters
    ----------
    source
        The slice as it was.
    corrected_hu : float32 (rows, cols)
    derived
        The derived image of it, see `ctmar.dicom.derived.derive`.
    series_uid
        Of the series of previews.

    Raises
    ------
    UnsupportedInputError
        If highdicom refuses the series.
    """
    import highdicom

    number = optional_number(derived, "InstanceNumber")
    where = "" if number is None else f"Image {number:.0f}. "
    label = (
        f"{where}{SOFT_TISSUE.label} {SOFT_TISSUE.level_hu:.0f}/{SOFT_TISSUE.width_hu:.0f} HU. Not for diagnostic use."
    )
    picture = sheet([SlicePreview(label, source.image_hu, corrected_hu)], SOFT_TISSUE)
    try:
        with quiet_pydicom():
            image = highdicom.sc.SCImage.from_ref_dataset(
                ref_dataset=completed(derived),
                pixel_array=np.asarray(picture, np.uint8),
                photometric_interpretation="MONOCHROME2",
                bits_allocated=8,
                coordinate_system="PATIENT",
                patient_orientation=_towards(source.file.orientation),
                series_instance_uid=series_uid,
                series_number=series_number(source.dataset, PREVIEW_NUMBER_OFFSET),
                sop_instance_uid=new_uid(),
                instance_number=int(number or 1),
                manufacturer=MANUFACTURER,
                transfer_syntax_uid=ExplicitVRLittleEndian,
            )
            image.copy_patient_and_study_information(derived)
            for keyword in ("BodyPartExamined", "Laterality"):
                if keyword in derived:
                    image[keyword] = derived[keyword]
    except PARSE_ERRORS as error:
        raise UnsupportedInputError(
            f"highdicom cannot write a preview of this series ({type(error).__name__}); leave --preview out."
        ) from None  # its text would quote values
    image.SeriesDescription = "Preview: before, after, difference (ctmar)"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.DerivationDescription = derived.DerivationDescription
    image.BurnedInAnnotation = "NO"  # of patients; the legend is the program's own
    image.SourceImageSequence = [reference(derived.SOPClassUID, derived.SOPInstanceUID, "121322")]
    image.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    image.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return image


def _towards(orientation: Sequence[float]) -> tuple[str, str]:
    """Where rows and columns lead to in the patient, roughly (PS3.3 section C.7.6.1.1.1)."""

    def letter(direction: Sequence[float]) -> str:
        axis = int(np.argmax(np.abs(direction)))
        return ("LR", "PA", "HF")[axis][int(direction[axis] < 0)]

    return letter(orientation[:3]), letter(orientation[3:])
