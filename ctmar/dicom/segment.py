"""The metal mask of a series as a DICOM Segmentation (PS3.3 section A.51), written with highdicom."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from ctmar.dicom.derived import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    MODEL_NAME,
    SERIES_NUMBER_OFFSET,
    new_uid,
)
from ctmar.dicom.source import PARSE_ERRORS, optional_number, quiet_pydicom
from ctmar.errors import UnsupportedInputError

SEGMENTATION_NUMBER_OFFSET = SERIES_NUMBER_OFFSET + 500
"""Keeps the segmentation apart from the corrected series of the same source."""

_TYPE_2 = (
    "AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "ReferringPhysicianName",
    "StudyDate", "StudyID", "StudyTime",
)  # fmt: skip
"""Patient and study attributes that may be empty but not absent, and that de-identified data often lack."""


def require_highdicom() -> None:
    """Raise `UnsupportedInputError` where highdicom, an optional dependency, is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UnsupportedInputError(
            "A DICOM segmentation needs highdicom: pip install ctmar[seg], or leave the segmentation out."
        ) from error


def metal_segmentation(source_datasets: Sequence[Dataset], masks: NDArray[np.bool_], *, version: str) -> Dataset:
    """A binary segmentation with one segment, the metal; slices without metal are left out.

    Parameters
    ----------
    source_datasets
        The images that the mask lies on, all of one series; pixel data are not needed.
    masks : ndarray, bool, (slices, rows, cols)
        In the order of `source_datasets`.
    version
        Version of ctmar.

    Returns
    -------
    Dataset
        Explicit VR Little Endian, for `ctmar.dicom.derived.write_dataset`.

    Raises
    ------
    ValueError
        If shapes do not fit or there is no metal at all.
    UnsupportedInputError
        If highdicom is not installed or refuses the series.
    """
    require_highdicom()
    import highdicom
    from pydicom.sr.coding import Code

    if len(source_datasets) != len(masks) or masks.ndim != 3:
        raise ValueError(f"{len(source_datasets)} images do not fit masks of shape {masks.shape}")
    kept = np.flatnonzero(masks.any(axis=(1, 2)))
    if not kept.size:
        raise ValueError("the masks hold no metal")
    metal = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Metal",
        segmented_property_category=Code("260787004", "SCT", "Physical object"),
        segmented_property_type=Code("19227008", "SCT", "Foreign body"),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="ctmar metal segmentation",
            # Context group 7162 has no threshold; specks are dropped and the rest is dilated.
            family=Code("123104", "DCM", "Morphological Operations"),
            version=version,
        ),
    )
    try:
        with quiet_pydicom():
            sources = [_complete(source_datasets[index]) for index in kept.tolist()]
            number = int(optional_number(sources[0], "SeriesNumber") or 0) + SEGMENTATION_NUMBER_OFFSET
            segmentation = highdicom.seg.Segmentation(
                source_images=sources,
                pixel_array=masks[kept].astype(np.uint8),
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[metal],
                series_instance_uid=new_uid(),
                series_number=number,
                sop_instance_uid=new_uid(),
                instance_number=1,
                manufacturer=MANUFACTURER,
                manufacturer_model_name=MODEL_NAME,
                software_versions=version,
                # A Type 1 attribute (PS3.3 section C.7.5.2) for what is no device.
                device_serial_number=version,
                content_description="Metal, as used for metal artifact reduction",
                transfer_syntax_uid=ExplicitVRLittleEndian,
            )
    except PARSE_ERRORS as error:
        raise UnsupportedInputError(
            f"highdicom cannot write a segmentation of this series ({type(error).__name__}); "
            "leave the segmentation out."
        ) from None  # its text would quote values
    segmentation.SeriesDescription = "Metal segmentation (ctmar)"
    segmentation.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    segmentation.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return segmentation


def _complete(source: Dataset) -> Dataset:
    """The source without its pixels, and with the Type 2 attributes that highdicom insists on."""
    with quiet_pydicom():
        completed = Dataset()
        for tag in source.keys():  # noqa: SIM118  (iterating a Dataset would parse its elements)
            if tag != Tag("PixelData") and not tag.is_private:
                completed[tag] = copy.deepcopy(source.get_item(tag))
    completed.file_meta = source.file_meta
    for keyword in _TYPE_2:
        if keyword not in completed:
            setattr(completed, keyword, "")
    return completed
