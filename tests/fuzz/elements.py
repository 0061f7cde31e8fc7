"""Explicit VR Little Endian files as lists of raw elements, to be written back with whatever lies are put in."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
UNDEFINED = 0xFFFFFFFF
_ITEM = b"\xfe\xff\x00\xe0"


@dataclass
class Element:
    """Tag and VR as in the file; a sequence has lists of elements as its value; `length` overrides the true one."""

    tag: bytes
    vr: bytes
    value: bytes | list[list[Element]]
    length: int | None = None

    @property
    def number(self) -> int:
        """Group and element, as 0xGGGGEEEE."""
        return int.from_bytes(self.tag[:2], "little") << 16 | int.from_bytes(self.tag[2:], "little")


@dataclass
class DicomFile:
    """Preamble, file meta information and data set."""

    preamble: bytes
    meta: list[Element]
    body: list[Element]

    @property
    def deflated(self) -> bool:
        """Whether the data set is going to be deflated."""
        return str(DeflatedExplicitVRLittleEndian).encode() in syntax_of(self.meta)


def parse_file(content: bytes) -> DicomFile:
    """Raises ValueError where the file is not in an explicit little-endian encoding, or is damaged."""
    if content[128:132] != b"DICM":
        raise ValueError("no preamble")
    length = int.from_bytes(content[140:144], "little")
    meta = parse(content[132 : 144 + length])
    body = content[144 + length :]
    syntax = syntax_of(meta).rstrip(b"\0").decode("ascii")
    if syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        raise ValueError("another encoding")
    if syntax == DeflatedExplicitVRLittleEndian:
        body = zlib.decompress(body, -zlib.MAX_WBITS)
    return DicomFile(content[:132], meta, parse(body))


def file_bytes(file: DicomFile) -> bytes:
    """The file; the length of its meta information is right unless the element says another."""
    meta = [e for e in file.meta if e.number != 0x00020000]
    coded = encode(meta)
    group = [e for e in file.meta if e.number == 0x00020000]
    if group and group[0].length is None and len(group[0].value) == 4:
        group[0].value = len(coded).to_bytes(4, "little")
    body = encode(file.body)
    if file.deflated:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
    return file.preamble + encode(group) + coded + body


def syntax_of(meta: list[Element]) -> bytes:
    """Transfer Syntax UID as in the file."""
    return next((e.value for e in meta if e.number == 0x00020010 and isinstance(e.value, bytes)), b"")


def parse(data: bytes) -> list[Element]:
    """Raises ValueError where the data are truncated."""
    found = []
    at = 0
    while at < len(data):
        tag, vr = data[at : at + 4], data[at + 4 : at + 6]
        if not (vr.isalpha() and vr.isupper()):
            raise ValueError("no explicit VR")
        wide = vr in LONG
        start = at + (12 if wide else 8)
        length = int.from_bytes(data[start - (4 if wide else 2) : start], "little")
        if length == UNDEFINED:
            found.append(Element(tag, vr, data[start:], UNDEFINED))
            break
        if start + length > len(data):
            raise ValueError("truncated")
        value = data[start : start + length]
        found.append(Element(tag, vr, _items(value) if vr == b"SQ" else value))
        at = start + length
    return found


def encode(elements: list[Element]) -> bytes:
    """Elements as bytes; lengths too large for their VR are cut to its width."""
    parts = []
    for element in elements:
        value = element.value
        if not isinstance(value, bytes):
            coded = [encode(item) for item in value]
            value = b"".join(_ITEM + len(item).to_bytes(4, "little") + item for item in coded)
        length = len(value) if element.length is None else element.length
        if element.vr in LONG:
            parts.append(element.tag + element.vr + b"\0\0" + (length & 0xFFFFFFFF).to_bytes(4, "little") + value)
        else:
            parts.append(element.tag + element.vr + (length & 0xFFFF).to_bytes(2, "little") + value)
    return b"".join(parts)


def _items(value: bytes) -> bytes | list[list[Element]]:
    items = []
    at = 0
    while at < len(value):
        length = int.from_bytes(value[at + 4 : at + 8], "little")
        if value[at : at + 4] != _ITEM or at + 8 + length > len(value):
            return value
        try:
            items.append(parse(value[at + 8 : at + 8 + length]))
        except ValueError:
            return value
        at += 8 + length
    return items
