"""RMSE, SSIM and the clinical metrics of every method on every case of a database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from ctmar.blending import blend
from ctmar.case_correction import PATHS, batches_of_files, correction_of_cases
from ctmar.challenge import challenge_metrics, regions
from ctmar.config import UseSettings
from ctmar.database import Case, case_files, read_case, read_info
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError
from ctmar.files import write_csv
from ctmar.method_names import BLENDED, DEFAULT_METHOD, LIMIT, NEEDS_NETWORK, known_methods, usable
from ctmar.methods import Correction, Restorer
from ctmar.metrics import body_mask, clinical_metrics, evaluate_image
from ctmar.weights import ModelCard
from ctmar.workings import Workings, workings_of
from data_sim.projection import Projector

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Variant:
    """A further network, or another use of one, to score beside the rest as ``METHOD@NAME``."""

    restorer: Restorer
    use: UseSettings
    methods: tuple[str, ...] = NEEDS_NETWORK


def variants_of(models: Mapping[str, Restorer], *, ablation: bool) -> dict[str, Variant]:
    """What to score beside the first of the models: the others, and with `ablation` each model's other prior.

    The ablation is that of Zhang & Yu 2018, figure 11: the trace replaced from the network's image itself where the
    model has tissue processing, and from the tissue-processed image where it has none.
    """
    others = {name: Variant(restorer, restorer.use) for name, restorer in list(models.items())[1:]}
    for name, restorer in models.items() if ablation else ():
        prior: Literal["tissue", "image"] = "image" if restorer.use.prior == "tissue" else "tissue"
        others[f"{name}, {prior} as prior"] = Variant(restorer, UseSettings(prior=prior), ("cnn-mar",))
    return others


def evaluate(
    source: Path,
    *,
    restorer: Restorer | None = None,
    variants: Mapping[str, Variant] = MappingProxyType({}),
    device: str = "auto",
    progress: Tell | None = None,
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Score every method on every case of a folder, on both paths.

    Images that a case holds are taken as they are; the others are computed. Names in `image/` that are no method of
    ours are scored too, so that another tool's images can be put beside them.

    Parameters
    ----------
    source
        Folder of case files, or one of them.
    restorer
        The network; without one the methods that need it are left out.
    variants
        More to score, by name, see `variants_of`.

    Returns
    -------
    rows
        For each case, path and method: case, path, method, rmse_hu, rmse_body_hu, ssim, streak_hu, bone_dice, those of
        `ctmar.challenge.challenge_metrics`, then what is known of the case: patient (a number that means nothing
        outside of these rows; None where unknown), implant, material, metal_mm2.
    skipped
        (name, reason) of files that could not be scored.

    Raises
    ------
    NoUsableSeriesError
        Where there is no case with a reference image.
    """
    tell = progress or (lambda *_: None)
    files = case_files(source)
    rows: list[dict[str, Any]] = []
    skipped: list[tuple[str, str]] = []
    done = 0
    for batch in batches_of_files(files, skipped):
        cases = {}
        for path in batch:
            try:
                cases[path.stem] = _checked(read_case(path))
            except UnsupportedInputError as error:
                skipped.append((path.name, str(error)))
        if cases:
            rows += _evaluate_batch(cases, restorer, variants, device)
        done += len(batch)
        tell(done, len(files))
    if not rows:
        raise NoUsableSeriesError(f"{source}: no case with a reference image and a metal mask to compare with.")
    return sorted(_numbered(rows), key=lambda row: row["case"]), skipped


