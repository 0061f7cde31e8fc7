"""The C-STORE SCU: files of a corrected series to a destination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE

from ctmar.pacs.settings import Destination, ServeSettings
from ctmar.pacs.tls import context_for

_WARNINGS = 0xB000
"""Statuses from here to 0xBFFF: stored, with a remark (PS3.4 table B.2-1)."""


class DamagedError(Exception):
    """A file to be sent cannot be read."""


class NotSentError(Exception):
    """Why a destination did not take something; it may later."""


def send(files: Sequence[Path], destination: Destination, settings: ServeSettings) -> Iterator[Path]:
    """Send files on one association; yields each when the destination has said that it is stored.

    Raises
    ------
    NotSentError
        Where the destination cannot be reached or refuses.
    DamagedError
        Where one of the files cannot be read.
    """
    entity = AE(ae_title=settings.ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
    entity.connection_timeout = 15
    for sop_class, syntax in sorted({_what(file) for file in files}):
        entity.add_requested_context(sop_class, syntax)
    tls: Any = (context_for(settings.tls, server=False), destination.host) if destination.tls else None
    association = entity.associate(destination.host, destination.port, ae_title=destination.ae_title, tls_args=tls)
    if not association.is_established:
        raise NotSentError("rejected" if association.is_rejected else "no association")
    try:
        for file in files:
            try:
                status = association.send_c_store(file)
            except (ValueError, RuntimeError, AttributeError) as error:
                raise NotSentError(f"its class is not taken ({type(error).__name__})") from None
            code = status.get("Status")
            if code is None:
                raise NotSentError("the connection ended")
            if code != 0 and code & 0xF000 != _WARNINGS:
                raise NotSentError(f"status 0x{code:04X}")
            yield file
    finally:
        if association.is_established:
            association.release()


def _what(file: Path) -> tuple[str, str]:
    try:
        meta = read_file_meta_info(file)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise DamagedError(type(error).__name__) from None
