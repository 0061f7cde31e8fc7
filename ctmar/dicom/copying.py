"""Copy a data set into Explicit VR Little Endian with the bytes of its public attributes as they were."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import STR_VR

_PIXELS = Tag("PixelData")
_CHARACTER_SET = Tag("SpecificCharacterSet")

_DEEPEST = 8
"""Sequences within sequences; real CT has 4 or 5. What pydicom says of an error grows threefold with every level."""


def copy_public(source: Dataset) -> Dataset:
    """A deep copy without pixels and private attributes, with the bytes of texts and numbers as they were.

    pydicom would decode and encode every text, which loses characters where Specific Character Set is wrong,
    and fails on malformed numbers; raw elements are copied through instead.

    Raises
    ------
    One of `ctmar.dicom.source.PARSE_ERRORS`
        Where a sequence is damaged, or nested deeper than any CT image's.
    """
    _, little_endian = source.original_encoding
    return _copy(source, big_endian=little_endian is False, depth=0)


def _copy(source: Dataset, *, big_endian: bool, depth: int) -> Dataset:
    if depth > _DEEPEST:
        raise ValueError("sequences are nested too deeply")
    copied = Dataset()
    for tag in source.keys():  # noqa: SIM118  (iterating a Dataset would parse its elements)
        # groups below 8 belong into the file meta information or into messages (PS3.5 section 7.1)
        if tag.is_private or tag.group < 0x0008 or tag.element == 0 or tag == _PIXELS:
            continue
        if _is_overlay_in_pixels(source, tag) or (tag == _CHARACTER_SET and not _is_code(source[tag].value)):
            continue
        raw = _raw_element(source.get_item(tag), big_endian=big_endian)
        copied[tag] = raw or _parsed_element(source[tag], big_endian=big_endian, depth=depth)
    # Tells pydicom that raw elements are already in the encoding that is going to be written.
    copied.set_original_encoding(False, True, copied._character_set)
    return copied


def _raw_element(element: DataElement | RawDataElement | None, *, big_endian: bool) -> RawDataElement | None:
    """The element unparsed with its VR filled in, or None where it has to be parsed."""
    if not isinstance(element, RawDataElement) or element.value is None:
        return None
    vr = element.VR
    if vr in (None, "UN") and dictionary_has_tag(element.tag):
        vr = dictionary_VR(element.tag)
    if vr in (None, "UN", "SQ") or len(str(vr)) != 2 or (big_endian and vr not in STR_VR):
        return None
    if element.tag == _CHARACTER_SET:
        return None
    return RawDataElement(element.tag, str(vr), element.length, element.value, 0, False, True)


def _parsed_element(element: DataElement, *, big_endian: bool, depth: int) -> DataElement:
    if element.VR == "SQ":
        items = [_copy(item, big_endian=big_endian, depth=depth + 1) for item in element.value]
        return DataElement(element.tag, "SQ", DicomSequence(items))
    parsed = copy.deepcopy(element)
    if big_endian and parsed.VR == "OW" and isinstance(parsed.value, bytes):
        parsed.value = np.frombuffer(parsed.value, ">u2").astype("<u2").tobytes()
    return parsed


def _is_overlay_in_pixels(source: Dataset, tag: BaseTag) -> bool:
    """Overlays kept in unused bits of the pixels (retired) go with these bits."""
    return 0x6000 <= tag.group <= 0x60FF and (tag.group, 0x3000) not in source


def _is_code(value: object) -> bool:
    """Whether it is text, or texts, without control characters: readers fail at a character set with a null in it."""
    texts = [value] if isinstance(value, str) or value is None else value
    return isinstance(texts, Iterable) and all(
        text is None or (isinstance(text, str) and text.isascii() and text.isprintable()) for text in texts
    )
