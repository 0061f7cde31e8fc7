"""One DICOM series in, one corrected series out: read, segment, correct, write, slice by slice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctmar import __version__
from ctmar.dicom.derived import NO_METAL, DerivedSeries, derive, new_uid, write_dataset
from ctmar.dicom.pixels import Slice, read_slice
from ctmar.dicom.segment import metal_segmentation, require_highdicom
from ctmar.dicom.series import Series
from ctmar.errors import UnsupportedInputError
from ctmar.files import building
from ctmar.masks import read_mask
from ctmar.methods import DEFAULT_METHOD, Correction, Restorer
from ctmar.report import SlicePreview, render_report
from ctmar.segmentation import METAL_THRESHOLD_HU, metal_mask
from data_sim.geometry import FanArc, ImageGrid
from data_sim.projection import Projector
from data_sim.units import MU_WATER_PER_MM

NEEDS_NETWORK = ("cnn", "cnn-mar")

_SLICES_AT_ONCE = 32
"""As many as the projection kernels work on at a time; about 1.5 GB for 512 x 512 pixels."""

_PREVIEWS = 100
"""Slices shown in a report, at most."""

_SQUARE = 1e-3
_STANDARD_ORIENTATION = (1, 0, 0, 0, 1, 0)

Tell = Callable[[int, int], None]
"""Told how many slices are done, and of how many."""


@dataclass(frozen=True)
class CorrectionSettings:
    """What `ctmar correct` is asked to do.

    Attributes
    ----------
    method
        One of `ctmar.methods.METHODS`.
    metal_threshold_hu
        Pixels at or above are metal, unless there is a mask.
    mask
        A file of the user's, see `ctmar.masks.read_mask`.
    seg, report
        Write the metal as DICOM SEG; write report.html and report.json.
    device
        "auto", "cpu" or "cuda".
    overwrite
        Replace an output that exists.
    """

    method: str = DEFAULT_METHOD
    metal_threshold_hu: float = METAL_THRESHOLD_HU
    mask: Path | None = None
    seg: bool = False
    report: bool = False
    device: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True)
class SliceResult:
    """What became of one slice.

    `status` is "corrected", "no metal", "failed" (carried through) or "unreadable" (left out).
    """

    number: int
    sop_uid: str
    status: str
    metal_mm2: float = 0.0
    mean_change_hu: float = 0.0
    largest_change_hu: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class SeriesResult:
    """What became of a series; `asdict` of it is the report, without patient data."""

    source_uid: str
    derived_uid: str
    method: str
    model: str | None
    model_sha256: str | None
    version: str
    folder: str
    slices: tuple[SliceResult, ...]
    warnings: tuple[str, ...]

    @property
    def corrected(self) -> int:
        """How many slices were corrected."""
        return sum(s.status == "corrected" for s in self.slices)

    @property
    def failed(self) -> tuple[SliceResult, ...]:
        """Slices that were left out or carried through because something went wrong."""
        return tuple(s for s in self.slices if s.status in ("failed", "unreadable"))


@dataclass
class _Output:
    """Where the corrected series goes while it is made."""

    folder: Path
    series: DerivedSeries
    results: list[SliceResult] = field(default_factory=list)
    previews: list[SlicePreview] = field(default_factory=list)
    headers: list[Dataset] = field(default_factory=list)
    masks: list[NDArray[np.bool_]] = field(default_factory=list)

    def write(
        self,
        number: int,
        source: Slice,
        corrected_hu: NDArray[np.float32] | None,
        *,
        why_carried: str = NO_METAL,
    ) -> bool:
        """Write a slice, or list it as unreadable where its header is too damaged; says which of them."""
        try:
            derived = derive(source, corrected_hu, series=self.series, why_carried=why_carried)
            write_dataset(derived, self.folder / f"{number:04d}.dcm")
        except UnsupportedInputError as error:
            self.results.append(SliceResult(number, source.file.sop_uid, "unreadable", message=str(error)))
            return False
        return True


def correct_series(
    series: Series,
    out: Path,
    settings: CorrectionSettings,
    *,
    restorer: Restorer | None = None,
    progress: Tell | None = None,
) -> SeriesResult:
    """Write the corrected series to the folder `out`; the source is only read.

    Slices without metal are carried through with identical pixels. A slice that cannot be read is left out, one
    whose correction fails is carried through; both are listed in the result.

    Parameters
    ----------
    series
        See `ctmar.dicom.series.find_series`.
    out
        Folder to make; it appears when it is complete.
    settings
        What to do.
    restorer
        The network, for the methods that need one.
    progress
        Told about every slice.

    Raises
    ------
    OutputExistsError
        Where `out` exists and is not to be overwritten.
    UnsupportedInputError
        Where no slice can be read, or the pixels are not square.
    """
    tell = progress or (lambda *_: None)
    if settings.seg:
        require_highdicom()
    card = getattr(restorer, "card", None)
    derived = DerivedSeries(
        uid=new_uid(),
        description=f"{series.description} {settings.method.upper()} (ctmar)".strip(),
        method=settings.method,
        version=__version__,
        created=datetime.now(UTC),
        model_name=card.name if card else None,
        model_hash=card.sha256 if card else None,
    )
    with building(out, overwrite=settings.overwrite) as folder:
        output = _Output(folder, derived)
        total = len(series.slices)
        for batch in _batches(_segmented(series, settings, output), _SLICES_AT_ONCE):
            _correct_batch(batch, output, settings, restorer)
            tell(len(output.results), total)
        tell(total, total)
        if not any(folder.glob("*.dcm")):
            first = output.results[0].message if output.results else "the series is empty"
            raise UnsupportedInputError(f"no slice of the series can be read: {first}")
        warnings = list(series.warnings)
        if not any(r.metal_mm2 for r in output.results):
            warnings.append("No metal was found: all slices are carried through unchanged.")
        result = SeriesResult(
            source_uid=series.uid,
            derived_uid=derived.uid,
            method=settings.method,
            model=derived.model_name,
            model_sha256=derived.model_hash,
            version=__version__,
            folder=str(out),
            slices=tuple(sorted(output.results, key=lambda r: r.number)),
            warnings=tuple(warnings),
        )
        if settings.seg and output.masks:
            segmentation = metal_segmentation(output.headers, np.stack(output.masks), version=__version__)
            write_dataset(segmentation, folder / "metal-segmentation.dcm")
        if settings.report:
            _write_report(folder, result, output.previews, asdict(settings), asdict(card) if card else None)
    return result


def find_metal(series: Series, settings: CorrectionSettings) -> Iterator[tuple[int, Slice, NDArray[np.bool_]]]:
    """Number, slice and metal mask of every slice that can be read.

    Raises
    ------
    UnsupportedInputError
        At the first slice that cannot be read.
    """
    masks = _own_masks(series, settings)
    for number, file in enumerate(series.slices, start=1):
        source = read_slice(file)
        yield number, source, _metal(source, settings, None if masks is None else masks[number - 1])


def grid_of(source: Slice) -> ImageGrid:
    """The image grid of a slice.

    Raises
    ------
    UnsupportedInputError
        Where its pixels are not square.
    """
    rows_mm, cols_mm = source.pixel_mm
    if abs(rows_mm - cols_mm) > _SQUARE * rows_mm:
        raise UnsupportedInputError(
            f"{source.file.file.name}: its pixels are {rows_mm:g} x {cols_mm:g} mm; only square ones are supported."
        )
    return ImageGrid(len(source.image_hu), source.image_hu.shape[1], rows_mm)


def reprojection_geometry(grid: ImageGrid) -> FanArc:
    """A clinical arc fan wide enough for the circle within the image."""
    scanner = FanArc()
    radius_mm = max(grid.shape) / 2 * grid.pixel_mm
    if radius_mm >= scanner.source_isocentre_mm:
        raise UnsupportedInputError(f"an image of {2 * radius_mm:.0f} mm is wider than any CT gantry.")
    needed = 2 * int(np.ceil(np.arcsin(radius_mm / scanner.source_isocentre_mm) / scanner.bin_pitch_rad))
    return FanArc(bins=max(scanner.bins, needed))


def _own_masks(series: Series, settings: CorrectionSettings) -> NDArray[np.bool_] | None:
    if settings.mask is None:
        return None
    first = series.slices[0]
    if not np.allclose(first.orientation, _STANDARD_ORIENTATION, atol=0.1):
        raise UnsupportedInputError(f"{first.file.name}: a mask can only be laid on a supine series without rotation.")
    return read_mask(settings.mask, (len(series.slices), first.rows, first.cols))


def _metal(source: Slice, settings: CorrectionSettings, own: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if own is not None:
        return own & ~source.padding
    rows_mm, cols_mm = source.pixel_mm
    return metal_mask(
        source.image_hu, threshold_hu=settings.metal_threshold_hu, pixel_mm=float(np.sqrt(rows_mm * cols_mm))
    )


def _segmented(
    series: Series, settings: CorrectionSettings, output: _Output
) -> Iterator[tuple[int, Slice, NDArray[np.bool_]]]:
    """Slices with metal; the others are written on the way."""
    masks = _own_masks(series, settings)
    for number, file in enumerate(series.slices, start=1):
        try:
            source = read_slice(file)
        except UnsupportedInputError as error:
            output.results.append(SliceResult(number, file.sop_uid, "unreadable", message=str(error)))
            continue
        metal = _metal(source, settings, None if masks is None else masks[number - 1])
        if metal.any():
            yield number, source, metal
        elif output.write(number, source, None):
            output.results.append(SliceResult(number, file.sop_uid, "no metal"))


def _batches(
    found: Iterator[tuple[int, Slice, NDArray[np.bool_]]], most: int
) -> Iterator[list[tuple[int, Slice, NDArray[np.bool_]]]]:
    """Neighbouring slices that share a grid."""
    batch: list[tuple[int, Slice, NDArray[np.bool_]]] = []
    for item in found:
        other = batch and grid_of(batch[-1][1]) != grid_of(item[1])
        if other or len(batch) == most:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _correct_batch(
    batch: Sequence[tuple[int, Slice, NDArray[np.bool_]]],
    output: _Output,
    settings: CorrectionSettings,
    restorer: Restorer | None,
) -> None:
    grid = grid_of(batch[0][1])
    before = np.stack([source.image_hu for _, source, _ in batch])
    metal = np.stack([mask for *_, mask in batch])
    projector = Projector(reprojection_geometry(grid), grid, device=settings.device)
    correction = Correction.of_image(before, metal, projector, mu_water_per_mm=MU_WATER_PER_MM, restorer=restorer)
    after = correction.image(settings.method)
    for (number, source, mask), corrected_hu in zip(batch, after, strict=True):
        area = float(mask.sum() * grid.pixel_mm**2)
        if not np.isfinite(corrected_hu).all():
            message = "the correction gave values that are not finite; the slice is carried through"
            if output.write(number, source, None, why_carried="Metal found, but its correction failed"):
                output.results.append(SliceResult(number, source.file.sop_uid, "failed", area, message=message))
            continue
        if not output.write(number, source, corrected_hu):
            continue
        change = np.abs(corrected_hu - source.image_hu)[~source.padding & ~mask]
        mean, largest = (float(change.mean()), float(change.max())) if change.size else (0.0, 0.0)
        output.results.append(SliceResult(number, source.file.sop_uid, "corrected", area, mean, largest))
        if settings.seg:
            output.headers.append(_header(source.dataset))
            output.masks.append(mask)
        if settings.report and len(output.previews) < _PREVIEWS:
            label = f"slice {number} of the series"
            output.previews.append(
                SlicePreview(label, source.image_hu.astype(np.float16), corrected_hu.astype(np.float16), metal=mask)
            )


def _header(dataset: Dataset) -> Dataset:
    """The data set without its pixels and without private attributes, unparsed."""
    header = Dataset()
    for tag in dataset.keys():  # noqa: SIM118  (iterating a Dataset would parse its elements)
        if tag != 0x7FE00010 and not tag.is_private:
            header[tag] = dataset.get_item(tag)
    header.file_meta = dataset.file_meta
    return header


def _write_report(
    folder: Path,
    result: SeriesResult,
    previews: Sequence[SlicePreview],
    settings: Mapping[str, Any],
    card: Mapping[str, Any] | None,
) -> None:
    shown = {name: value for name, value in settings.items() if name != "overwrite" and value is not None}
    values = {"settings": {**shown, "mask": bool(settings["mask"])}, **asdict(result)}
    del values["folder"]  # not yet where the series is going to be
    (folder / "report.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    failures = [f"Slice {s.number}: {s.message}" for s in result.failed]
    render_report(
        folder / "report.html",
        title="Metal artifact reduction",
        results=None,
        slices=previews,
        settings={
            **values["settings"],
            "slices": len(result.slices),
            "slices corrected": result.corrected,
            "source series": result.source_uid,
            "derived series": result.derived_uid,
        },
        model_card=card,
        warnings=[*result.warnings, *failures],
    )
