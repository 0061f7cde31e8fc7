"""One frame of an enhanced CT object as a classic CT image: its functional groups become attributes of the image.

PS3.3 section A.38 (Enhanced CT), A.70 (Legacy Converted Enhanced CT), A.3 (CT Image).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import CTImageStorage

from ctmar.dicom.source import optional_number

_NOT_IN_A_CLASSIC_IMAGE = (
    # how frames lie in the object
    "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence", "DimensionOrganizationType", "DimensionIndexSequence", "FrameIncrementPointer",
    "RepresentativeFrameNumber", "ConcatenationUID", "ConcatenationFrameOffsetNumber", "InConcatenationNumber",
    "InConcatenationTotalNumber", "SOPInstanceUIDOfConcatenationSource", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "StackID", "InStackPositionNumber", "DimensionIndexValues", "TemporalPositionIndex",
    # what describes enhanced images alone
    "ContentQualification", "PresentationLUTShape", "PixelPresentation", "VolumetricProperties",
    "VolumeBasedCalculationTechnique", "FrameType", "FrameLaterality", "TubeAngle", "ConstantVolumeFlag",
    "FluoroscopyFlag", "FrameAcquisitionNumber", "FrameAcquisitionDateTime", "FrameReferenceDateTime",
    "FrameAcquisitionDuration", "FrameComments", "FrameLabel", "ExposureTimeInms", "XRayTubeCurrentInmA",
    "ExposureInmAs",
    # of the enhanced object's own bytes
    "PixelData", "DigitalSignaturesSequence", "MACParametersSequence",
)  # fmt: skip
_DROPPED = frozenset(Tag(tag_for_keyword(keyword) or 0) for keyword in _NOT_IN_A_CLASSIC_IMAGE)

_KEPT_AS_SEQUENCE = frozenset(Tag(keyword) for keyword in ("ReferencedImageSequence", "RealWorldValueMappingSequence"))
"""Functional groups that stand in a classic image as they are."""

_LEFT_OUT = frozenset([Tag("ConversionSourceAttributesSequence")])
"""Names the images that a legacy object was made of, in attributes that mean something else at the top."""

_IN_OTHER_UNITS = {
    "ExposureTimeInms": "ExposureTime",
    "XRayTubeCurrentInmA": "XRayTubeCurrent",
    "ExposureInmAs": "Exposure",
}
"""Floating-point attributes, and the whole numbers (ms, mA, mAs) that a classic image has for them."""

_BODY_PARTS = {
    "69536005": "HEAD", "T-D1100": "HEAD", "45048000": "NECK", "T-D1600": "NECK", "51185008": "CHEST",
    "T-D3000": "CHEST", "818981001": "ABDOMEN", "818983003": "ABDOMEN", "113345001": "ABDOMEN", "T-D4000": "ABDOMEN",
    "816092008": "PELVIS", "12921003": "PELVIS", "T-D6000": "PELVIS", "24136001": "HIP", "T-15710": "HIP",
    "16982005": "SHOULDER", "T-D2220": "SHOULDER", "72696002": "KNEE", "T-D9200": "KNEE",
}  # fmt: skip
"""Anatomic Region codes (SCT, SRT) and Body Part Examined (PS3.16 annex L), for the regions with common implants."""

_DATE_TIME = re.compile(r"(\d{8})(\d{2,6}(?:\.\d{1,6})?)?")


def classic_image(enhanced: FileDataset, frame: int) -> tuple[FileDataset, Dataset]:
    """One frame as a CT Image Storage data set, without its pixels; and what had no place in that.

    Attributes of the shared and of the frame's functional groups come to the top (the frame's win); those that only
    enhanced objects have are left out, or turned into what a classic image has instead.  The SOP instance UID stays
    that of the enhanced object; elements are shared with it and are not to be changed.

    Parameters
    ----------
    enhanced
        The whole object but for its pixels.
    frame
        From 0.

    Returns
    -------
    classic, detail
        The image, and those attributes of the functional groups that only enhanced objects have.

    Raises
    ------
    One of `ctmar.dicom.source.PARSE_ERRORS`
        Where the functional groups are malformed.
    """
    classic = FileDataset("", Dataset(), file_meta=copy.deepcopy(enhanced.file_meta))
    implicit, little_endian = enhanced.original_encoding
    classic.set_original_encoding(implicit, little_endian, enhanced.original_character_set)
    _take(classic, enhanced)
    groups = [*enhanced.get("SharedFunctionalGroupsSequence", []), enhanced.PerFrameFunctionalGroupsSequence[frame]]
    detail = Dataset()
    for tag, items in _functional_groups(groups):
        if tag in _KEPT_AS_SEQUENCE:
            classic[tag] = items[tag]
        else:
            for item in items[tag].value[:1]:
                _take(classic, item)
                detail.update({t: item[t] for t in item.keys() if t in _DROPPED})  # noqa: SIM118
    _set(classic, "SOPClassUID", CTImageStorage)
    _say_classically(classic, detail)
    offset = optional_number(enhanced, "ConcatenationFrameOffsetNumber") or 0
    _set(classic, "InstanceNumber", int(offset) + frame + 1)
    return classic, detail


def _functional_groups(groups: list[Dataset]) -> Iterator[tuple[BaseTag, Dataset]]:
    for group in groups:
        for tag in group.keys():  # noqa: SIM118  (iterating a Dataset would parse its elements)
            if not tag.is_private and tag not in _LEFT_OUT and group[tag].VR == "SQ":
                yield tag, group


def _take(classic: Dataset, source: Dataset) -> None:
    for tag in source.keys():  # noqa: SIM118
        if tag not in _DROPPED:
            classic[tag] = source.get_item(tag)


def _set(classic: Dataset, keyword: str, value: object) -> None:
    """Put a new element in: an old one may be that of the enhanced object, or of another frame."""
    tag = Tag(keyword)
    classic.add_new(tag, dictionary_VR(tag), value)


def _say_classically(classic: Dataset, detail: Dataset) -> None:
    """Set what a classic image says in another way than the functional groups do."""
    frame_type = [str(value).strip() for value in detail.get("FrameType") or classic.get("ImageType") or []]
    if len(frame_type) >= 2:
        pixels = "ORIGINAL" if frame_type[0] == "ORIGINAL" else "DERIVED"
        kind = "LOCALIZER" if "LOCALIZER" in frame_type else "AXIAL"
        further = [value for value in frame_type[3:] if value and value != "NONE"]
        _set(classic, "ImageType", [pixels, frame_type[1], kind, *further])
    for precise, whole in _IN_OTHER_UNITS.items():
        number = optional_number(detail, precise)
        if number is not None and whole not in classic:
            _set(classic, whole, round(number))
    if detail.get("FrameAcquisitionDateTime"):
        _set(classic, "AcquisitionDateTime", str(detail.FrameAcquisitionDateTime))
    moment = _DATE_TIME.match(str(classic.get("AcquisitionDateTime") or ""))
    if moment:
        _set(classic, "AcquisitionDate", moment[1])
        if moment[2]:
            _set(classic, "AcquisitionTime", moment[2])
    if detail.get("FrameAcquisitionNumber") is not None:
        _set(classic, "AcquisitionNumber", detail.FrameAcquisitionNumber)
    if detail.get("FrameComments"):
        _set(classic, "ImageComments", detail.FrameComments)
    if not classic.get("BodyPartExamined"):
        codes = [str(code.get("CodeValue")) for code in classic.get("AnatomicRegionSequence") or []]
        for part in [_BODY_PARTS[code] for code in codes if code in _BODY_PARTS][:1]:
            _set(classic, "BodyPartExamined", part)