def write_results(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write metrics.json and metrics.csv."""
    (folder / "metrics.json").write_text(json.dumps(without_nan(rows), indent=1), encoding="utf-8")
    write_csv(rows, folder / "metrics.csv")


def without_nan(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for JSON, which has no NaN: what could not be measured is None."""
    return [{k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()} for row in rows]


@dataclass(frozen=True, eq=False)
class ShownCase:
    """A case to show: images in HU by name, (rows, cols), as `evaluate` scores them, and what led to one of them."""

    images_hu: Mapping[str, np.ndarray]
    reference_hu: np.ndarray
    metal: np.ndarray
    workings: Workings


def shown_case(
    path: Path,
    *,
    methods: Sequence[str],
    kind: str = "raw",
    restorer: Restorer | None = None,
    device: str = "auto",
) -> ShownCase:
    """One case with the images of some methods, and the workings of the last of them.

    Parameters
    ----------
    path
        Case file.
    methods
        Their names; one that the case lacks and nothing here computes is left out.
    kind
        ``raw`` or ``dicom``.

    Raises
    ------
    UnsupportedInputError
        Where the case cannot be scored.
    """
    case = _checked(read_case(path))
    projector = Projector(case.geometry, case.grid, device=device)
    correction, known = correction_of_cases([case], kind, restorer, projector)
    wanted = [method for method in usable(known_methods(), network=restorer is not None) if method in methods]
    stacks = path_images([case], kind, wanted, correction, known)
    images = {name: stacks[name][0] for name in methods if name in stacks}
    metal = np.asarray(case.mask_metal)
    return ShownCase(images, case.images["reference"], metal, workings_of(correction, methods[-1])[0])


def trained_on(source: Path, card: ModelCard) -> list[str]:
    """Patients of a database that a model has seen in training or in choosing its weights."""
    patients = set()
    for path in case_files(source):
        with suppress(UnsupportedInputError):  # `evaluate` has reported it
            patients.add(read_info(path).patient)
    return sorted(patients & card.patients_seen)


def _numbered(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with numbers for patients: results are passed on, pseudonyms stay in the database."""
    numbers = {name: number for number, name in enumerate(sorted({row["patient"] for row in rows} - {""}), start=1)}
    return [{**row, "patient": numbers.get(row["patient"])} for row in rows]


def _checked(case: Case) -> Case:
    if "reference" not in case.images or case.mask_metal is None or "uncorrected" not in case.images:
        raise UnsupportedInputError("has no reference image, uncorrected image or metal mask to compare with")
    return case


def _evaluate_batch(
    cases: Mapping[str, Case], restorer: Restorer | None, variants: Mapping[str, Variant], device: str
) -> list[dict[str, Any]]:
    batch = list(cases.values())
    projector = Projector(batch[0].geometry, batch[0].grid, device=device)
    methods = usable(known_methods(), network=restorer is not None)
    stacks = {}
    for path in PATHS:
        correction, stored = correction_of_cases(batch, path, restorer, projector)
        stacks[path] = path_images(batch, path, methods, correction, stored, variants)
    rows = []
    for index, (name, case) in enumerate(cases.items()):
        reference_hu, metal, pixel_mm = case.images["reference"], np.asarray(case.mask_metal), case.grid.pixel_mm
        body = case.mask_body if case.mask_body is not None else body_mask(reference_hu)
        # of the raw data on both paths, so that methods are measured at the same places everywhere
        where = regions(reference_hu, stacks["raw"]["uncorrected"][index], metal, body, pixel_mm=pixel_mm)
        area_mm2 = round(float(np.count_nonzero(metal)) * pixel_mm**2, 2)
        known = {"patient": case.patient, "implant": case.implant, "material": case.material, "metal_mm2": area_mm2}
        for path in PATHS:
            for method, stack in stacks[path].items():
                images = (stack[index], reference_hu, metal)
                scores = evaluate_image(*images, body) | clinical_metrics(*images, pixel_mm=pixel_mm)
                scores |= challenge_metrics(*images, body, where)
                rows.append({"case": name, "path": path, "method": method, **scores, **known})
    return rows


def path_images(
    cases: Sequence[Case],
    path: str,
    methods: Sequence[str],
    correction: Correction,
    known: Mapping[str, np.ndarray],
    variants: Mapping[str, Variant] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """Stacks in HU by name: the methods, those of the variants, what is `known` besides, and the limit.

    Also the default method as `ctmar correct` puts it into the image, see `ctmar.blending`.
    """
    images = {name: stack for name, stack in known.items() if name not in known_methods() or path == "raw"}
    computed = correction.images(methods)  # first: what variants share with them is then there
    varied = {
        f"{method}@{name}": stack
        for name, variant in variants.items()
        for method, stack in correction.using(variant.restorer, variant.use).images(variant.methods).items()
    }
    if DEFAULT_METHOD in computed:
        parts = (correction.uncorrected_hu, computed[DEFAULT_METHOD], correction.metal)
        fallback_hu = correction.fallback_hu(DEFAULT_METHOD)
        computed[BLENDED] = blend(*parts, pixel_mm=cases[0].grid.pixel_mm, fallback_hu=fallback_hu)
    reference_hu = np.stack([case.images["reference"] for case in cases])
    return {**computed, **varied, **images, LIMIT: correction.replace_with_prior(reference_hu)}
