"""What is done to seeds: to bytes, to elements, to archives, to case files and to the names of files."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable

import h5py
from pydicom.datadict import tag_for_keyword

from tests.ctmar.small import MARKER
from tests.fuzz.elements import UNDEFINED, DicomFile, Element, file_bytes, parse_file

ESCAPE = "ctmar-fuzz-escape"
"""Part of every name that points elsewhere: nothing of this name may ever be made."""

NAMES = (
    f"../{ESCAPE}",
    f"../../../../../../tmp/{ESCAPE}",
    f"/tmp/{ESCAPE}",
    f"C:\\{ESCAPE}",
    f"..\\..\\{ESCAPE}",
    "a/../../b",
)

KEYWORDS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "NumberOfFrames", "PhotometricInterpretation", "PlanarConfiguration", "PixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "InstanceNumber", "SeriesNumber", "SeriesDescription", "ImageType", "Modality",
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "SpecificCharacterSet", "SliceThickness",
    "GantryDetectorTilt", "TimezoneOffsetFromUTC", "SeriesDate", "SeriesTime", "LossyImageCompression", "PatientName",
    "DerivationDescription", "ContributingEquipmentSequence", "SourceImageSequence", "DerivationCodeSequence",
    "CodingSchemeIdentificationSequence", "ReferencedFileID", "TransferSyntaxUID", "WindowCenter",
    "ContourData", "SegmentSequence", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
    "DimensionIndexValues", "FrameIncrementPointer", "OffsetOfReferencedLowerLevelDirectoryEntity", "PixelData",
    "FrameOfReferenceUID", "NumberOfContourPoints", "IconImageSequence", "Manufacturer", "PatientPosition",
    "AcquisitionNumber",
)  # fmt: skip

NUMBERS = (0, 1, 2, 3, 7, 8, 11, 12, 15, 16, 17, 31, 32, 33, 64, 127, 128, 255, 256, 4095, 32767, 32768, 65535)
LONG_NUMBERS = (0, 1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 2, UNDEFINED)
TEXTS = (
    b"", b"0", b"-0", b"1", b"-1", b"2", b"nan", b"inf", b"-inf", b"1e400", b"1e308", b"-1e308", b"1e-320", b"1e38",
    b"99999999999999999999", b"1000000000", b"0x10", b"1_0", b" 1 ", b"1,5", b"\xd9\xa3", b"\xff\xfe\xfd", b"\0\0",
    b"1\\2", b"1\\2\\3", b"1\\0\\0\\0\\1\\0", b"0\\0\\0\\0\\0\\0", b"nan\\nan\\nan", b"1e300\\1e300\\1e300", b"\\" * 40,
    b"\\ISO 2022 IR 87", b"ISO_IR 192", b"GB18030", b"ISO_IR 13", b"latin1\\utf-7", b"+9999", b"-2400", b"20241399",
    b"256199.9999999", b"[bold]x[/red]", b"\x1b[2J\x1b]0;x\x07", b"A" * 300, b"1.2." * 30, b"CT", b"MR", b"RTSTRUCT",
    b"DERIVED\\SECONDARY\\LOCALIZER", b"MONOCHROME1", b"PALETTE COLOR", b"RGB", b"YBR_FULL_422", b"HU", b"US", b"01",
    b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.51", b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.80",
    b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.91", b"1.2.840.10008.1.2.4.100", b"1.2.840.10008.1.2.4.201",
    b"1.2.840.10008.1.2.5", b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.5.1.4.1.1.2.1", b"1.2.840.10008.1.3.10",
    b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.1.4.1.1.481.3", b"1.2.840.10008.5.1.4.1.1.7",
    *(name.encode() for name in NAMES),
)  # fmt: skip
VRS = (b"OB", b"OW", b"UN", b"SQ", b"US", b"SS", b"UL", b"FD", b"FL", b"DS", b"IS", b"LO", b"PN", b"UI", b"AT", b"XX")
_PARSED_AT_MOST = 2**20

Rng = random.Random


def mutate_bytes(rng: Rng, content: bytes) -> bytes:
    """Flips, insertions, deletions, truncation, numbers at the edge; half of them in the first two thousand bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        end = len(data) if rng.random() < 0.5 else min(len(data), 2000)
        if end < 4:
            return bytes(data) + rng.randbytes(8)
        at = rng.randrange(end)
        match rng.randrange(7):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 8, 100)))
            case 3:
                del data[at : at + rng.choice((1, 2, 8, 100))]
            case 4:
                del data[at:]
            case 5:
                width, values = rng.choice(((2, NUMBERS), (4, LONG_NUMBERS)))
                data[at : at + width] = rng.choice(values).to_bytes(width, rng.choice(("little", "big")))
            case 6:
                begin = rng.randrange(end)
                data[at:at] = data[begin : begin + rng.choice((4, 16, 256))]
    return bytes(data)


