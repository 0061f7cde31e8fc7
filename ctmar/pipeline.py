"""A series or volume in, a corrected one out: find the metal, correct, write, in memory that does not grow with it.

Slices are read twice, once to find the metal in three dimensions and once to correct it. Reading, arithmetic and
writing overlap; slices without metal cost nothing but their reading and writing.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ctmar.correction_settings import CorrectionSettings
from ctmar.detection import Detection, detect
from ctmar.errors import UnsupportedInputError
from ctmar.images import Image
from ctmar.methods import Restorer
from ctmar.results import CORRECTED, FAILED, NO_METAL, UNREADABLE, SliceResult
from ctmar.slice_correction import SliceOutcome, correct_slices
from ctmar.streaming import WriteBehind, read_ahead

logger = logging.getLogger(__name__)

SLICES_AT_ONCE = 8
"""Slices corrected together: the projection kernels are no faster with more, and memory grows with them."""

Mask = NDArray[np.bool_]
AnyImage = TypeVar("AnyImage", bound=Image)
Image_co = TypeVar("Image_co", bound=Image, covariant=True)
Image_contra = TypeVar("Image_contra", bound=Image, contravariant=True)


class Tell(Protocol):
    """Told what is going on, how many slices are done, and of how many."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show it."""
        ...


class Stack(Protocol[Image_co]):
    """Axial images in their order along the normal."""

    @property
    def along_normal_mm(self) -> Sequence[float]:
        """Where each lies on the normal."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, index: int) -> Image_co:
        """One of them; `UnsupportedInputError` where it cannot be read."""
        ...


class Sink(Protocol[Image_contra]):
    """Takes every slice that could be read, in any order, from a thread that is not the caller's."""

    def add(self, index: int, image: Image_contra, metal: Mask, outcome: SliceOutcome | None) -> None:
        """Keep a slice; `outcome` is None where it holds no metal.

        `UnsupportedInputError` where the slice is too damaged to be kept; it is then left out.
        """
        ...


def find_metal(
    stack: Stack[Image], settings: CorrectionSettings, *, tell: Tell | None = None
) -> tuple[Detection, dict[int, str]]:
    """The metal of every slice, and why slices could not be read, by index.

    Raises
    ------
    UnsupportedInputError
        Where no slice can be read, or, with `settings.strict`, one cannot.
    """
    unreadable: dict[int, str] = {}

    def images() -> Iterator[Image | None]:
        with closing(_images(stack, range(len(stack)))) as read:
            for index, image in read:
                if isinstance(image, str):
                    unreadable[index] = image
                    _refuse(index, image, strict=settings.strict)
                yield None if isinstance(image, str) else image
                if tell:
                    tell("finding metal", index + 1, len(stack))

    found = detect(images(), stack.along_normal_mm, settings.metal)
    if len(unreadable) == len(stack):
        first = next(iter(unreadable.values()), "the series is empty")
        raise UnsupportedInputError(f"no slice of the series can be read: {first}")
    return found, unreadable


