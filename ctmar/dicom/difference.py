"""What a correction changed, as a derived CT series of its own."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctmar.dicom.derived import SERIES_NUMBER_OFFSET, code, new_uid, reference, series_number
from ctmar.dicom.pixels import Slice, to_stored
from ctmar.dicom.source import PARSE_ERRORS, quiet_pydicom
from ctmar.errors import UnsupportedInputError

DIFFERENCE_NUMBER_OFFSET = SERIES_NUMBER_OFFSET + 200

_WIDTH_HU = 400
_OF_SOURCE_PIXELS = (
    "PixelPaddingValue", "PixelPaddingRangeLimit", "RealWorldValueMappingSequence", "WindowCenterWidthExplanation",
    "VOILUTSequence",
)  # fmt: skip


def difference_image(source: Slice, corrected_hu: NDArray[np.float32], derived: Dataset, *, series_uid: str) -> Dataset:
    """What the derived image has more than its source, as both are stored, in signed 16-bit words of 1 HU.

    Parameters
    ----------
    source
        The slice as it was.
    corrected_hu : float32 (rows, cols)
    derived
        The derived image of it, see `ctmar.dicom.derived.derive`.
    series_uid
        Of the series of differences.

    Returns
    -------
    Dataset
        For `ctmar.dicom.derived.write_dataset`.

    Raises
    ------
    UnsupportedInputError
        Where the header is too damaged.
    """
    try:
        return _difference_image(source, corrected_hu, derived, series_uid)
    except PARSE_ERRORS as error:
        raise UnsupportedInputError(
            f"the header does not allow an image of differences ({type(error).__name__}); leave --difference out."
        ) from None  # its text would quote values


def _difference_image(source: Slice, corrected_hu: NDArray[np.float32], derived: Dataset, series_uid: str) -> Dataset:
    change = (to_stored(corrected_hu, source).astype(np.float64) - source.stored) * source.slope
    with quiet_pydicom():
        image = copy.deepcopy(derived)
        image.SOPInstanceUID = new_uid()
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.SeriesInstanceUID = series_uid
        image.SeriesNumber = series_number(source.dataset, DIFFERENCE_NUMBER_OFFSET)
        image.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "SUBTRACTION"]
        image.SeriesDescription = "Difference: corrected - source (ctmar)"
        image.DerivationDescription = f"Corrected minus source, HU. {derived.DerivationDescription}"[:1024]
        image.DerivationCodeSequence = [
            *derived.DerivationCodeSequence, code("113062", "DCM", "Pixel by pixel subtraction")
        ]  # fmt: skip
        image.SourceImageSequence = [
            *derived.SourceImageSequence, reference(derived.SOPClassUID, derived.SOPInstanceUID, "121322")
        ]  # fmt: skip
        for keyword in _OF_SOURCE_PIXELS:
            if keyword in image:
                delattr(image, keyword)
        image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, 0, "HU"
        image.WindowCenter, image.WindowWidth = 0, _WIDTH_HU
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 1
        image.add_new("PixelData", "OW", np.clip(np.rint(change), -32768, 32767).astype("<i2").tobytes())
    return image