def mutate_elements(rng: Rng, content: bytes) -> bytes:
    """Absurd values, false lengths and VRs, elements that are gone, doubled, nested or in another order."""
    if len(content) > _PARSED_AT_MOST:
        return mutate_bytes(rng, content)
    try:
        file = parse_file(content)
    except (ValueError, UnicodeDecodeError, OSError, zipfile.BadZipFile):
        return mutate_bytes(rng, content)
    except Exception as error:
        if type(error).__module__ != "zlib":
            raise
        return mutate_bytes(rng, content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        elements = _level(rng, file)
        if elements:
            rng.choice(_ELEMENT_MUTATORS)(rng, elements)
        else:
            elements.append(_known(rng, rng.choice(KEYWORDS)))
    return file_bytes(file)


def mutate_zip(rng: Rng, content: bytes) -> bytes:
    """Names that leave the archive, links, members twice, nested archives, bombs of a few MB; or the raw bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(m.filename, archive.read(m)) for m in archive.infolist()]
    except (OSError, ValueError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile):
        return mutate_bytes(rng, content)
    members = members or [("empty", b"")]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))) as archive:
        for name, body in members:
            info = zipfile.ZipInfo(
                rng.choice((name, name, rng.choice(NAMES) + name, f"{rng.choice(NAMES)}\0x", name * 40))
            )
            match rng.randrange(8):
                case 0:
                    body = mutate_elements(rng, body)  # noqa: PLW2901
                case 1:
                    body = b"\0" * 132 + b"DICM" + b"\0" * rng.choice((10, 10**6, 4 * 10**6))  # noqa: PLW2901
                case 2:
                    info.external_attr = 0o120777 << 16
                    body = f"../{ESCAPE}".encode()  # noqa: PLW2901
                case 3:
                    body = content  # noqa: PLW2901
                case 4:
                    archive.writestr(zipfile.ZipInfo("folder/"), b"")
            archive.writestr(info, body, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def mutate_case(rng: Rng, content: bytes) -> bytes:
    """Attributes, shapes, types, links and names of a case file; or its raw bytes."""
    if rng.random() < 0.5:
        return mutate_bytes(rng, content)
    stream = io.BytesIO(content)
    try:
        with h5py.File(stream, "r+") as file:
            for _ in range(rng.choice((1, 1, 2, 3))):
                rng.choice(_CASE_MUTATORS)(rng, file)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, OverflowError, AttributeError):
        return mutate_bytes(rng, content)
    return stream.getvalue()


def mutate_names(rng: Rng, files: dict[str, bytes]) -> dict[str, bytes]:
    """Files in another order, twice, swapped in content, or beside rubbish."""
    names = list(files)
    match rng.randrange(5):
        case 0:
            contents = list(files.values())
            rng.shuffle(contents)
            return dict(zip(names, contents, strict=True))
        case 1:
            name = rng.choice(names)
            return {**files, f"again-{name.replace('/', '-')}": files[name]}
        case 2:
            return {
                **files,
                rng.choice(("x.dcm", "DICOMDIR", "a.zip", "b.nii", "c.h5")): rng.randbytes(rng.choice((0, 3, 600))),
            }
        case 3:
            return {**files, "zeros": bytes(rng.choice((0, 132, 5000))), "[red]\x1b[1m\n": b"\0" * 128 + b"DICM"}
    kept = {name: content for name, content in files.items() if rng.random() < 0.7}
    return kept or files


def _level(rng: Rng, file: DicomFile) -> list[Element]:
    """A list of elements: mostly the data set's own, or that of an item in it, or the meta information."""
    if rng.random() < 0.12:
        return file.meta
    elements = file.body
    while True:
        items = [e.value for e in elements if not isinstance(e.value, bytes) and e.value]
        if not items or rng.random() < 0.35:
            return elements
        elements = rng.choice(rng.choice(items))


def _known(rng: Rng, keyword: str) -> Element:
    tag = int(tag_for_keyword(keyword) or 0)
    coded = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    return Element(coded, rng.choice(VRS), _value(rng, b"LO"))


def _value(rng: Rng, vr: bytes) -> bytes:
    if rng.random() < 0.1:
        vr = rng.choice(VRS)
    count = rng.choice((0, 1, 1, 1, 1, 1, 2, 3, 50))
    match vr:
        case b"US" | b"SS":
            return b"".join(rng.choice(NUMBERS).to_bytes(2, "little") for _ in range(count))
        case b"UL" | b"SL" | b"AT":
            return b"".join(rng.choice(LONG_NUMBERS).to_bytes(4, "little") for _ in range(count))
        case b"FD":
            return struct.pack(
                f"<{count}d", *(rng.choice((0.0, 1.0, -1.0, 1e308, float("nan"), float("inf"))) for _ in range(count))
            )
        case b"OB" | b"OW" | b"UN":
            return rng.randbytes(rng.choice((0, 1, 2, 7, 100)))
    text = rng.choice(TEXTS)
    return text + b" " * (len(text) % 2 if rng.random() < 0.9 else 0)


def _pick(rng: Rng, elements: list[Element]) -> Element:
    """Mostly one of those that ctmar reads."""
    if rng.random() < 0.7:
        tags = {int(tag_for_keyword(keyword) or 0) for keyword in KEYWORDS}
        known = [e for e in elements if e.number in tags]
        if known:
            return rng.choice(known)
    return rng.choice(elements)


def _set(rng: Rng, elements: list[Element]) -> None:
    element = _pick(rng, elements)
    element.value = _value(rng, element.vr)


def _set_length(rng: Rng, elements: list[Element]) -> None:
    _pick(rng, elements).length = rng.choice((*NUMBERS, *LONG_NUMBERS))


def _set_vr(rng: Rng, elements: list[Element]) -> None:
    _pick(rng, elements).vr = rng.choice(VRS)


def _delete(rng: Rng, elements: list[Element]) -> None:
    elements.remove(_pick(rng, elements))


def _insert(rng: Rng, elements: list[Element]) -> None:
    elements.insert(rng.randrange(len(elements) + 1), _known(rng, rng.choice(KEYWORDS)))


def _shuffle(rng: Rng, elements: list[Element]) -> None:
    begin = rng.randrange(len(elements))
    part = elements[begin : begin + rng.choice((2, 5, 1000))]
    rng.shuffle(part)
    elements[begin : begin + len(part)] = part


def _private(rng: Rng, elements: list[Element]) -> None:
    group = rng.choice((0x0009, 0x0019, 0x0029, 0x7FE1, 0xFFFF, 0x0001)).to_bytes(2, "little")
    text = f"{MARKER} private".encode()
    elements.append(Element(group + b"\x10\x00", b"LO", b"CTMAR TEST"))
    elements.append(Element(group + rng.choice((b"\x00\x10", b"\x01\x10", b"\x10\x01")), rng.choice(VRS), text))


def _nest(rng: Rng, elements: list[Element]) -> None:
    """Deep sequences: pydicom parses them recursively."""
    tag = rng.choice(
        (b"\x08\x00\x15\x92", b"\x08\x00\x12\x21", b"\x18\x00\x02\xa0", b"\x09\x00\x01\x10", b"\x08\x00\x41\x11")
    )
    nested = [Element(b"\x08\x00\x00\x01", b"SH", MARKER.encode())]
    for _ in range(rng.choice((1, 3, 30, 300))):
        nested = [Element(tag, b"SQ", [nested])]
    elements[:] = sorted([*elements, *nested], key=lambda e: e.number)


def _many_items(rng: Rng, elements: list[Element]) -> None:
    sequences = [e for e in elements if not isinstance(e.value, bytes) and e.value]
    if sequences:
        sequence = rng.choice(sequences)
        sequence.value = list(sequence.value) * rng.choice((0, 2, 40))  # type: ignore[assignment]


_ELEMENT_MUTATORS: tuple[Callable[[Rng, list[Element]], None], ...] = (
    *(6 * (_set,)), _set_length, _set_vr, _delete, _delete, _insert, _insert, _shuffle, _private, _nest, _many_items,
)  # fmt: skip


def _case_attribute(rng: Rng, file: h5py.File) -> None:
    values = (
        "",
        "x",
        0,
        -1,
        2**62,
        float("nan"),
        float("inf"),
        1e308,
        [1, 2, 3],
        b"\xff\xfe",
        "a" * 70_000,
        f"../{ESCAPE}",
    )
    name = rng.choice(("format", "version", "mu_water_per_mm", "seed", "patient", "source", "geometry", "image_grid"))
    del file.attrs[name]
    if rng.random() < 0.9:
        file.attrs[name] = rng.choice(values)


def _case_json(rng: Rng, file: h5py.File) -> None:
    name = rng.choice(("geometry", "image_grid"))
    values = json.loads(file.attrs[name])
    key = rng.choice([*values, "unknown"])
    numbers = (
        0,
        -1,
        1,
        2,
        10**6,
        10**9,
        2**63,
        1e308,
        float("nan"),
        float("inf"),
        None,
        "x",
        [],
        {},
        True,
        "fan",
        "arc",
    )
    values[key] = rng.choice((*numbers, *(v for v in numbers if isinstance(v, int | float))))
    file.attrs[name] = json.dumps(values) if rng.random() < 0.9 else "[" * rng.choice((1, 5000))


def _case_array(rng: Rng, file: h5py.File) -> None:
    name = rng.choice(
        ("sinogram/metal", "sinogram/reference", "mask/metal", "image/uncorrected", "dicom_path/x", "image")
    )
    shape = file["sinogram/metal"].shape if "sinogram" in name else (48, 48)
    if name in file:
        del file[name]
    match rng.randrange(8):
        case 0:
            file[name] = h5py.SoftLink("/sinogram/metal")
        case 1:
            file[name] = h5py.ExternalLink(f"/tmp/{ESCAPE}", "/x")
        case 2:
            file.create_dataset(name, shape, "f4", fillvalue=float("nan"))
        case 3:
            file.create_dataset(name, (30_000, 30_000), "f4", chunks=(1000, 1000), compression="gzip")
        case 4:
            file.create_dataset(name, shape, rng.choice(("S3", "c8", "b1", "u8", "f2", "f8")))
        case 5:
            file.create_dataset(name, shape, "f4", fillvalue=rng.choice((1e38, -1e38, 1e30, 1e-40, 5.0)))
        case 6:
            file.create_dataset(name, shape, "f4", external=[(f"/tmp/{ESCAPE}", 0, h5py.h5f.UNLIMITED)])
        case 7:
            file.create_group(name)


_CASE_MUTATORS: tuple[Callable[[Rng, h5py.File], None], ...] = (_case_attribute, _case_json, _case_json, _case_array)
