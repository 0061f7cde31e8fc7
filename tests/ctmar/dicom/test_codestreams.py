"""Sizes in code streams, against streams made by hand from the tables of the standards."""

from __future__ import annotations

import struct

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from ctmar.dicom.codestreams import require_size


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def frame_header(rows: int, cols: int, *, marker: int = 0xC3, components: int = 1) -> bytes:
    return segment(
        marker, bytes([12]) + struct.pack(">HH", rows, cols) + bytes([components]) + b"\1\x11\0" * components
    )


def jpeg(*parts: bytes) -> bytes:
    return encapsulate([b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"])


SCAN = segment(0xDA, b"\1\1\0\1\0\0") + b"\x12\xff\x00\x34\xff\xd0\x56"


def test_a_jpeg_of_the_right_size() -> None:
    comment = segment(0xFE, b"\xff\xc3\x00\x0b\x0c" + bytes(6))  # looks like a frame header, but is a text
    for marker in (0xC0, 0xC1, 0xC3, 0xF7):
        require_size(jpeg(comment, frame_header(6, 8, marker=marker), SCAN), JPEGLosslessSV1, 6, 8, 2)
    require_size(jpeg(b"\xff\xff", frame_header(6, 8)[1:], SCAN), JPEGLosslessSV1, 6, 8, 2)  # fill bytes


@pytest.mark.parametrize(
    "parts",
    [
        (frame_header(6, 9), SCAN),
        (frame_header(0, 8), SCAN),
        (frame_header(65535, 65535), SCAN),
        (frame_header(6, 8, components=3), SCAN),
        (frame_header(65535, 65535, marker=0xDE), frame_header(6, 8), SCAN),
        (frame_header(6, 8), SCAN, frame_header(65535, 65535, marker=0xC5), SCAN),
        (SCAN,),
        (frame_header(6, 8)[:6],),
    ],
)
def test_a_jpeg_of_another_size(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="code stream"):
        require_size(jpeg(*parts), JPEGLSLossless, 6, 8, 2)


def jpeg_2000(*values: int, components: int = 1) -> bytes:
    size = struct.pack(">H8IH", 0, *values, components) + b"\x0b\1\1" * components
    return encapsulate([b"\xff\x4f" + segment(0x51, size) + b"\xff\x90" + bytes(30)])


@pytest.mark.parametrize("values", [(8, 6, 0, 0, 8, 6, 0, 0), (8, 6, 0, 0, 4, 4, 0, 0), (10, 9, 2, 3, 64, 64, 1, 0)])
def test_a_jpeg_2000_of_the_right_size(values: tuple[int, ...]) -> None:
    require_size(jpeg_2000(*values), JPEG2000Lossless, 6, 8, 2)


@pytest.mark.parametrize(
    "values",
    [
        (9, 6, 0, 0, 9, 6, 0, 0),
        (65535, 65535, 0, 0, 65535, 65535, 0, 0),
        (10, 6, 0, 0, 8, 6, 0, 0),
        (8, 6, 0, 0, 0, 6, 0, 0),
        (8, 6, 0, 0, 8, 6, 1, 0),
    ],
)
def test_a_jpeg_2000_of_another_size(values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"size|extent"):
        require_size(jpeg_2000(*values), JPEG2000Lossless, 6, 8, 2)


def test_a_jpeg_2000_with_more_components_or_tiles() -> None:
    with pytest.raises(ValueError, match="another size"):
        require_size(jpeg_2000(8, 6, 0, 0, 8, 6, 0, 0, components=16384), JPEG2000Lossless, 6, 8, 2)
    with pytest.raises(ValueError, match="too many tiles"):
        require_size(jpeg_2000(512, 512, 0, 0, 1, 1, 0, 0), JPEG2000Lossless, 512, 512, 2)


def test_run_lengths_and_rubbish() -> None:
    require_size(encapsulate([bytes(64 + 6 * 8 * 2)]), RLELossless, 6, 8, 2)
    with pytest.raises(ValueError, match="run lengths"):
        require_size(encapsulate([b"\x81\0" * 2000]), RLELossless, 6, 8, 2)
    with pytest.raises(ValueError, match="no code stream"):
        require_size(encapsulate([b"rubbish!"]), JPEG2000Lossless, 6, 8, 2)
