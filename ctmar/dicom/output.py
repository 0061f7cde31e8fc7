"""The files of a corrected series: derived images, and on request their differences, previews and the metal as SEG."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctmar.correction_settings import CorrectionSettings
from ctmar.detection import Detection
from ctmar.dicom.derived import NO_METAL, DerivedSeries, derive, new_uid, reference, write_dataset
from ctmar.dicom.difference import difference_image
from ctmar.dicom.pixels import Slice, read_slice
from ctmar.dicom.preview import preview_image
from ctmar.dicom.segment import metal_segmentation, require_highdicom
from ctmar.dicom.series import Series
from ctmar.packed import PackedMasks
from ctmar.results import SliceResult
from ctmar.slice_correction import SliceOutcome

_SEGMENTATION_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"


class SeriesStack:
    """The slices of a DICOM series as `ctmar.pipeline` reads them."""

    def __init__(self, series: Series) -> None:
        self._slices = series.slices
        self.along_normal_mm = tuple(one.along_normal_mm for one in series.slices)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._slices)

    def read(self, index: int) -> Slice:
        """Decode one, see `ctmar.dicom.pixels.read_slice`."""
        return read_slice(self._slices[index])


@dataclass
class SeriesOutput:
    """Writes what `ctmar.pipeline` hands on into a folder.

    Parameters
    ----------
    folder
        To be filled.
    source
        The series that is corrected.
    series
        What the derived series is called and how it came to be.
    settings
        Which of the further series are wanted.
    metal
        Where the metal is.
    previewed
        Indices of slices that get a preview.

    Attributes
    ----------
    uids
        SOP instance UID of every derived image, by index.
    """

    folder: Path
    source: Series
    series: DerivedSeries
    settings: CorrectionSettings
    metal: Detection
    previewed: Collection[int] = ()
    uids: dict[int, str] = field(default_factory=dict)
    _headers: dict[int, Dataset] = field(default_factory=dict)
    _difference_uid: str = field(default_factory=new_uid)
    _preview_uid: str = field(default_factory=new_uid)
    _segmentation_uid: str = field(default_factory=new_uid)

    def __post_init__(self) -> None:
        """Fail before any work where a library is missing."""
        if self.settings.seg or self.settings.preview:
            require_highdicom()

    def add(self, index: int, image: Slice, metal: NDArray[np.bool_], outcome: SliceOutcome | None) -> None:
        """Write one slice."""
        corrected = None if outcome is None else outcome.image_hu
        why = NO_METAL if outcome is None else f"Metal found, but {outcome.checked.failure}"
        derived = derive(image, corrected, series=self.series, why_carried=why)
        if corrected is not None and self.settings.seg:
            self._segment(index, image, derived)
        write_dataset(derived, self.folder / _name(index))
        self.uids[index] = str(derived.SOPInstanceUID)
        if corrected is not None and self.settings.difference:
            change = difference_image(image, corrected, derived, series_uid=self._difference_uid)
            write_dataset(change, _made(self.folder / "difference") / _name(index))
        if corrected is not None and self.settings.preview and index in self.previewed:
            sheet = preview_image(image, corrected, derived, series_uid=self._preview_uid)
            write_dataset(sheet, _made(self.folder / "preview") / _name(index))

    def named(self, results: Iterable[SliceResult]) -> Iterator[SliceResult]:
        """The results with the UIDs of source and derived images."""
        for result in results:
            uid = self.source.slices[result.number - 1].sop_uid
            yield replace(result, source_uid=uid, derived_uid=self.uids.get(result.number - 1, ""))

    def close(self) -> None:
        """Write what needs all slices."""
        if not self._headers:
            return
        indices = sorted(self._headers)
        segmentation = metal_segmentation(
            [self._headers[index] for index in indices],
            PackedMasks(self.metal.masks[index] for index in indices),
            version=self.series.version,
            sop_instance_uid=self._segmentation_uid,
            detection=self.metal,
            frame_numbers=[self._frame_number(index) for index in indices],
        )
        write_dataset(segmentation, self.folder / "metal-segmentation.dcm")

    def _frame_number(self, index: int) -> int | None:
        frame = self.source.slices[index].frame
        return None if frame is None else frame + 1

    def _segment(self, index: int, image: Slice, derived: Dataset) -> None:
        """Keep for `close` what the segmentation needs, and name it in the image that it was used for."""
        self._headers[index] = _header(image.dataset)
        mask = reference(_SEGMENTATION_CLASS, self._segmentation_uid, "121321")
        derived.SourceImageSequence = [*derived.SourceImageSequence, mask]


def _name(index: int) -> str:
    return f"{index + 1:04d}.dcm"


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _header(dataset: Dataset) -> Dataset:
    """The data set without its pixels and without private attributes, unparsed."""
    header = Dataset()
    for tag in dataset.keys():  # noqa: SIM118  (iterating a Dataset would parse its elements)
        if tag != 0x7FE00010 and not tag.is_private:
            header[tag] = dataset.get_item(tag)
    header.file_meta = dataset.file_meta
    return header
