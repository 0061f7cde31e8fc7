"""How many sequence items a file holds, found without parsing it: each costs far more memory and time than its bytes.

An empty item is 8 bytes in a file, and more than a kilobyte and 50 microseconds in pydicom.
"""

from __future__ import annotations

import os
from typing import BinaryIO

MAX_ITEMS = 1_000_000
"""Three times those of an enhanced CT object with 10,000 frames."""

_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""(FFFE,E000), little and big endian (PS3.5 section 7.5)."""

_SMALLEST_ITEM = 8
_BLOCK = 2**22


class ItemCounter:
    """Counts item tags in the blocks of a file."""

    def __init__(self) -> None:
        self._items = 0
        self._end = b""

    def add(self, block: bytes) -> None:
        """Count those of the next block.

        Raises
        ------
        ValueError
            Where there are more than `MAX_ITEMS` by now.
        """
        whole = self._end + block
        self._items += max(whole.count(tag) for tag in _ITEM_TAGS)
        self._end = whole[-3:]
        if self._items > MAX_ITEMS:
            raise ValueError("more sequence items than any image has")


def check_items(stream: BinaryIO) -> None:
    """Raise `ValueError` where a file holds more items than `MAX_ITEMS`; the stream is at its start afterwards.

    Files in which so many have no room, as those of nearly all single images, are not read for this.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size <= MAX_ITEMS * _SMALLEST_ITEM:
        return
    counter = ItemCounter()
    while block := stream.read(_BLOCK):
        counter.add(block)
    stream.seek(0)
