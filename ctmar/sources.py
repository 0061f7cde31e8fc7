"""Slices to simulate from: DICOM, NIfTI or the built-in phantom; `ctmar.screening` says which are of use."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import SliceFile, find_series
from ctmar.errors import CtmarError, NoUsableSeriesError, UnsupportedInputError
from ctmar.nifti import is_nifti, open_volume
from ctmar.square_grid import is_square
from data_sim.geometry import ImageGrid
from data_sim.phantom import REGIONS, phantom_slice
from data_sim.units import HU_AIR

PHANTOM = "phantom"
PHANTOM_PATIENTS = 6
PHANTOM_SLICES_MM = (-6.0, 0.0, 6.0)
PHANTOM_GRIDS = {
    "pelvis": ImageGrid(512, 512, 0.8),
    "shoulder": ImageGrid(512, 512, 0.8),
    "jaw": ImageGrid(512, 512, 0.45),
    "head": ImageGrid(512, 512, 0.45),
    "chest": ImageGrid(512, 512, 0.8),
    "knee": ImageGrid(512, 512, 0.8),
}


@dataclass(frozen=True)
class SourceSlice:
    """A slice that can be loaded when it is needed.

    Attributes
    ----------
    name
        What it is called in provenance: a SOP instance UID, a file name with the slice's number, or the
        phantom's region, patient and position.
    load
        Gives the image in HU, float32 (rows, cols), its grid, and the patient's pseudonym.
    series, z_mm
        The series and the position in it along its normal; slices of one series are neighbours.
    """

    name: str
    load: Callable[[], tuple[NDArray[np.float32], ImageGrid, str]]
    series: str = ""
    z_mm: float = 0.0


def find_slices(sources: Sequence[str]) -> tuple[list[SourceSlice], list[tuple[str, str]]]:
    """All slices of the sources, and (name, reason) of what cannot be used.

    Parameters
    ----------
    sources
        DICOM or NIfTI folder (any mix of series, patients and other files), file or zip of DICOM; or the word
        "phantom". A slice that comes up again is left out.

    Raises
    ------
    NoUsableSeriesError
        Where a source does not exist or there is no slice at all.
    UnsupportedInputError
        Where a NIfTI file or a zip that was named itself cannot be read.
    """
    slices: list[SourceSlice] = []
    skipped: list[tuple[str, str]] = []
    seen: set[str] = set()
    for source in sources:
        for key, found in _of_source(source, skipped):
            if key in seen:
                skipped.append((found.name, "the same slice as in another source"))
            else:
                seen.add(key)
                slices.append(found)
    if not slices:
        reasons = counted([reason for _, reason in skipped])
        why = f" ({'; '.join(reasons)})" if reasons else ""
        raise NoUsableSeriesError(
            f"{', '.join(sources)}: no axial CT slice found{why}; give DICOM, NIfTI or the word {PHANTOM}."
        )
    return slices, skipped


def counted(reasons: Sequence[str], most: int = 3) -> list[str]:
    """The commonest reasons for which something was left out, each with its number and without its particulars."""
    found = Counter(reason.split(" (")[0].rstrip(".") for reason in reasons).most_common(most)
    return [f"{count} x {reason}" for reason, count in found]


def _of_source(source: str, skipped: list[tuple[str, str]]) -> Iterator[tuple[str, SourceSlice]]:
    """Slices of one source with what tells each from every other; adds to what was skipped."""
    path = Path(source)
    if source == PHANTOM:
        yield from ((found.name, found) for found in _phantom())
        return
    if is_nifti(path):
        yield from _nifti(path)
        return
    dicom = find_series(path)
    folder = path.is_dir()
    skipped.extend((file.path, file.reason) for file in dicom.skipped if not (folder and is_nifti(Path(file.path))))
    for series in dicom.series:
        yield from ((s.key, _dicom(series.key, s)) for s in series.slices)
    for volume in sorted(filter(is_nifti, path.rglob("*"))) if folder else ():
        try:
            yield from _nifti(volume)
        except CtmarError as error:
            skipped.append((str(volume), str(error)))


def pseudonym(*identifiers: str) -> str:
    """A stable stand-in for a patient's identity, from which it cannot be read."""
    return "p-" + hashlib.sha256("\0".join(("ctmar", *identifiers)).encode()).hexdigest()[:12]


def _dicom(series: str, file: SliceFile) -> SourceSlice:
    return SourceSlice(file.key, partial(_load_dicom, file), series, file.along_normal_mm)


def _load_dicom(file: SliceFile) -> tuple[NDArray[np.float32], ImageGrid, str]:
    found = read_slice(file)
    if not is_square(found.pixel_mm):
        raise UnsupportedInputError(f"{file.name}: its pixels are not square; resample the series first.")
    identity = str(found.dataset.get("PatientID") or found.dataset.get("StudyInstanceUID", ""))
    return (
        found.image_hu,
        ImageGrid(len(found.image_hu), found.image_hu.shape[1], found.pixel_mm[0]),
        pseudonym(identity),
    )


def _phantom() -> Iterator[SourceSlice]:
    for seed in range(PHANTOM_PATIENTS):
        for region in REGIONS:
            for z_mm in PHANTOM_SLICES_MM:
                load = partial(_load_phantom, region, seed, z_mm)
                yield SourceSlice(f"phantom-{region}-{seed}-{z_mm:g}mm", load, f"phantom-{region}-{seed}", z_mm)


def _load_phantom(region: str, seed: int, z_mm: float) -> tuple[NDArray[np.float32], ImageGrid, str]:
    grid = PHANTOM_GRIDS[region]
    return phantom_slice(region, grid=grid, seed=seed, z_mm=z_mm), grid, f"phantom-{seed}"


def _nifti(path: Path) -> Iterator[tuple[str, SourceSlice]]:
    volume = _open_nifti(path)
    series = str(path.resolve())
    for index, z_mm in enumerate(volume.along_normal_mm):
        load = partial(_load_nifti, path.absolute(), index)
        yield f"{series}:{index}", SourceSlice(f"{_nifti_name(path)}:{index}", load, series, z_mm)


_open_nifti = lru_cache(maxsize=1)(open_volume)
"""Opened anew in every process, since a volume may hold all of its voxels."""


def _nifti_name(path: Path) -> str:
    """File and folder: many collections give every patient a folder and the same file name."""
    return "/".join(path.resolve().parts[-2:])


def _load_nifti(path: Path, index: int) -> tuple[NDArray[np.float32], ImageGrid, str]:
    volume = _open_nifti(path)
    if not is_square(volume.pixel_mm):
        raise UnsupportedInputError(f"{path.name}: its pixels are not square; resample the volume first.")
    image_hu = np.maximum(np.nan_to_num(volume.values(index), nan=HU_AIR), HU_AIR)
    return image_hu, ImageGrid(len(image_hu), image_hu.shape[1], volume.pixel_mm[1]), pseudonym(_nifti_name(path))
