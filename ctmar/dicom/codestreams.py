"""What a compressed image says of its own size, looked at before a decoder believes it.

Decoders make room for what the code stream promises, whatever Rows and Columns say: a file of a few kilobytes could
ask for gigabytes, and some of the libraries end the whole process where they do not get them.
"""

from __future__ import annotations

import math

from pydicom.encaps import generate_frames
from pydicom.uid import UID, RLELossless

_JPEG = b"\xff\xd8"
_JPEG_2000 = b"\xff\x4f\xff\x51"
_JP2_BOX = b"\x00\x00\x00\x0cjP  "

_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xDE, 0xF7} - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 and DHP of JPEG (ISO 10918-1 table B.1), SOF55 of JPEG-LS (ISO 14495-1 annex C.2.2)."""

_ALONE = {*range(0xD0, 0xDA)}
"""RST0 to RST7, SOI, EOI: markers that no segment follows."""

_MOST_TILES = 4096


def require_size(pixel_data: bytes, syntax: UID, rows: int, cols: int, word_bytes: int) -> None:
    """Refuse a compressed image whose code stream is of another size than its header says.

    Parameters
    ----------
    pixel_data
        Encapsulated Pixel Data of one frame (PS3.5 section A.4).
    syntax
        Its transfer syntax.
    rows, cols, word_bytes
        What the header says.

    Raises
    ------
    ValueError
        Where it is, or where there is no code stream.
    """
    frame = next(generate_frames(pixel_data, number_of_frames=1))
    if syntax == RLELossless:
        # runs may repeat what is too long 64 times over; literals need one byte in 128 more than there are
        if len(frame) > 2 * rows * cols * word_bytes + 1024:
            raise ValueError("more run lengths than pixels")
    elif frame.startswith(_JPEG):
        _require_jpeg(frame, rows, cols)
    elif frame.startswith((_JPEG_2000, _JP2_BOX)):
        _require_jpeg_2000(frame, rows, cols)
    else:
        raise ValueError("no code stream")


def _require_jpeg(frame: bytes, rows: int, cols: int) -> None:
    """Every frame header in the stream (ISO 10918-1 section B.2.2); hierarchical ones have several."""
    found = False
    at = frame.find(b"\xff", 2)
    while 0 <= at < len(frame) - 1:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _FRAME_MARKERS:
            height, width = (int.from_bytes(frame[at + k : at + k + 2], "big") for k in (5, 7))
            if (height, width) != (rows, cols) or frame[at + 9 : at + 10] != b"\x01":
                raise ValueError("a code stream of another size")
            found = True
        # below 0xC0 lies what stands for data in the entropy-coded parts
        segment = marker >= 0xC0 and marker not in _ALONE
        at += 2 + (int.from_bytes(frame[at + 2 : at + 4], "big") if segment else 0)
        at = frame.find(b"\xff", at)
    if not found:
        raise ValueError("a code stream without a frame header")


def _require_jpeg_2000(frame: bytes, rows: int, cols: int) -> None:
    """Every image and tile size segment (ISO 15444-1 section A.5.1)."""
    at = frame.find(_JPEG_2000)
    if at < 0:
        raise ValueError("no code stream")
    while at >= 0:
        values = [int.from_bytes(frame[k : k + 4], "big") for k in range(at + 8, at + 40, 4)]
        right, bottom, left, top, tile_cols, tile_rows, tile_left, tile_top = values
        components = int.from_bytes(frame[at + 40 : at + 42], "big")
        if (bottom - top, right - left, components) != (rows, cols, 1):
            raise ValueError("a code stream of another size")
        if not (tile_cols and tile_rows and tile_left <= left and tile_top <= top):
            raise ValueError("tiles without an extent")
        if math.ceil((right - tile_left) / tile_cols) * math.ceil((bottom - tile_top) / tile_rows) > _MOST_TILES:
            raise ValueError("too many tiles")
        at = frame.find(_JPEG_2000, at + 4)
