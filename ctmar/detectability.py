"""Low-contrast lesions beside the metal: which method lets them be seen?

After the idea of Annex GG that is proposed for IEC 60601-2-44 (task-based assessment of metal artifact reduction)
and of Vaishnav et al. [1]_: discs of low contrast are put beside the metal, and a model observer (`ctmar.observer`)
tells images with them from images without. A small RMSE does not say that: a method may smooth a lesion away.

The disc's line integrals are added to those of the case, which is exact for what the detector would have measured
except for the disc's own noise and beam hardening; both are negligible at tens of HU. The observer knows the anatomy:
it sees images less the reference without lesion, so that it has to do with noise and artifacts alone, as in the uniform
phantoms of the standard.

References
----------
.. [1] Vaishnav et al., "CT metal artifact reduction algorithms: Toward a framework for objective performance
   assessment", Medical Physics 47(8):3344-3355, 2020.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctmar.case_correction import PATHS, correction_of_cases
from ctmar.database import Case, case_files, read_case
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError
from ctmar.evaluation import path_images
from ctmar.method_names import METHODS, usable
from ctmar.methods import Restorer
from ctmar.metrics import SOFT_TISSUE_HU, body_mask
from ctmar.observer import channel_outputs, observe
from ctmar.segmentation import dilate
from data_sim.projection import Projector
from data_sim.scanner import KERNEL
from data_sim.units import mu_to_hu

Tell = Callable[[int, int], None]
Place = tuple[int, int]


@dataclass(frozen=True)
class Lesions:
    """What is put where.

    Parameters
    ----------
    radius_mm, contrast_hu
        Of the discs.
    clearance_mm, reach_mm
        Their edge is at least the one and at most the other from the metal.
    most
        Lesions in a case, two diameters or more apart.
    """

    radius_mm: float = 4.0
    contrast_hu: float = 30.0
    clearance_mm: float = 2.0
    reach_mm: float = 20.0
    most: int = 4

    def __post_init__(self) -> None:
        if not (self.radius_mm > 0 and self.most > 0 and 0 <= self.clearance_mm < self.reach_mm):
            raise ValueError("radius and number must be positive, and the clearance smaller than the reach")


def detectability(
    source: Path,
    lesions: Lesions,
    *,
    methods: Sequence[str] = METHODS,
    restorer: Restorer | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Tell | None = None,
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """How well an observer finds lesions beside the metal in each method's images, on both paths.

    Parameters
    ----------
    source
        Folder of case files, or one of them.
    lesions
        What is put where.
    methods, restorer, device
        As in an evaluation; without a network the methods that need one are left out. The row ``limit`` is the trace
        replaced with the reference, lesion included, as prior.
    seed
        Of the places and folds.

    Returns
    -------
    rows
        For each path and method: path, method, contrast_hu, radius_mm, then the fields of
        `ctmar.observer.Detectability`.
    skipped
        (name, reason) of cases without a place for a lesion, or that could not be read.

    Raises
    ------
    NoUsableSeriesError
        Where no case has a place for a lesion.
    """
    tell = progress or (lambda *_: None)
    outputs: dict[tuple[str, str], list[tuple[NDArray[np.float64], NDArray[np.float64], str]]] = defaultdict(list)
    skipped = []
    files = case_files(source)
    wanted = usable(methods, network=restorer is not None)
    for number, file in enumerate(files, start=1):
        try:
            case = read_case(file)
            places = choose_places(case, lesions, rng=np.random.default_rng([seed, number]))
            if places:
                images = _both(case, places, lesions, wanted, restorer, device)
                for key, pair in images.items():
                    for place in places:
                        one, other = (_outputs(image, place, case, lesions) for image in pair)
                        outputs[key].append((one, other, case.patient or file.stem))
            else:
                skipped.append((file.name, "has no room for a lesion in soft tissue beside the metal"))
        except UnsupportedInputError as error:
            skipped.append((file.name, str(error)))
        tell(number, len(files))
    if not outputs:
        raise NoUsableSeriesError(f"{source}: no case has room for a lesion in soft tissue beside the metal.")
    rows = []
    for (path, method), found in outputs.items():
        present, absent, patients = zip(*found, strict=True)
        result = observe(np.stack(present), np.stack(absent), patients, seed=seed)
        labels = {"path": path, "method": method, "contrast_hu": lesions.contrast_hu, "radius_mm": lesions.radius_mm}
        rows.append({**labels, **vars(result)})
    return rows, skipped


def choose_places(case: Case, lesions: Lesions, *, rng: np.random.Generator) -> list[Place]:
    """Centres (row, column) at which a lesion has room in soft tissue beside the metal; none where there is no room.

    Raises
    ------
    UnsupportedInputError
        Where the case has no reference image or no metal mask.
    """
    reference_hu, metal, pixel_mm = case.images.get("reference"), case.mask_metal, case.grid.pixel_mm
    if reference_hu is None or metal is None:
        raise UnsupportedInputError("has no reference image or no metal mask")
    body = case.mask_body if case.mask_body is not None else body_mask(reference_hu)
    smooth = ndimage.gaussian_filter(reference_hu, 1.0)
    soft = body & ~metal & (smooth > SOFT_TISSUE_HU[0]) & (smooth < SOFT_TISSUE_HU[1])
    from_metal = ndimage.distance_transform_edt(~metal, sampling=pixel_mm) - lesions.radius_mm
    in_tissue = ndimage.distance_transform_edt(soft, sampling=pixel_mm) > lesions.radius_mm
    room = in_tissue & (from_metal >= lesions.clearance_mm) & (from_metal <= lesions.reach_mm)
    candidates = rng.permutation(np.argwhere(room)) if metal.any() else np.empty((0, 2), int)
    places: list[Place] = []
    apart = 4 * lesions.radius_mm / pixel_mm
    for row, col in candidates:
        if all(np.hypot(row - other[0], col - other[1]) >= apart for other in places):
            places.append((int(row), int(col)))
        if len(places) == lesions.most:
            break
    return places


def with_lesions(case: Case, places: Sequence[Place], lesions: Lesions, projector: Projector) -> Case:
    """The case as if there were lesions: its sinogram and its reference image."""
    rows, cols = np.indices(case.grid.shape)
    discs = np.zeros(case.grid.shape, np.float32)
    radius_px = lesions.radius_mm / case.grid.pixel_mm
    for row, col in places:
        discs[np.hypot(rows - row, cols - col) <= radius_px] = 1
    change = projector.forward(discs[None] * np.float32(lesions.contrast_hu / 1000 * case.mu_water_per_mm))[0]
    change_hu = projector.fbp(change, window=KERNEL) * np.float32(1000 / case.mu_water_per_mm)
    images = {**case.images, "reference": case.images["reference"] + change_hu}
    return replace(case, sinogram_metal=case.sinogram_metal + change, images=images)


def _both(
    case: Case,
    places: Sequence[Place],
    lesions: Lesions,
    methods: Sequence[str],
    restorer: Restorer | None,
    device: str,
) -> Mapping[tuple[str, str], tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Images with and without lesions, made in the same way, by path and method."""
    projector = Projector(case.geometry, case.grid, device=device)
    pairs: dict[tuple[str, str], list[NDArray[np.floating]]] = defaultdict(list)
    for one in (with_lesions(case, places, lesions, projector), case):
        bare = _bare(one, projector)
        for path in PATHS:
            correction, known = correction_of_cases([bare], path, restorer, projector)
            for method, stack in path_images([bare], path, methods, correction, known).items():
                pairs[path, method].append(stack[0])
    return {key: (present, absent) for key, (present, absent) in pairs.items()}


def _bare(case: Case, projector: Projector) -> Case:
    """The case without images that others have made: all come from the sinogram."""
    uncorrected_hu = mu_to_hu(projector.fbp(case.sinogram_metal, window=KERNEL), case.mu_water_per_mm)
    images = {"reference": case.images["reference"]}
    return replace(case, images=images, dicom_images={"uncorrected": uncorrected_hu})


def _outputs(image: NDArray[np.floating], place: Place, case: Case, lesions: Lesions) -> NDArray[np.float64]:
    # what the channels see of the metal is no lesion, but would be most of what differs between places
    unknown_hu = np.where(dilate(np.asarray(case.mask_metal)), 0, image - case.images["reference"])
    return channel_outputs(unknown_hu, place, pixel_mm=case.grid.pixel_mm, width_mm=2.5 * lesions.radius_mm)
