"""Write a corrected slice as a derived CT image: every attribute as found unless there is a reason not to.

PS3.3 section C.7.6.1.1.3 (derivation), C.12.1 (coding schemes), C.7.5.2 (contributing equipment).
"""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import correct_ambiguous_vr, dcmwrite
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    generate_uid,
)

from ctmar.dicom.copying import copy_public
from ctmar.dicom.pixels import Slice, to_stored
from ctmar.dicom.source import PARSE_ERRORS, optional_number, quiet_pydicom
from ctmar.errors import UnsupportedInputError

SERIES_NUMBER_OFFSET = 9000
IMPLEMENTATION_CLASS_UID = UID("2.25.112055324157437565897465382873835465105")
"""Of our own, drawn once at random (PS3.5 section B.2)."""

IMPLEMENTATION_VERSION_NAME = "CTMAR"
MANUFACTURER = "ctmar developers"
MODEL_NAME = "ctmar"

_MAX_LO = 64
_MAX_ST = 1024
_MAX_IS = 2**31 - 1

_EQUIPMENT = (
    "Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "DeviceSerialNumber",
    "SoftwareVersions", "DateOfLastCalibration", "TimeOfLastCalibration",
)  # fmt: skip
"""What describes the scanner and moves into the Contributing Equipment Sequence."""

_REMOVED = (
    # the scanner's own, in General Equipment
    "StationName", "DeviceSerialNumber", "DeviceUID", "UDISequence", "GantryID", "DateOfLastCalibration",
    "TimeOfLastCalibration", "DateOfManufacture", "DateOfInstallation", "InstanceCreatorUID",
    # pixel values that hold no longer, and planes that one sample per pixel has not
    "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries", "PlanarConfiguration", "IconImageSequence",
    # signatures of the source
    "DigitalSignaturesSequence", "MACParametersSequence", "DataSetTrailingPadding",
    # this series is not what the technologist's procedure step lists
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedProcedureStepEndDate",
    "PerformedProcedureStepEndTime", "PerformedProcedureStepStatus", "PerformedProcedureStepID",
    "PerformedProcedureStepDescription", "PerformedProcedureTypeDescription", "PerformedProtocolCodeSequence",
    "PerformedStationAETitle", "PerformedStationName", "PerformedLocation", "PerformedSeriesSequence",
    "CommentsOnThePerformedProcedureStep", "ReferencedPerformedProcedureStepSequence",
)  # fmt: skip

_REPLACED = (
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime",
    "ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime", "ImageType",
    "DerivationDescription", "SourceImageSequence", "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
    "SamplesPerPixel", "BitsAllocated", "HighBit", "PixelRepresentation",
)  # fmt: skip
"""What is set anew; the source's own are dropped first, since they may have come with a VR that is wrong for them."""

_LOSSY = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    UID("1.2.840.10008.1.2.4.53"): "ISO_10918_1",  # retired spectral selection and full progression
    UID("1.2.840.10008.1.2.4.55"): "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
}
"""Transfer syntaxes that always lose, and their Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1)."""


_PURPOSES = {
    "121321": "Mask image for image processing operation",
    "121322": "Source image for image processing operation",
}

NO_METAL = "No metal found in this slice"


@dataclass(frozen=True, kw_only=True)
class DerivedSeries:
    """What all slices of one corrected series share.

    Attributes
    ----------
    uid
        The new series instance UID; `new_uid` makes one.
    description
        Series description; cut at 64 characters.
    method
        Name of the correction.
    version
        Version of ctmar.
    created
        Date and time of the new series, with its time zone.
    model_name, model_hash
        The network and its weights, where the method has one.
    details
        How it was used, such as "strength 0.5", for the Derivation Description.
    """

    uid: str
    description: str
    method: str
    version: str
    created: datetime
    model_name: str | None = None
    model_hash: str | None = None
    details: str = ""

    def __post_init__(self) -> None:
        """Refuse times without a zone, which could not be brought to that of the source."""
        if self.created.tzinfo is None:
            raise ValueError("created must have a time zone")


def series_number(source: Dataset, offset: int) -> int:
    """The source's series number plus an offset, within what DICOM's integer strings hold."""
    return min(int(optional_number(source, "SeriesNumber") or 0) + offset, _MAX_IS)


def new_uid() -> str:
    """A unique identifier that needs no registered root (2.25., PS3.5 section B.2)."""
    return str(generate_uid(prefix=None))


