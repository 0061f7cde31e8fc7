"""The case file (HDF5) and the folder of case files: the only place that reads or writes them.

One simulated or measured slice is one file; a database is a folder of them with an ``index.csv``. Files may
come from strangers: what is read is bounded and checked before anything is allocated.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctmar.errors import NoUsableSeriesError, UnsupportedInputError
from ctmar.files import replacing
from data_sim.geometry import Geometry, ImageGrid, geometry_from_dict

FORMAT = "ctmar-case"
VERSION = 1
FOLDERS = ("image", "dicom_path")
INDEX_COLUMNS = ("case", "patient", "implant", "material", "seed", "source")

MAX_IMAGE_SIDE = 4096
MAX_SINOGRAM_SIDE = 16_384
MAX_SINOGRAM_SAMPLES = 2**26
MAX_IMAGES = 64
LEAST_MM, MOST_MM = 1e-9, 1e6
"""Of any length in a geometry: far beyond, kernels that turn places into numbers of pixels overflow."""
MU_WATER_RANGE_PER_MM = (0.01, 0.05)
"""Water between 200 and 30 keV; 1/cm given for mm^-1 lies outside."""

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseInfo:
    """What is known of a case without reading its arrays.

    Parameters
    ----------
    geometry, grid
        Shapes of the sinograms (views, bins) and of the images (rows, cols).
    mu_water_per_mm
        Attenuation that is 0 HU.
    seed, implant, material, source
        Where the case comes from, as far as known.
    patient
        Pseudonym of the patient: what databases are split by.
    """

    geometry: Geometry
    grid: ImageGrid
    mu_water_per_mm: float
    seed: int | None = None
    implant: str = ""
    material: str = ""
    patient: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case(CaseInfo):
    """One slice: sinograms, masks and images; everything but the measured sinogram may be missing.

    Parameters
    ----------
    sinogram_metal, sinogram_reference
        Water-corrected line integrals with metal and of the same scan without, float32 (views, bins).
    mask_metal, mask_body
        Metal and patient, bool (rows, cols).
    images, dicom_images
        HU by name, float32 (rows, cols), from raw data and from the stored image (`image/*`, `dicom_path/*`).
    """

    sinogram_metal: Image
    sinogram_reference: Image | None = None
    mask_metal: Mask | None = None
    mask_body: Mask | None = None
    images: Mapping[str, Image] = field(default_factory=dict)
    dicom_images: Mapping[str, Image] = field(default_factory=dict)


def write_case(path: Path, case: Case) -> None:
    """Write a case file; it appears under its name only when it is complete.

    Raises
    ------
    ValueError
        Where an array does not have the shape that geometry or grid say, or is not finite.
    """
    arrays: dict[str, tuple[NDArray[Any] | None, tuple[int, int]]] = {
        "sinogram/metal": (case.sinogram_metal, case.geometry.shape),
        "sinogram/reference": (case.sinogram_reference, case.geometry.shape),
        "mask/metal": (case.mask_metal, case.grid.shape),
        "mask/body": (case.mask_body, case.grid.shape),
    }
    for folder, images in zip(FOLDERS, (case.images, case.dicom_images), strict=True):
        arrays |= {f"{folder}/{name}": (image, case.grid.shape) for name, image in images.items()}
    # built in memory: where the disk is full, HDF5 does not raise but takes the process down
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["mu_water_per_mm"] = case.mu_water_per_mm
        file.attrs["geometry"] = json.dumps(case.geometry.to_dict())
        file.attrs["image_grid"] = json.dumps(case.grid.to_dict())
        for name in ("seed", "implant", "material", "patient", "source"):
            if getattr(case, name) not in (None, ""):
                file.attrs[name] = getattr(case, name)
        for name, (array, shape) in arrays.items():
            if array is None:
                continue
            stored = np.asarray(array, np.uint8 if name.startswith("mask/") else np.float32)
            if stored.shape != shape:
                raise ValueError(f"{name} is {stored.shape}, but the case says {shape}")
            if not np.isfinite(stored).all():
                raise ValueError(f"{name} holds values that are not finite")
            # gzip, not lzf: other HDF5 readers (MATLAB, Julia, HDFView) know it without plugins.
            made = file.create_dataset(name, data=stored, compression="gzip", compression_opts=1, shuffle=True)
            made.flush()  # now: in a thread the object may be let go later, and the file would have another order
    with replacing(path) as partial:
        partial.write_bytes(content.getbuffer())


def read_info(path: Path) -> CaseInfo:
    """What a case file says of itself, without its arrays.

    Raises
    ------
    UnsupportedInputError
        Where it is no case file, is damaged, or is too large.
    """
    with _opened(path) as file:
        return _info(file)


def read_case(path: Path) -> Case:
    """Read a whole case file; only what the format calls needed has to be there.

    Raises
    ------
    UnsupportedInputError
        Where it is no case file, is damaged or incomplete, too large, or holds values that are not finite.
    """
    with _opened(path) as file:
        info = _info(file)
        views_bins, rows_cols = info.geometry.shape, info.grid.shape
        sinogram = _array(file, "sinogram/metal", views_bins)
        if sinogram is None:
            raise _Unusable("has no sinogram/metal, which every case needs")
        return Case(
            **vars(info),
            sinogram_metal=sinogram,
            sinogram_reference=_array(file, "sinogram/reference", views_bins),
            mask_metal=_mask(file, "mask/metal", rows_cols),
            mask_body=_mask(file, "mask/body", rows_cols),
            images=_images(file, FOLDERS[0], rows_cols),
            dicom_images=_images(file, FOLDERS[1], rows_cols),
        )


def read_images(path: Path, *, folder: str, names: Iterable[str]) -> tuple[CaseInfo, dict[str, Image], Mask]:
    """Some images of a case and its metal mask, without reading the rest: what training needs.

    Parameters
    ----------
    path
        Case file.
    folder
        ``image`` (from raw data) or ``dicom_path`` (from the stored image). A name that is only in
        ``image``, as the reference is, is taken from there.
    names
        Images to read.

    Returns
    -------
    tuple
        The case, its images in HU by name, float32 (rows, cols), and the metal, bool (rows, cols).

    Raises
    ------
    UnsupportedInputError
        As `read_case`, and where one of them is missing.
    """
    with _opened(path) as file:
        info = _info(file)
        images = {}
        for name in names:
            inside = "image" if name == "reference" else folder
            image = _array(file, f"{inside}/{name}", info.grid.shape)
            if image is None:
                raise _Unusable(f"has no {inside}/{name}; simulate the database again with that image")
            images[name] = image
        mask = _mask(file, "mask/metal", info.grid.shape)
        if mask is None:
            raise _Unusable("has no mask/metal")
        return info, images, mask


def list_cases(folder: Path) -> list[Path]:
    """Case files of a database, in the order of their names.

    Raises
    ------
    NoUsableSeriesError
        Where there is no such folder or no case file in it.
    """
    cases = sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))
    if not cases:
        what = "holds no case files (*.h5)" if folder.is_dir() else "is not a folder"
        raise NoUsableSeriesError(f"{folder}: {what}; make a database with ctmar simulate")
    return cases


def case_files(source: Path) -> list[Path]:
    """Those of a database, see `list_cases`, or the one file that is given."""
    return [source] if source.is_file() else list_cases(source)


def write_index(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write `index.csv`: `INDEX_COLUMNS`, then whatever else the first row has, one line a case."""
    extra = [name for name in (rows[0] if rows else {}) if name not in INDEX_COLUMNS]
    with replacing(folder / "index.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*INDEX_COLUMNS, *extra], restval="")
        writer.writeheader()
        writer.writerows(rows)


def read_index(folder: Path) -> list[dict[str, str]]:
    """Read what `write_index` wrote.

    Raises
    ------
    NoUsableSeriesError
        Where the folder has no index.
    """
    try:
        with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise NoUsableSeriesError(f"{folder}: has no readable index.csv; is it a ctmar database?") from None


class _Unusable(Exception):
    """What is wrong with a case file, as the end of a sentence that begins with its name."""


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """An open case file; whatever h5py and our checks object to becomes one clear error."""
    if not path.is_file():
        raise UnsupportedInputError(f"{path}: there is no such case file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except _Unusable as error:
        raise UnsupportedInputError(f"{path}: {error}") from None
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, OverflowError):
        # h5py's own texts are about the library's insides; every one of them means the same to a user.
        raise UnsupportedInputError(f"{path}: is no HDF5 case file, or is truncated or damaged") from None


def _info(file: h5py.File) -> CaseInfo:
    if _text(file, "format") != FORMAT:
        raise _Unusable(f"is not a case file (its attribute format is not {FORMAT!r})")
    if _number(file, "version") != VERSION:
        raise _Unusable(f"is of another version than {VERSION}; use the ctmar that wrote it")
    mu_water = _number(file, "mu_water_per_mm")
    if not (mu_water is not None and MU_WATER_RANGE_PER_MM[0] <= mu_water <= MU_WATER_RANGE_PER_MM[1]):
        raise _Unusable("has no plausible attribute mu_water_per_mm (expected about 0.02)")
    try:
        geometry = geometry_from_dict(json.loads(_text(file, "geometry")))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _Unusable(f"has no usable attribute geometry: {error}") from None
    try:
        grid_values = json.loads(_text(file, "image_grid"))
        rows, cols, pixel_mm = (grid_values[name] for name in ("rows", "cols", "pixel_mm"))
        grid = ImageGrid(int(rows), int(cols), float(pixel_mm))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise _Unusable("has no usable attribute image_grid (rows, cols, pixel_mm)") from None
    views, bins = geometry.shape
    if max(views, bins) > MAX_SINOGRAM_SIDE or views * bins > MAX_SINOGRAM_SAMPLES:
        raise _Unusable(f"has a sinogram of {views} x {bins}, more than is supported")
    sizes = [abs(value) for value in (*asdict(geometry).values(), *asdict(grid).values()) if value]
    if not LEAST_MM <= min(sizes) <= max(sizes) <= MOST_MM:
        raise _Unusable(f"has a geometry with values beyond {LEAST_MM:g} to {MOST_MM:g} mm")
    if max(grid.shape) > MAX_IMAGE_SIDE:
        raise _Unusable(f"has images of {grid.rows} x {grid.cols}, more than {MAX_IMAGE_SIDE} a side")
    seed = _number(file, "seed")
    return CaseInfo(
        geometry=geometry,
        grid=grid,
        mu_water_per_mm=mu_water,
        seed=None if seed is None else int(seed),
        **{name: _text(file, name) for name in ("implant", "material", "patient", "source")},
    )


def _text(file: h5py.File, name: str) -> str:
    """An attribute as text, "" where it is missing."""
    value = file.attrs.get(name, "")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value)


