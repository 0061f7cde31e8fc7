"""The metal mask of a series as a DICOM Segmentation (PS3.3 section A.51), written with highdicom."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from ctmar.detection import Detection
from ctmar.dicom.derived import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    MODEL_NAME,
    SERIES_NUMBER_OFFSET,
    new_uid,
    series_number,
)
from ctmar.dicom.source import PARSE_ERRORS, optional_text, quiet_pydicom
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


def metal_segmentation(
    source_datasets: Sequence[Dataset],
    masks: Sequence[NDArray[np.bool_]] | NDArray[np.bool_],
    *,
    version: str,
    sop_instance_uid: str | None = None,
    detection: Detection | None = None,
    frame_numbers: Sequence[int | None] | None = None,
) -> Dataset:
    """A binary segmentation with one segment, the metal; slices without metal are left out.

    Parameters
    ----------
    source_datasets
        The images that the mask lies on, all of one series; pixel data are not needed.
    masks : bool (rows, cols) each
        In the order of `source_datasets`; a list, `ctmar.packed.PackedMasks`, or a stack.
    version
        Version of ctmar.
    sop_instance_uid
        Of the segmentation, where something else already refers to it; a new one if None.
    detection
        Where the masks come from: a user's are manual, others automatic with their parameters.
    frame_numbers
        Where `source_datasets` stand for frames of multi-frame images: the number of each (from 1), else None.

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

    if len(source_datasets) != len(masks) or (frame_numbers is not None and len(frame_numbers) != len(masks)):
        raise ValueError(f"{len(source_datasets)} images do not fit {len(masks)} masks")
    with_metal = [(index, mask) for index, mask in enumerate(masks) if mask.any()]
    if not with_metal:
        raise ValueError("the masks hold no metal")
    kept = [index for index, _ in with_metal]
    if len({mask.shape for _, mask in with_metal}) > 1:
        raise UnsupportedInputError(
            "A DICOM segmentation has frames of one size, the slices differ; leave the segmentation out."
        )
    stack = np.stack([mask for _, mask in with_metal]).view(np.uint8)
    del with_metal
    try:
        with quiet_pydicom():
            sources, originals = _stand_ins(
                [completed(source_datasets[k]) for k in kept],
                [frame_numbers[k] if frame_numbers else None for k in kept],
            )
            segmentation = highdicom.seg.Segmentation(
                source_images=sources,
                pixel_array=stack,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_segment(version, detection)],
                series_instance_uid=new_uid(),
                series_number=series_number(sources[0], SEGMENTATION_NUMBER_OFFSET),
                sop_instance_uid=sop_instance_uid or new_uid(),
                instance_number=1,
                manufacturer=MANUFACTURER,
                manufacturer_model_name=MODEL_NAME,
                software_versions=version,
                # A Type 1 attribute (PS3.3 section C.7.5.2) for what is no device.
                device_serial_number=version,
                content_description="Metal, as used for metal artifact reduction",
                transfer_syntax_uid=ExplicitVRLittleEndian,
            )
            _refer_to_originals(segmentation, originals)
    except PARSE_ERRORS as error:
        raise UnsupportedInputError(
            f"highdicom cannot write a segmentation of this series ({type(error).__name__}); "
            "leave the segmentation out."
        ) from None  # its text would quote values
    segmentation.SeriesDescription = "Metal segmentation (ctmar)"
    segmentation.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    segmentation.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return segmentation


def _segment(version: str, detection: Detection | None) -> Any:
    """The segment's description: manual where a user gave the mask, else automatic with its parameters."""
    import highdicom
    from pydicom.sr.coding import Code

    kinds = highdicom.seg.SegmentAlgorithmTypeValues
    manual = detection is not None and detection.settings is None
    parameters: dict[str, str] = {}
    if detection is not None and detection.settings is not None:
        used = {**asdict(detection.settings), "threshold_hu": detection.threshold_hu, "grow_hu": detection.grow_hu}
        parameters = {
            name: str(value) if value is True or value is False else f"{value:g}" for name, value in used.items()
        }
    identification = highdicom.AlgorithmIdentificationSequence(
        name="ctmar metal segmentation",
        # Context group 7162 has no threshold; specks are dropped and the rest is dilated.
        family=Code("123104", "DCM", "Morphological Operations"),
        version=version,
        parameters=parameters or None,
    )
    return highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Metal",
        segmented_property_category=Code("260787004", "SCT", "Physical object"),
        segmented_property_type=Code("19227008", "SCT", "Foreign body"),
        algorithm_type=kinds.MANUAL if manual else kinds.AUTOMATIC,
        algorithm_identification=None if manual else identification,
    )