def correct_stack(
    stack: Stack[AnyImage],
    metal: Sequence[Mask],
    sinks: Sequence[Sink[AnyImage]],
    settings: CorrectionSettings,
    *,
    unreadable: Mapping[int, str] | None = None,
    restorer: Restorer | None = None,
    tell: Tell | None = None,
) -> list[SliceResult]:
    """Correct every slice that holds metal and hand all to the sinks.

    Parameters
    ----------
    stack
        The images.
    metal : bool (rows, cols)
        A mask for each, such as `ctmar.detection.Detection.masks`.
    sinks
        Where they go; each is called by one thread at a time.
    settings
        What to do.
    unreadable
        Slices known to be unreadable, and why.
    restorer
        The network, for the methods that need one.
    tell
        Told about every slice.

    Returns
    -------
    What became of the slices, in their order, without UIDs.

    Raises
    ------
    UnsupportedInputError
        With `settings.strict` where a slice cannot be read or fails its checks; or where none can be read.
    """
    results = {index: SliceResult(index + 1, UNREADABLE, message=why) for index, why in (unreadable or {}).items()}

    def readable() -> Iterator[tuple[int, AnyImage, Mask]]:
        with closing(_images(stack, [index for index in range(len(stack)) if index not in results])) as images:
            for index, image in images:
                if isinstance(image, str):
                    _refuse(index, image, strict=settings.strict)
                    results[index] = SliceResult(index + 1, UNREADABLE, message=image)
                else:
                    yield index, image, metal[index] & ~image.padding

    def keep(index: int, image: AnyImage, mask: Mask, outcome: SliceOutcome | None) -> None:
        try:
            for sink in sinks:
                sink.add(index, image, mask, outcome)
        except UnsupportedInputError as error:
            _refuse(index, str(error), strict=settings.strict)
            results[index] = SliceResult(index + 1, UNREADABLE, message=str(error))

    with WriteBehind(depth=SLICES_AT_ONCE) as write:
        for index, image, mask, outcome in _corrected(readable(), settings, restorer):
            results[index] = _result(index, image, mask, outcome)
            logger.info("%s", results[index].in_words())
            if results[index].status == FAILED:
                _refuse(index, results[index].message, strict=settings.strict)
            write(keep, index, image, mask, outcome)
            if tell:
                tell("correcting", len(results), len(stack))
    if all(result.status == UNREADABLE for result in results.values()):
        raise UnsupportedInputError(f"no slice of the series can be read: {results[0].message}")
    return [results[index] for index in sorted(results)]


def _corrected(
    items: Iterable[tuple[int, AnyImage, Mask]], settings: CorrectionSettings, restorer: Restorer | None
) -> Iterator[tuple[int, AnyImage, Mask, SliceOutcome | None]]:
    """Every item with its outcome; those with metal in batches of one grid, the others at once."""
    batch: list[tuple[int, AnyImage, Mask]] = []

    def outcomes() -> Iterator[tuple[int, AnyImage, Mask, SliceOutcome]]:
        images, masks = [image for _, image, _ in batch], [mask for *_, mask in batch]
        for item, outcome in zip(batch, correct_slices(images, masks, settings, restorer=restorer), strict=True):
            yield (*item, outcome)

    for item in items:
        _, image, mask = item
        if not mask.any():
            yield (*item, None)
            continue
        if len(batch) == SLICES_AT_ONCE or (batch and not _same_grid(batch[0][1], image)):
            yield from outcomes()
            batch = []
        batch.append(item)
    if batch:
        yield from outcomes()


def _same_grid(one: Image, other: Image) -> bool:
    return one.image_hu.shape == other.image_hu.shape and one.pixel_mm == other.pixel_mm


def _images(stack: Stack[AnyImage], indices: Sequence[int]) -> Generator[tuple[int, AnyImage | str], None, None]:
    """Every slice, read ahead, or the sentence that says why it cannot be read."""

    def read(index: int) -> tuple[int, AnyImage | str]:
        try:
            return index, stack.read(index)
        except UnsupportedInputError as error:
            return index, str(error)

    return read_ahead(read, indices, depth=SLICES_AT_ONCE)


def _result(index: int, image: Image, mask: Mask, outcome: SliceOutcome | None) -> SliceResult:
    if outcome is None:
        return SliceResult(index + 1, NO_METAL)
    rows_mm, cols_mm = image.pixel_mm
    return SliceResult(
        index + 1,
        CORRECTED if outcome.image_hu is not None else FAILED,
        metal_mm2=float(mask.sum() * rows_mm * cols_mm),
        measures=outcome.checked.measures,
        warnings=outcome.checked.warnings,
        message=outcome.checked.failure,
    )


def _refuse(index: int, why: str, *, strict: bool) -> None:
    if strict:
        raise UnsupportedInputError(f"slice {index + 1}: {why.rstrip('.')}; stopped, since --strict was given.")
