"""The files that a DICOMDIR lists (PS3.3 annex F, PS3.10 section 8): only ever files below its own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import MediaStorageDirectoryStorage

from ctmar.dicom.source import (
    MAX_IMAGE_BYTES,
    PARSE_ERRORS,
    SourceFile,
    open_file,
    quiet_pydicom,
    read_dataset,
)
from ctmar.errors import UnsupportedInputError

MAX_RECORDS = 200_000

_TAGS = ["DirectoryRecordSequence"]


def is_dicomdir(path: Path) -> bool:
    """Whether this is a DICOM file that says it is a directory of others."""
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError:
        return False
    return head[128:132] == b"DICM" and f"{MediaStorageDirectoryStorage}".encode() in head


def listed_contents(path: Path) -> Iterator[tuple[SourceFile, BinaryIO | str]]:
    """Every file that a DICOMDIR lists, in its order, as `ctmar.dicom.source.contents` gives those of a folder.

    In place of the stream stands a phrase for what is missing, or named outside the folder of the DICOMDIR.

    Raises
    ------
    UnsupportedInputError
        Where the DICOMDIR is damaged or lists more than `MAX_RECORDS`.
    """
    folder = path.parent
    for parts in _file_ids(path):
        shown = SourceFile(folder.joinpath(*(part.replace("/", "?") for part in parts)))
        if not all(_is_plain_name(part) for part in parts):
            yield shown, "its name in the DICOMDIR points outside its folder"
            continue
        found = _locate(folder, parts)
        if found is None:
            yield shown, "named in the DICOMDIR but missing"
        elif not found.resolve().is_relative_to(folder.resolve()):
            yield shown, "its name in the DICOMDIR points outside its folder"
        else:
            file, stream = open_file(found)
            yield file, stream
            if not isinstance(stream, str):
                stream.close()


def _file_ids(path: Path) -> list[tuple[str, ...]]:
    """Referenced File IDs, each once."""
    try:
        with SourceFile(path).open(most_bytes=MAX_IMAGE_BYTES) as stream, quiet_pydicom():
            records = read_dataset(stream, tags=_TAGS).get("DirectoryRecordSequence") or []
            if len(records) > MAX_RECORDS:
                raise UnsupportedInputError(f"{path}: lists more than {MAX_RECORDS} files; give a folder of them.")
            found = [record.get("ReferencedFileID") for record in records]
    except PARSE_ERRORS as error:
        raise UnsupportedInputError(
            f"{path}: the DICOMDIR is damaged ({type(error).__name__}); give the folder that it lies in."
        ) from None
    ids = [(value,) if isinstance(value, str) else tuple(str(part) for part in value) for value in found if value]
    return list(dict.fromkeys(ids))


def _is_plain_name(part: str) -> bool:
    """Whether it is the name of a file or folder and nothing that leads elsewhere, on any system."""
    return part not in {"", ".", ".."} and not set(part) & set("/\\:\0")


def _locate(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """The file, in capitals or not: media written in capitals are often copied or mounted in small letters."""
    for part in parts:
        exact = folder / part
        if not exact.exists():
            try:
                alike = sorted(p for p in folder.iterdir() if p.name.rstrip(".").casefold() == part.casefold())
            except OSError:
                return None
            if not alike:
                return None
            exact = alike[0]
        folder = exact
    return folder
