"""What a first network makes of the cases that a second one learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ctmar.case_correction import PATHS, batches_of_files, correction_of_cases
from ctmar.database import FOLDERS, Image, read_case, read_images
from ctmar.errors import UnsupportedInputError
from ctmar.method_names import DEFAULT_METHOD
from ctmar.methods import Restorer
from data_sim.projection import Projector

Source = tuple[Path, str]
"""A case file and one of its folders of images."""

Result = dict[str, Image] | str
"""The image of `cnn-mar` by its name, HU, or why there is none."""


def results_of_first(sources: Sequence[Source], names: Sequence[str], first: Restorer) -> Iterator[Result]:
    """The result for each source; those of one geometry are made together, five times as fast as one by one.

    A case that lacks one of the images `names` has none, and does not spoil those of the others. What is made and not
    yet asked for waits in memory, 1 MB for a slice of 512 x 512.
    """
    files = list(dict.fromkeys(path for path, _ in sources))
    batch_of = {path: batch for batch in batches_of_files(files, []) for path in batch}
    wanted, waiting = set(sources), dict[Source, Result]()
    for path, folder in sources:
        if path not in batch_of:
            yield "cannot be read"
            continue
        if (path, folder) not in waiting:
            batch = [one for one in batch_of[path] if (one, folder) in wanted]
            waiting |= {(one, folder): result for one, result in _of_batch(batch, folder, names, first).items()}
        yield waiting.pop((path, folder))


def _of_batch(batch: Sequence[Path], folder: str, names: Sequence[str], first: Restorer) -> dict[Path, Result]:
    results: dict[Path, Result] = {}
    loaded = {}
    for path in batch:
        try:
            read_images(path, folder=folder, names=[*names, "uncorrected"])
            loaded[path] = read_case(path)
        except UnsupportedInputError as error:
            results[path] = str(error)
    if loaded:
        cases = [*loaded.values()]
        projector = Projector(cases[0].geometry, cases[0].grid)
        correction, _ = correction_of_cases(cases, PATHS[FOLDERS.index(folder)], first, projector)
        made = correction.image(DEFAULT_METHOD)
        results |= {path: {DEFAULT_METHOD: image} for path, image in zip(loaded, made, strict=True)}
    return results
