"""What a first network has made of the cases that a second one learns from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctmar.case_correction import batches, correction_of_cases
from ctmar.database import Image, read_case
from ctmar.errors import UnsupportedInputError
from ctmar.method_names import DEFAULT_METHOD
from ctmar.methods import Restorer
from data_sim.projection import Projector

_PATHS = {"image": "raw", "dicom_path": "dicom"}


def results_of_first(
    cases: Sequence[Path], folders: Sequence[str], first: Restorer
) -> dict[Path, dict[str, Image] | UnsupportedInputError]:
    """Images of `cnn-mar` by case and folder of its file, HU, or why there are none; cases of one geometry together."""
    results: dict[Path, dict[str, Image] | UnsupportedInputError] = {}
    for batch in batches(cases, []):  # of what is left out here, no image can be read either
        loaded = {}
        for path in batch:
            try:
                loaded[path] = read_case(path)
            except UnsupportedInputError as error:
                results[path] = error
        if not loaded:
            continue
        some = next(iter(loaded.values()))
        projector = Projector(some.geometry, some.grid)
        corrections = (correction_of_cases([*loaded.values()], _PATHS[name], first, projector)[0] for name in folders)
        images = [correction.image(DEFAULT_METHOD) for correction in corrections]
        results |= {path: dict(zip(folders, one, strict=True)) for path, *one in zip(loaded, *images, strict=True)}
    return results