def _number(file: h5py.File, name: str) -> float | None:
    """An attribute as a finite number, None where it is missing."""
    value = file.attrs.get(name)
    if value is None:
        return None
    if not (np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.number) and np.isfinite(value)):
        raise _Unusable(f"has an attribute {name} that is not a number")
    return float(value)


def _array(file: h5py.File, name: str, shape: tuple[int, int]) -> Image | None:
    """A dataset of this very file as float32, None where it is missing."""
    dataset = _member(file, name)
    if dataset is None:
        return None
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise _Unusable(f"has a {name} that is not a plain dataset of the file itself")
    if dataset.shape != shape:
        raise _Unusable(f"has a {name} of shape {dataset.shape} where its attributes say {shape}")
    if dataset.dtype.kind not in "fiu":
        raise _Unusable(f"has a {name} that is not numbers")
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite and is refused below
        array: Image = dataset[()].astype(np.float32)
    if not np.isfinite(array).all():
        raise _Unusable(f"has values in {name} that are not finite")
    return array


def _mask(file: h5py.File, name: str, shape: tuple[int, int]) -> Mask | None:
    array = _array(file, name, shape)
    return None if array is None else array > 0


def _images(file: h5py.File, folder: str, shape: tuple[int, int]) -> dict[str, Image]:
    group = _member(file, folder)
    if group is None:
        return {}
    if not isinstance(group, h5py.Group) or len(group) > MAX_IMAGES:
        raise _Unusable(f"has a {folder} that is not a group of at most {MAX_IMAGES} images")
    found = ((name, _array(file, f"{folder}/{name}", shape)) for name in group)
    return {name: image for name, image in found if image is not None}


def _member(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    """An object reached by hard links only: others could lead into any file that the user may read."""
    node: Any = file
    for part in name.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise _Unusable(f"has a {name} that is a link")
        node = node[part]
    return node
