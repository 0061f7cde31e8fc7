"""The files of a corrected series: derived images, and on request their differences, previews and the metal as SEG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
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
from ctmar.dicom.segment import header_of, metal_segmentation, require_highdicom
from ctmar.dicom.series import Series
from ctmar.errors import UnsupportedInputError
from ctmar.packed import PackedMasks
from ctmar.results import SliceResult
from ctmar.slice_correction import SliceOutcome
from ctmar.words import ranges

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
    _masks: PackedMasks = field(default_factory=PackedMasks)
    _lacking: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    _difference_uid: str = field(default_factory=new_uid)
    _preview_uid: str = field(default_factory=new_uid)
    _segmentation_uid: str = field(default_factory=new_uid)

    def __post_init__(self) -> None:
        """Fail before any work where a library is missing, or slices with metal are no frames of one segmentation."""
        if self.settings.seg or self.settings.preview:
            require_highdicom()
        sizes = {(self.source.slices[k].rows, self.source.slices[k].cols) for k in self.metal.slices}
        if self.settings.seg and len(sizes) > 1:
            raise UnsupportedInputError(
                "A DICOM segmentation has frames of one size, the slices with metal differ; leave --seg out."
            )

    def add(self, index: int, image: Slice, metal: NDArray[np.bool_], outcome: SliceOutcome | None) -> None:
        """Write one slice."""
        corrected = None if outcome is None else outcome.image_hu
        why = NO_METAL if outcome is None else f"Metal found, but {outcome.checked.failure}"
        derived = derive(image, corrected, series=self.series, why_carried=why)
        if image.file.frame is not None:
            derived.InstanceNumber = index + 1  # frames of several objects would share numbers
        segmented = corrected is not None and self.settings.seg
        if segmented:
            mask = reference(_SEGMENTATION_CLASS, self._segmentation_uid, "121321")
            derived.SourceImageSequence = [*derived.SourceImageSequence, mask]
        write_dataset(derived, self.folder / _name(index))
        self.uids[index] = str(derived.SOPInstanceUID)
        if segmented:
            self._headers[index] = header_of(image.dataset)
            self._masks.append(metal)
        if corrected is not None and self.settings.difference:
            make = partial(difference_image, series_uid=self._difference_uid)
            self._add_further("difference", index, make, image, corrected, derived)
        if corrected is not None and self.settings.preview and index in self.previewed:
            make = partial(preview_image, series_uid=self._preview_uid)
            self._add_further("preview", index, make, image, corrected, derived)

    @property
    def warnings(self) -> list[str]:
        """What could not be written beside the derived images."""
        return [f"no {what} of slices {ranges(sorted(slices))}: {why}" for (what, why), slices in self._lacking.items()]

    def _add_further(
        self,
        what: str,
        index: int,
        make: Callable[[Slice, NDArray[np.float32], Dataset], Dataset],
        image: Slice,
        corrected: NDArray[np.float32],
        derived: Dataset,
    ) -> None:
        """Write one more image of a slice; where that fails the slice itself is none the worse."""
        try:
            write_dataset(make(image, corrected, derived), _made(self.folder / what) / _name(index))
        except UnsupportedInputError as error:
            self._lacking[what, str(error)].append(index + 1)

    def named(self, results: Iterable[SliceResult]) -> Iterator[SliceResult]:
        """The results with the UIDs of source and derived images."""
        for result in results:
            one = self.source.slices[result.number - 1]
            yield replace(
                result,
                source_uid=one.sop_uid,
                derived_uid=self.uids.get(result.number - 1, ""),
                instance_number=one.instance_number,
                along_normal_mm=round(one.along_normal_mm, 3),
                file=one.name,
                message=result.message.removeprefix(f"{one.name}: "),
            )

    def close(self) -> None:
        """Write what needs all slices."""
        if not self._headers:
            return
        indices = list(self._headers)
        segmentation = metal_segmentation(
            [self._headers[index] for index in indices],
            self._masks,
            version=self.series.version,
            sop_instance_uid=self._segmentation_uid,
            detection=self.metal,
            frame_numbers=[self._frame_number(index) for index in indices],
        )
        write_dataset(segmentation, self.folder / "metal-segmentation.dcm")

    def _frame_number(self, index: int) -> int | None:
        frame = self.source.slices[index].frame
        return None if frame is None else frame + 1


def _name(index: int) -> str:
    return f"{index + 1:04d}.dcm"


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