@dataclass(frozen=True)
class _Original:
    """The image that a source stands for, and which of its frames."""

    sop_class: str
    sop_uid: str
    frame: int | None


def _stand_ins(
    sources: list[Dataset], frame_numbers: Sequence[int | None]
) -> tuple[list[Dataset], dict[str, _Original]]:
    """Frames of multi-frame images as single images with UIDs of their own, and what those stand for.

    highdicom takes single-frame images or a whole multi-frame one, but no choice of frames.
    """
    several = len({str(source.SOPInstanceUID) for source in sources}) < len(sources)
    originals: dict[str, _Original] = {}
    for source, frame in zip(sources, frame_numbers, strict=True):
        if not several and frame is None and source.SOPClassUID == CTImageStorage:
            continue
        uid = new_uid()
        originals[uid] = _Original(str(source.SOPClassUID), str(source.SOPInstanceUID), frame)
        source.SOPInstanceUID, source.SOPClassUID = uid, CTImageStorage
        for keyword in ("NumberOfFrames", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            source.pop(keyword, None)
    return sources, originals


def _refer_to_originals(segmentation: Dataset, originals: dict[str, _Original]) -> None:
    """Put the images that stand-ins stand for in the references of a segmentation."""
    if not originals:
        return
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", []):
            for image in derivation.SourceImageSequence:
                _refer(image, originals, with_frame=True)
    for series in segmentation.get("ReferencedSeriesSequence", []):
        unique: dict[str, Dataset] = {}
        for image in series.ReferencedInstanceSequence:
            _refer(image, originals, with_frame=False)
            unique.setdefault(str(image.ReferencedSOPInstanceUID), image)
        series.ReferencedInstanceSequence = list(unique.values())
    unique = {}
    for image in segmentation.get("SourceImageSequence", []):
        _refer(image, originals, with_frame=False)
        unique.setdefault(str(image.ReferencedSOPInstanceUID), image)
    if unique:
        segmentation.SourceImageSequence = list(unique.values())


def _refer(image: Dataset, originals: dict[str, _Original], *, with_frame: bool) -> None:
    original = originals.get(str(image.ReferencedSOPInstanceUID))
    if original is None:
        return
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = original.sop_class, original.sop_uid
    if with_frame and original.frame is not None:
        image.ReferencedFrameNumber = original.frame


def header_of(source: Dataset) -> Dataset:
    """The data set without its pixels and without private attributes, whose elements are the source's, unparsed."""
    header = Dataset()
    for tag in source.keys():  # noqa: SIM118  (iterating a Dataset would parse its elements)
        if tag != Tag("PixelData") and not tag.is_private:
            header[tag] = source.get_item(tag)
    header.file_meta = source.file_meta
    return header


def completed(source: Dataset) -> Dataset:
    """The source without its pixels, with the Type 2 attributes that highdicom insists on, and without what it refuses.

    Refused are values of sex, dates and times that the standard does not know, and a Specific Character Set whose first
    value is empty, which says the same as ISO 2022 IR 6 (PS3.3 section C.12.1.1.2).
    """
    with quiet_pydicom():
        complete = copy.deepcopy(header_of(source))
        for keyword in _TYPE_2:
            if keyword not in complete or not _is_allowed(keyword, optional_text(complete, keyword)):
                setattr(complete, keyword, "")
        sets = complete.get("SpecificCharacterSet")
        if isinstance(sets, MultiValue) and not sets[0]:
            complete.SpecificCharacterSet = ["ISO 2022 IR 6", *sets[1:]]
    return complete


def _is_allowed(keyword: str, value: str) -> bool:
    pattern = {"PatientSex": r"[MFO]?", "StudyTime": r"(\d{2}){0,3}(\.\d{1,6})?"}.get(keyword)
    if keyword.endswith("Date"):
        pattern = r"((19|20|18)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01]))?"
    return pattern is None or re.fullmatch(pattern, value.strip()) is not None
