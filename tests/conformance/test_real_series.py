"""dciodvfy, dcentvfy and dcmdump on derived images of every readable series of the shared CT data."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ctmar.dicom.derived import DerivedSeries, derive, new_uid, write_dataset
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import find_series
from ctmar.errors import UnsupportedInputError
from tests.conformance.programs import SHARED_DATA, errors, needs, needs_shared_data, output

pytestmark = [needs("dciodvfy", "dcentvfy", "dcmdump"), needs_shared_data]

OF_A_SERIES = 3
"""Slices that are tried of each: the first, the last and the middle one."""

OF_A_FOLDER = 12
ENCODINGS = SHARED_DATA / "odd" / "transfer-syntaxes"
FOLDERS = sorted(
    path
    for kind in ("clean", "metal", "odd")
    for path in (SHARED_DATA / kind).glob("*")
    if path.is_dir() and path != ENCODINGS
)


def derived(source: Path, folder: Path) -> list[tuple[Path, Path]]:
    """Some slices of every series with their derived images, every other one with changed pixels."""
    folder.mkdir()
    pairs = []
    found = find_series(source).series
    for series in found[:: max(1, len(found) // OF_A_FOLDER)]:
        new = DerivedSeries(
            uid=new_uid(), description=series.description, method="li", version="1.0", created=datetime.now(UTC)
        )
        indices = np.unique(np.linspace(0, len(series.slices) - 1, OF_A_SERIES).astype(int))
        for k, index in enumerate(indices.tolist()):
            image = read_slice(series.slices[index])
            changed = np.minimum(image.image_hu, 300) if k % 2 == 0 else None
            path = folder / f"{new.uid}-{index:04d}.dcm"
            write_dataset(derive(image, changed, series=new), path)
            pairs.append((series.slices[index].file.path, path))
    return pairs


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_no_error_that_the_source_does_not_have(tmp_path: Path, folder: Path) -> None:
    pairs = derived(folder, tmp_path / "derived")
    assert pairs
    for source, path in pairs:
        assert not errors(path) - errors(source), source.name
        assert "E:" not in output("dcmdump", "-q", path)
    if folder.name != "tcga-lung-singles":  # single slices of many patients, some with made-up identities
        complaints = set(output("dcentvfy", *(source for source, _ in pairs)).splitlines())
        assert set(output("dcentvfy", *(path for _, path in pairs)).splitlines()) <= complaints


@pytest.mark.parametrize("file", sorted(ENCODINGS.glob("CT*")), ids=lambda path: path.name[-30:])
def test_every_transfer_syntax(tmp_path: Path, file: Path) -> None:
    try:
        pairs = derived(file, tmp_path / "derived")
    except UnsupportedInputError:
        assert "JPEGProcess6_8" in file.name or "JPEGProcess10_12" in file.name  # retired, progressive and spectral
        return
    for source, path in pairs:
        assert not errors(path) - errors(source)
        dump = output("dcmdump", "-q", path)
        assert "LittleEndianExplicit" in dump
        assert "E:" not in dump
        assert "W:" not in dump
