"""Where DICOM files come from: a folder, one file, or a zip archive, which is never unpacked to disk."""

from __future__ import annotations

import io
import logging
import math
import os
import stat
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ctmar.dicom.items import ItemCounter, check_items
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError

MAX_FILE_BYTES = 2 * 2**30
"""Largest file, and largest inflated data set: 4000 frames of 512 x 512 pixels in one object."""

MAX_IMAGE_BYTES = 256 * 2**20
"""Largest file of a single image: four times the largest image that is accepted."""

MAX_RATIO = 30
"""What is larger than one image may not be packed tighter: CT deflates to a third, what fills memory a thousandfold."""

MAX_ARCHIVE_BYTES = 16 * 2**30
MAX_ARCHIVE_MEMBERS = 20_000

PARSE_ERRORS = (
    AttributeError,
    BytesLengthException,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What pydicom and zipfile raise on damaged or hostile files."""

_HEAD_BYTES = 132

_quiet_lock = threading.Lock()
_quiet_depth = 0
_loud = ExitStack()
"""What takes back the change, while `_quiet_depth` threads and blocks are in it."""

_logger = logging.getLogger("pydicom")
_EARLIEST_GROUPS = (b"\x02\x00", b"\x08\x00")


@dataclass(frozen=True, order=True)
class SourceFile:
    """A file on disk, or a member of a zip archive.

    ``member`` is only ever looked up inside the archive, never used as a path.
    """

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """What messages call the file, with unprintable characters replaced."""
        name = str(self.path) if self.member is None else f"{self.path}:{self.member}"
        return "".join(c if c.isprintable() else "?" for c in name)

    def __reduce__(self) -> tuple[type[SourceFile], tuple[Path, str | None]]:
        """As another process finds it, whose current folder may be another one."""
        return SourceFile, (self.path.absolute(), self.member)

    def open(self, *, most_bytes: int | None = None) -> BinaryIO:
        """Open the file for reading; a member of an archive is inflated into memory first.

        Raises
        ------
        UnsupportedInputError
            If the file is gone, damaged or larger than `most_bytes` (unless given, `MAX_FILE_BYTES`).
        """
        most = MAX_FILE_BYTES if most_bytes is None else most_bytes
        try:
            if self.member is None:
                if self.path.stat().st_size > most:
                    raise UnsupportedInputError(f"{self.name}: larger than {most >> 20} MiB.")
                return self.path.open("rb")
            with zipfile.ZipFile(self.path) as archive:
                return _inflate(archive, archive.getinfo(self.member))
        except (OSError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise UnsupportedInputError(
                f"{self.name}: cannot be opened ({type(error).__name__}); fetch it again from its source."
            ) from error


def contents(source: Path) -> Iterator[tuple[SourceFile, BinaryIO | str]]:
    """Every file of a folder (recursively), a file, or a zip archive, in the order of their names.

    Yields
    ------
    file, stream
        The stream is open at its start and closed by this generator; in its place stands a sentence
        without a stop for what is not a DICOM file or cannot be read.

    Raises
    ------
    NoUsableSeriesError
        If there is no such file or folder.
    UnsupportedInputError
        If a zip archive is damaged or too large.
    """
    if source.is_dir():
        yield from _folder(source)
    elif not source.exists():
        raise NoUsableSeriesError(f"{source}: no such file or folder.")
    elif _is_zip(source):
        yield from _archive(source)
    else:
        yield open_file(source)


def read_dataset(stream: BinaryIO, *, tags: list[str] | None = None, pixels: bool = True) -> FileDataset:
    """Parse a DICOM file; with `tags`, only these attributes; with `tags` or without `pixels`, nothing from these on.

    Raises
    ------
    One of `PARSE_ERRORS`
        If the file is damaged, inflates beyond bounds or holds more sequence items than any image.
    """
    check_items(stream)
    _check_deflated(stream)
    with quiet_pydicom():
        stop = tags is not None or not pixels
        return pydicom.dcmread(stream, force=True, stop_before_pixels=stop, specific_tags=tags)


def optional_number(dataset: Dataset, keyword: str) -> float | None:
    """A numeric attribute that can be done without, or None where it is absent, malformed or several."""
    try:
        number = float(dataset[keyword].value)
    except PARSE_ERRORS:
        return None
    return number if math.isfinite(number) else None


def optional_text(dataset: Dataset, keyword: str) -> str:
    """A text that can be done without, "" where it is absent or malformed."""
    try:
        return str(dataset.get(keyword) or "")
    except PARSE_ERRORS:
        return ""


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings to itself: odd values are common and harmless, and its texts quote them.

    Filters of warnings belong to the process, so that threads which are in here at the same time share one change.
    """
    global _quiet_depth  # noqa: PLW0603
    with _quiet_lock:
        if not _quiet_depth:
            _loud.callback(setattr, _logger, "disabled", _logger.disabled)
            _loud.enter_context(warnings.catch_warnings())
            _logger.disabled = True
            warnings.simplefilter("ignore")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if not _quiet_depth:
                _loud.close()


def _folder(folder: Path) -> Iterator[tuple[SourceFile, BinaryIO | str]]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file, stream = open_file(Path(root, name))
            yield file, stream
            if not isinstance(stream, str):
                stream.close()


def open_file(path: Path) -> tuple[SourceFile, BinaryIO | str]:
    """A file with its open stream, or in its place a phrase that says why it is none of DICOM."""
    file = SourceFile(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return file, "not a regular file"
        stream = file.open()
        head = stream.read(_HEAD_BYTES)
    except (OSError, UnsupportedInputError):
        return file, f"cannot be opened or is larger than {MAX_FILE_BYTES >> 20} MiB"
    if not _looks_like_dicom(head):
        stream.close()
        return file, "a zip archive inside a folder" if head[:4] == b"PK\x03\x04" else "not a DICOM file"
    stream.seek(0)
    return file, stream


def _archive(path: Path) -> Iterator[tuple[SourceFile, BinaryIO | str]]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UnsupportedInputError(f"{path}: the zip archive is damaged; download or pack it again.") from error
    with archive:
        members = sorted((m for m in archive.infolist() if not m.is_dir()), key=lambda m: m.filename)
        if len(members) > MAX_ARCHIVE_MEMBERS or sum(m.file_size for m in members) > MAX_ARCHIVE_BYTES:
            raise UnsupportedInputError(
                f"{path}: more than {MAX_ARCHIVE_MEMBERS} files or {MAX_ARCHIVE_BYTES >> 30} GiB in one zip "
                "archive; unpack the series that is meant and give its folder."
            )
        for member in members:
            file = SourceFile(path, member.filename)
            if _leaves_archive(member.filename):
                yield file, "its name points outside the archive"
                continue
            try:
                with archive.open(member) as stream:
                    head = stream.read(_HEAD_BYTES)
                yield file, _inflate(archive, member) if _looks_like_dicom(head) else "not a DICOM file"
            except (*PARSE_ERRORS, RuntimeError):  # RuntimeError: encrypted
                yield file, "a damaged, encrypted or too large member of the archive"


def _inflate(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> io.BytesIO:
    # zipfile stops at the size the directory declares, so a declared size within bounds binds.
    if _is_bomb(member.file_size, member.compress_size):
        raise zipfile.BadZipFile("too large")
    return io.BytesIO(archive.read(member))


def _is_bomb(size: int, packed: int) -> bool:
    return size > MAX_FILE_BYTES or (size > MAX_IMAGE_BYTES and size > MAX_RATIO * packed)


def _leaves_archive(name: str) -> bool:
    windows = PureWindowsPath(name)
    return ".." in windows.parts or bool(windows.anchor) or PurePosixPath(name).is_absolute()


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            # a truncated archive has lost its directory, but not its beginning
            return not _looks_like_dicom(head) and (head[:4] == b"PK\x03\x04" or zipfile.is_zipfile(stream))
    except OSError:
        return False


def _looks_like_dicom(head: bytes) -> bool:
    """PS3.10 section 7.1; also old files without preamble, which begin with group 0008 (or 0002) at once."""
    if head[128:132] == b"DICM":
        return True
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    implicit = head[6:8] == b"\x00\x00"
    return len(head) == _HEAD_BYTES and head[:2] in _EARLIEST_GROUPS and (explicit or implicit)


def _check_deflated(stream: BinaryIO) -> None:
    """Refuse a deflated data set (PS3.5 section A.5) that would inflate beyond bounds."""
    head = stream.read(4096)
    stream.seek(0)
    # The file meta group says its own length in its first element (PS3.10 table 7.1-1).
    start = 144 + int.from_bytes(head[140:144], "little")
    if head[128:132] != b"DICM" or str(DeflatedExplicitVRLittleEndian).encode() not in head[:start]:
        return
    packed = stream.seek(0, os.SEEK_END) - start
    stream.seek(start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated, items = 0, ItemCounter()
    chunk = stream.read(65536)
    while chunk and not inflater.eof:
        block = inflater.decompress(chunk, 2**22)
        inflated += len(block)
        items.add(block)
        if _is_bomb(inflated, packed):
            raise ValueError("inflates beyond bounds")
        chunk = inflater.unconsumed_tail or stream.read(65536)
    stream.seek(0)