def derive(
    source: Slice,
    corrected_hu: NDArray[np.floating] | None,
    *,
    series: DerivedSeries,
    why_carried: str = NO_METAL,
) -> Dataset:
    """A derived CT image with corrected pixels, or with the source's own where there was nothing to correct.

    Parameters
    ----------
    source
        The slice that was corrected; left as it is. Attributes that are malformed come through as they are,
        where they can.
    corrected_hu : ndarray, float, (rows, cols), or None
        Hounsfield units. Pixels equal to ``source.image_hu``, and padding, keep their stored value; the
        others are rounded and clipped to the source's bits. None carries all pixels through.
    series
        What the new series is called and how it came to be.

    Returns
    -------
    Dataset
        Uncompressed, Explicit VR Little Endian, with file meta information; for `write_dataset`.

    Raises
    ------
    ValueError
        If `corrected_hu` has another shape or holds values that are not finite.
    UnsupportedInputError
        If the header of the source is damaged.
    """
    with quiet_pydicom():
        stored = source.stored if corrected_hu is None else to_stored(corrected_hu, source)
        try:
            derived = copy_public(source.dataset)
            for keyword in (*_REMOVED, *_REPLACED):
                if keyword in derived:
                    delattr(derived, keyword)
            _describe_equipment(derived, source.dataset, series)
            _identify(derived, source.dataset, series)
            _describe_derivation(derived, source, series, carried=why_carried if corrected_hu is None else None)
            _keep_lossy_flag(derived, source)
            _set_pixels(derived, stored)
            correct_ambiguous_vr(derived, True)
            derived.file_meta = _file_meta(derived)
        except PARSE_ERRORS as error:
            raise UnsupportedInputError(
                f"{source.file.name}: its header is damaged ({type(error).__name__}), so that no derived image "
                "can be made of it; fetch it again from its source."
            ) from None  # pydicom's text would quote values
    return derived


