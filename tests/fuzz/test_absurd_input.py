"""Small files that promise to be enormous: refused at once, with little memory, and nothing left behind."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.fuzz import target
from tests.fuzz.elements import DicomFile, Element, encode, file_bytes, parse_file
from tests.fuzz.seeds import Seed, make_seeds

MIB = 150
SECONDS = 15.0
HUGE = 65535
ROWS, COLS, FRAMES = b"\x28\x00\x10\x00", b"\x28\x00\x11\x00", b"\x28\x00\x08\x00"
BITS, PIXELS, SYNTAX = b"\x28\x00\x00\x01", b"\xe0\x7f\x10\x00", b"\x02\x00\x10\x00"
U16 = struct.Struct("<H")


@pytest.fixture(scope="module")
def seeds() -> dict[str, Seed]:
    pytest.importorskip("highdicom")
    pytest.importorskip("nibabel")
    return make_seeds()


def refused(seed: Seed, folder: Path) -> str:
    """The sentence with which it is refused."""
    outcome = target.run(seed, folder / "absurd")
    assert not outcome.failed, f"{outcome.kind}\n{outcome.detail}"
    assert outcome.kind != "success", outcome.detail
    assert outcome.peak_mib < MIB
    assert outcome.seconds < SECONDS
    return outcome.detail


def with_elements(seed: Seed, *elements: tuple[bytes, bytes, bytes]) -> Seed:
    """The same seed with other values in all of its files."""

    def changed(content: bytes) -> bytes:
        file = parse_file(content)
        new = {tag: Element(tag, vr, value) for tag, vr, value in elements}
        body = [new.pop(e.tag, e) for e in file.body] + list(new.values())
        return file_bytes(DicomFile(file.preamble, file.meta, sorted(body, key=lambda e: e.number)))

    return Seed({name: changed(content) for name, content in seed.files.items()}, seed.source, seed.flags)


def with_code_stream(seed: Seed, marker: bytes, offset: int, values: bytes) -> Seed:
    """The same seed with other numbers in its code streams, behind a marker."""

    def changed(content: bytes) -> bytes:
        data = bytearray(content)
        at = data.index(marker, data.rindex(PIXELS)) + offset
        data[at : at + len(values)] = values
        return bytes(data)

    return Seed({name: changed(content) for name, content in seed.files.items()}, seed.source, seed.flags)


@pytest.mark.parametrize("name", ["explicit", "JPEGLosslessProcess14", "RLELossless", "enhanced", "deflated"])
@pytest.mark.parametrize("side", [HUGE, 4000])
def test_rows_and_columns(seeds: dict[str, Seed], tmp_path: Path, name: str, side: int) -> None:
    refused(with_elements(seeds[name], (ROWS, b"US", U16.pack(side)), (COLS, b"US", U16.pack(side))), tmp_path)


@pytest.mark.parametrize("name", ["explicit", "enhanced", "RLELossless", "JPEG2000Lossless"])
@pytest.mark.parametrize("frames", [b"1000000000", b"2147483647", b"-1", b"1e400 ", b"0 "])
def test_number_of_frames(seeds: dict[str, Seed], tmp_path: Path, name: str, frames: bytes) -> None:
    outcome = target.run(with_elements(seeds[name], (FRAMES, b"IS", frames)), tmp_path / "absurd")
    assert not outcome.failed, f"{outcome.kind}\n{outcome.detail}"
    assert outcome.peak_mib < MIB
    assert outcome.seconds < SECONDS
    if frames.startswith((b"1000", b"2147")):
        assert outcome.kind != "success"


@pytest.mark.parametrize("bits", [0, 1, 7, 64, HUGE])
def test_bits_allocated(seeds: dict[str, Seed], tmp_path: Path, bits: int) -> None:
    refused(with_elements(seeds["explicit"], (BITS, b"US", U16.pack(bits))), tmp_path)


@pytest.mark.parametrize(
    ("name", "marker", "offset", "values"),
    [
        ("JPEG2000Lossless", b"\xff\x51", 6, struct.pack(">II", HUGE, HUGE)),
        ("JPEG2000Lossless", b"\xff\x51", 6, struct.pack(">IIIIII", HUGE, HUGE, 0, 0, HUGE, HUGE)),
        ("JPEG2000Lossless", b"\xff\x51", 22, struct.pack(">II", 0, 0)),
        ("JPEG2000Lossless", b"\xff\x51", 38, struct.pack(">H", 16384)),
        ("JPEGLosslessProcess14", b"\xff\xc3", 5, struct.pack(">HH", HUGE, HUGE)),
        ("JPEGLosslessProcess14_1", b"\xff\xc3", 5, struct.pack(">HH", HUGE, 24)),
        ("JPEGLSLossless", b"\xff\xf7", 5, struct.pack(">HH", HUGE, HUGE)),
        ("jpeg-baseline", b"\xff\xc0", 5, struct.pack(">HH", HUGE, HUGE)),
    ],
)
def test_code_streams(
    seeds: dict[str, Seed], tmp_path: Path, name: str, marker: bytes, offset: int, values: bytes
) -> None:
    """OpenJPEG would take 9 GB, and the JPEG-LS decoder ends the process."""
    assert "cannot be decoded" in refused(with_code_stream(seeds[name], marker, offset, values), tmp_path)


def test_many_tiles(seeds: dict[str, Seed], tmp_path: Path) -> None:
    """A large image in tiles of one pixel."""
    side = struct.pack(">IIIIII", 2048, 2048, 0, 0, 1, 1)
    seed = with_code_stream(seeds["JPEG2000Lossless"], b"\xff\x51", 6, side)
    seed = with_elements(seed, (ROWS, b"US", U16.pack(2048)), (COLS, b"US", U16.pack(2048)))
    assert "cannot be decoded" in refused(seed, tmp_path)


def test_a_deflated_bomb(seeds: dict[str, Seed], tmp_path: Path) -> None:
    file = parse_file(seeds["explicit"].files["0001.dcm"])
    next(e for e in file.meta if e.tag == SYNTAX).value = str(DeflatedExplicitVRLittleEndian).encode() + b"\0"
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    size = 500 * 2**20
    body = encode([e for e in file.body if e.tag != PIXELS]) + PIXELS + b"OW\0\0" + size.to_bytes(4, "little")
    packed = packer.compress(body) + b"".join(packer.compress(bytes(2**20)) for _ in range(500)) + packer.flush()
    content = _meta_only(file) + packed
    assert "damaged or truncated" in refused(Seed({"bomb.dcm": content}), tmp_path)


def _meta_only(file: DicomFile) -> bytes:
    meta = encode([e for e in file.meta if e.number != 0x00020000])
    length = Element(b"\x02\x00\x00\x00", b"UL", len(meta).to_bytes(4, "little"))
    return file.preamble + encode([length]) + meta


def test_zip_bombs(seeds: dict[str, Seed], tmp_path: Path) -> None:
    large, many, deep = io.BytesIO(), io.BytesIO(), b"x"
    with (
        zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.dcm", "w") as member,
    ):
        member.write(bytes(128) + b"DICM")
        for _ in range(300):
            member.write(bytes(2**20))
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(21_000):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    for _ in range(50):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("a.zip"), deep)
        deep = stream.getvalue()
    for content in (large.getvalue(), many.getvalue(), deep):
        refused(Seed({"source.zip": content}, source="source.zip"), tmp_path)
    assert "too large" in refused(Seed({"a.zip": large.getvalue()}, source="a.zip"), tmp_path)


def test_deep_sequences(seeds: dict[str, Seed], tmp_path: Path) -> None:
    """Of undefined length, which are parsed at once and one within the other."""
    tag = b"\x08\x00\x40\x11"
    opened = (tag + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    content = seeds["explicit"].files["0001.dcm"]
    at = content.index(b"\x10\x00\x10\x00PN")
    refused(Seed({"deep.dcm": content[:at] + opened + content[at:]}), tmp_path)


def npy(shape: str) -> bytes:
    header = f"{{'descr': '|b1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def nii(seed: bytes, *dims: int) -> bytes:
    return seed[:40] + struct.pack("<8h", len(dims), *dims, *(7 - len(dims)) * [1]) + seed[56:]


def png(side: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(stream, "PNG")
    header = b"IHDR" + struct.pack(">II", side, side) + stream.getvalue()[24:29]
    return stream.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big") + stream.getvalue()[33:]


def test_masks(seeds: dict[str, Seed], tmp_path: Path) -> None:
    volume = seeds["mask-mask.nii"].files["beside/mask.nii"]
    masks = {
        "mask-mask.npy": [npy("(1000000, 1000000, 1000000)"), npy("(" + "9, " * 40 + ")"), npy("(-1, 5)")],
        "mask-mask.nii": [nii(volume, 32767, 32767, 32767), nii(volume, 24, 24, -1)],
        "mask-mask.nii.gz": [gzip.compress(nii(volume, 32767, 32767, 2) + bytes(300 * 2**20), 1)],
        "mask-mask.png": [png(60_000), png(2**31 - 1)],
    }
    for name, contents in masks.items():
        (file,) = [f for f in seeds[name].files if f.startswith("beside/")]
        for content in contents:
            refused(Seed({**seeds[name].files, file: content}, flags=seeds[name].flags), tmp_path)


def test_volumes(seeds: dict[str, Seed], tmp_path: Path) -> None:
    volume = seeds["volume.nii"].files["volume.nii"]
    for dims in ((32767, 32767, 32767), (24, 24, 32767), (0, 24, 2), (-5, 24, 2)):
        refused(Seed({"volume.nii": nii(volume, *dims)}, source="volume.nii"), tmp_path)
    bomb = gzip.compress(nii(volume, 32767, 32767, 4) + bytes(300 * 2**20), 1)
    refused(Seed({"volume.nii.gz": bomb}, source="volume.nii.gz"), tmp_path)