def write_dataset(dataset: Dataset, path: Path) -> None:
    """Write a data set made by `derive` as a DICOM file.

    Raises
    ------
    FileExistsError
        If there is such a file: nothing is ever overwritten.
    UnsupportedInputError
        If an attribute that was copied from the source cannot be written.
    """
    # Encoded in memory first: what is wrong with the attributes must be told from what is wrong with the disk.
    content = io.BytesIO()
    try:
        with quiet_pydicom(), config.disable_value_validation():
            dcmwrite(content, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
    except PARSE_ERRORS as error:
        raise UnsupportedInputError(
            f"{path.name}: an attribute of its source is damaged ({type(error).__name__}) and cannot be written; "
            "fetch the source again."
        ) from None  # pydicom's text would quote values
    with path.open("xb") as file:
        file.write(content.getbuffer())


def _describe_equipment(derived: Dataset, source: Dataset, series: DerivedSeries) -> None:
    contributors = list(derived.get("ContributingEquipmentSequence") or [])
    purposes = {_code_value(item, "PurposeOfReferenceCodeSequence") for item in contributors}
    if "109101" not in purposes:
        scanner = Dataset()
        for keyword in _EQUIPMENT:
            if source.get(keyword):
                scanner.add(copy.deepcopy(source[keyword]))
        scanner.Manufacturer = scanner.get("Manufacturer") or "Unknown"
        scanner.PurposeOfReferenceCodeSequence = [code("109101", "DCM", "Acquisition Equipment")]
        contributors.append(scanner)
    processor = Dataset()
    processor.Manufacturer = MANUFACTURER
    processor.ManufacturerModelName = MODEL_NAME
    processor.SoftwareVersions = series.version
    processor.ContributionDescription = "Metal artifact reduction"
    processor.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    derived.ContributingEquipmentSequence = [*contributors, processor]
    derived.Manufacturer = MANUFACTURER
    derived.ManufacturerModelName = MODEL_NAME
    derived.SoftwareVersions = series.version


def _identify(derived: Dataset, source: Dataset, series: DerivedSeries) -> None:
    created = series.created.astimezone(_zone(source))
    date, time = created.strftime("%Y%m%d"), created.strftime("%H%M%S.%f")
    if not derived.get("SOPClassUID"):
        derived.SOPClassUID = source.file_meta.MediaStorageSOPClassUID  # found by it where the data set has none
    derived.SOPInstanceUID = new_uid()
    derived.SeriesInstanceUID = series.uid
    derived.SeriesNumber = series_number(source, SERIES_NUMBER_OFFSET)
    derived.SeriesDescription = series.description.replace("\\", "/")[:_MAX_LO]
    for event in ("Series", "Content", "InstanceCreation"):
        setattr(derived, f"{event}Date", date)
        setattr(derived, f"{event}Time", time)


def _describe_derivation(derived: Dataset, source: Slice, series: DerivedSeries, *, carried: str | None) -> None:
    further = [str(v).strip() for v in _values(source.dataset, "ImageType")[3:]]
    derived.ImageType = ["DERIVED", "SECONDARY", "AXIAL", *further]
    text = derivation_text(series, carried=carried)
    earlier = str(source.dataset.get("DerivationDescription") or "").strip()
    derived.DerivationDescription = (f"{text} Source: {earlier}" if earlier else text)[:_MAX_ST]
    codes = [c for c in derived.get("DerivationCodeSequence") or [] if c.get("CodeValue") != "CTMAR1"]
    derived.DerivationCodeSequence = [*codes, code("CTMAR1", "99CTMAR", "Metal artifact reduction")]
    scheme = Dataset()
    scheme.CodingSchemeDesignator = "99CTMAR"
    scheme.CodingSchemeName = "Private codes of ctmar"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    schemes = derived.get("CodingSchemeIdentificationSequence") or []
    schemes = [s for s in schemes if s.get("CodingSchemeDesignator") != "99CTMAR"]
    derived.CodingSchemeIdentificationSequence = [*schemes, scheme]
    file = source.file
    derived.SourceImageSequence = [reference(file.sop_class_uid, file.sop_uid, "121322", frame=file.frame)]


def reference(sop_class_uid: str, sop_uid: str, purpose: str, *, frame: int | None = None) -> Dataset:
    """An item of the Source Image Sequence (PS3.3 table C.12-10) on the same pixel grid.

    `purpose` is 121321 for a mask or 121322 for a source image (PS3.16 CID 7202); `frame` counts from 0.
    """
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_uid
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = [code(purpose, "DCM", _PURPOSES[purpose])]
    return item


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3 section 8.8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def derivation_text(series: DerivedSeries, *, carried: str | None = None) -> str:
    """The Derivation Description: what was done, with what, and what the image is not for."""
    model = f", model {series.model_name}" if series.model_name else ""
    model += f" (sha256 {series.model_hash})" if series.model_hash else ""
    by = f"ctmar {series.version}, method {series.method}{model}{f', {series.details}' if series.details else ''}"
    if carried:
        return f"{carried}: pixels identical to the source. Metal artifact reduction: {by}. Not for diagnostic use."
    return f"Metal artifact reduction: {by}. Not for diagnostic use."


def _keep_lossy_flag(derived: Dataset, source: Slice) -> None:
    """Flag what comes from a lossy transfer syntax, if the source does not; never reset a flag."""
    syntax = source.dataset.file_meta.get("TransferSyntaxUID")
    if syntax not in _LOSSY or derived.get("LossyImageCompression") == "01":
        return
    derived.LossyImageCompression = "01"
    derived.LossyImageCompressionMethod = _LOSSY[syntax]
    derived.LossyImageCompressionRatio = f"{source.stored.nbytes / len(source.dataset.PixelData):.2f}"


def _set_pixels(derived: Dataset, stored: NDArray[np.integer]) -> None:
    derived.SamplesPerPixel = 1
    derived.BitsAllocated = 8 * stored.dtype.itemsize
    derived.HighBit = int(derived.BitsStored) - 1
    derived.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    vr = "OB" if stored.dtype.itemsize == 1 else "OW"
    derived.add_new("PixelData", vr, data + b"\0" * (len(data) % 2))


def _file_meta(derived: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = derived.SOPClassUID
    meta.MediaStorageSOPInstanceUID = derived.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _zone(source: Dataset) -> timezone | None:
    """The zone that the source's times are in (PS3.3 section C.12.1.1.7), or None for the local one."""
    offset = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    if len(offset) != 5 or offset[0] not in "+-" or not offset[1:].isdigit():
        return None
    shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
    return timezone(-shift if offset[0] == "-" else shift) if shift < timedelta(hours=24) else None


def _code_value(item: Dataset, keyword: str) -> str | None:
    codes: Sequence[Dataset] = item.get(keyword) or []
    return str(codes[0].get("CodeValue")) if codes else None


def _values(dataset: Dataset, keyword: str) -> list[object]:
    value = dataset.get(keyword) or []
    return [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
