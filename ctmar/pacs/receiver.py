"""The C-STORE and C-ECHO SCP: who may send, what is taken, and that it is safe before it is acknowledged."""

from __future__ import annotations

import math
import shutil
import socket
import sqlite3
import ssl
import tempfile
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pydicom
from pydicom.dataset import FileDataset
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)
from pynetdicom import AE, _config, evt

from ctmar.dicom.derived import MODEL_NAME
from ctmar.dicom.source import PARSE_ERRORS, quiet_pydicom
from ctmar.errors import UsageError
from ctmar.pacs.monitor import Metrics
from ctmar.pacs.settings import ServeSettings
from ctmar.pacs.spool import DIFFERS, Spool
from ctmar.pacs.tls import SILENT_S, PatientContext, context_for

SUCCESS, OUT_OF_RESOURCES, WRONG_CLASS, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
"""Statuses of a C-STORE, PS3.4 table B.2-1."""

CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
SYNTAXES = [
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLosslessSV1, JPEGLossless, JPEGLSLossless,
    JPEGLSNearLossless, JPEG2000Lossless, JPEG2000, RLELossless, JPEGBaseline8Bit, JPEGExtended12Bit,
]  # fmt: skip
"""Not deflated: a kilobyte of it can be a gigabyte."""

_VERIFICATION = "1.2.840.10008.1.1"

_LARGEST_PDU = 1 << 20
"""Far above what we offer to take; a peer that announces more is cut off before its memory is ours."""

_OFFERED_PDU = 1 << 17

_DEFERRED = 1 << 16
"""Values of more bytes are left on the disk."""


class Receiver:
    """Listens from `start` to `stop`."""

    def __init__(self, settings: ServeSettings, spool: Spool, metrics: Metrics, log: Any) -> None:
        self._settings, self._spool, self._metrics, self._log = settings, spool, metrics, log
        self._lock = threading.Lock()
        self._carried: dict[Any, set[str]] = defaultdict(set)
        self._bytes: dict[Any, float] = defaultdict(float)
        self._over: weakref.WeakSet[Any] = weakref.WeakSet()
        self._server: Any = None

    def start(self) -> None:
        """Listen.

        Raises
        ------
        UsageError
            Where the address cannot be listened on, or TLS cannot be set up.
        """
        settings = self._settings
        tempfile.tempdir = str(self._spool.receiving)  # pynetdicom asks for no other place
        _config.STORE_RECV_CHUNKED_DATASET = True
        _config.LOG_HANDLER_LEVEL = "none"
        entity = AE(ae_title=settings.ae_title)
        entity.maximum_associations = settings.max_associations
        entity.maximum_pdu_size = _OFFERED_PDU
        entity.require_called_aet = True
        entity.network_timeout = settings.timeout_s
        entity.dimse_timeout = settings.timeout_s
        entity.add_supported_context(_VERIFICATION)
        for sop_class in CLASSES:
            entity.add_supported_context(sop_class, SYNTAXES)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, lambda event: self._refuse("association", event.assoc)),
            (evt.EVT_DATA_RECV, self._data),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, lambda _: SUCCESS),
            (evt.EVT_RELEASED, lambda event: self._ended(event.assoc, released=True)),
            (evt.EVT_ABORTED, lambda event: self._ended(event.assoc, released=False)),
            (evt.EVT_CONN_CLOSE, lambda event: self._ended(event.assoc, released=False)),
        ]
        tls = context_for(settings.tls, server=True)
        try:
            self._server = entity.start_server(
                (settings.address, settings.port),
                block=False,
                evt_handlers=handlers,
                ssl_context=cast(ssl.SSLContext, PatientContext(tls)) if tls else None,
            )
        except OSError as error:
            where = f"{settings.address}:{settings.port}"
            raise UsageError(f"{where} cannot be listened on: {error.strerror or type(error).__name__}.") from None

    def stop(self) -> None:
        """Take no more; associations that are open are aborted."""
        if self._server is not None:
            self._server.ae.shutdown()
            self._server = None

    @property
    def listens(self) -> bool:
        """Whether it does."""
        return self._server is not None and self._server.socket.fileno() >= 0

    def carried(self) -> set[str]:
        """Series that open associations carry."""
        with self._lock:
            return set().union(*self._carried.values())

    # ------------------------------------------------------------------ associations

    def _opened(self, event: Any) -> None:
        """Bound what a peer can make us read at once, before anything is known of it."""
        connection = event.assoc.dul.socket
        receive: Callable[[int], bytearray] = connection.recv

        def bounded(count: int) -> bytearray:
            if count > _LARGEST_PDU:
                self._refuse("pdu too large", event.assoc)
                raise OSError("the peer announces too large a PDU")
            return receive(count)

        connection.recv = bounded
        if connection.socket is not None:
            connection.socket.settimeout(SILENT_S)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _requested(self, event: Any) -> None:
        title, address = event.assoc.requestor.primitive.calling_ae_title, event.assoc.requestor.address
        called = [peer for peer in self._settings.peers if peer.ae_title == str(title).strip()]
        if any(peer.may_come_from(address) for peer in called):
            return
        event.assoc.acse.send_reject(0x01, 0x01, 0x03)  # permanent, by the user, calling AE title not recognised
        event.assoc.kill()  # once it is sent
        self._refuse("peer from another address" if called else "unknown peer", event.assoc)

    def _data(self, event: Any) -> None:
        with self._lock:
            if event.assoc in self._over:
                return
            self._bytes[event.assoc] += len(event.data)
            too_large = self._bytes[event.assoc] > self._settings.max_object_mb * 1e6
            if too_large:
                self._bytes[event.assoc] = -math.inf  # what is still on its way is not refused once more
        if too_large:
            self._refuse("object too large", event.assoc)
            event.assoc.abort()

    def _ended(self, association: Any, *, released: bool) -> None:
        with self._lock:
            self._over.add(association)
            series = self._carried.pop(association, set())
            self._bytes.pop(association, None)
            series -= set().union(*self._carried.values())  # others carry them on
        half = getattr(association.dimse.message, "_data_set_path", None)  # of an object that was cut off
        if isinstance(half, Path) and half.parent == self._spool.receiving:
            half.unlink(missing_ok=True)
        if series:
            if released:
                self._spool.release(series)
            self._log.info("association ended", released=released, series=sorted(series), **_who(association))

    def _refuse(self, reason: str, association: Any, **more: Any) -> None:
        self._metrics.refused.labels(reason).inc()
        self._log.warning("refused", reason=reason, **_who(association), **more)

    # ------------------------------------------------------------------ objects

    def _store(self, event: Any) -> int:
        with self._lock:
            if event.assoc in self._bytes:
                self._bytes[event.assoc] = 0
        path = event.dataset_path
        try:
            if self._is_full():
                self._refuse("out of resources", event.assoc)
                return OUT_OF_RESOURCES
            header = _read(path)
            if header is None:
                self._refuse("malformed", event.assoc)
                return NOT_UNDERSTOOD
            request = event.request
            same = header.SOPInstanceUID == request.AffectedSOPInstanceUID
            if not same or header.SOPClassUID != request.AffectedSOPClassUID or header.get("Modality") != "CT":
                self._refuse("not what it says", event.assoc)
                return WRONG_CLASS
            series, result = self._spool.add(
                path,
                sop_uid=str(header.SOPInstanceUID),
                series_uid=str(header.SeriesInstanceUID),
                station=_text(header, "StationName"),
                description=_text(header, "SeriesDescription"),
                protocol=_text(header, "ProtocolName"),
                own=_text(header, "ManufacturerModelName") == MODEL_NAME,
            )
        except (OSError, MemoryError, sqlite3.Error) as error:
            self._refuse("cannot be stored", event.assoc, error=type(error).__name__)
            return OUT_OF_RESOURCES
        with self._lock:
            if event.assoc not in self._over:
                self._carried[event.assoc].add(series)
        self._metrics.received.labels(result).inc()
        if result == DIFFERS:
            self._log.warning("object came again with another content; the first is kept", series=series)
        return SUCCESS

    def _is_full(self) -> bool:
        free = shutil.disk_usage(self._spool.folder).free
        settings = self._settings
        return free < settings.min_free_gb * 1e9 or self._spool.size_bytes() > settings.max_spool_gb * 1e9


def _read(path: Path) -> FileDataset | None:
    """The header of an object that is whole and says what it is; None otherwise. Pixels stay on the disk."""
    try:
        with quiet_pydicom():
            dataset = pydicom.dcmread(path, defer_size=_DEFERRED)
            needed = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "Modality", "Rows", "Columns")
            if any(not dataset.get(name) for name in needed) or "PixelData" not in dataset:
                return None  # as where the file ends within a value before, or within compressed frames
            if max(len(str(dataset[name].value)) for name in ("SOPInstanceUID", "SeriesInstanceUID")) > 64:
                return None
            pixels: Any = dataset.get_item("PixelData", keep_deferred=True)
            if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
                return dataset if pixels.value else None
            end = pixels.value_tell + pixels.length
            whole = pixels.length >= get_expected_length(dataset) and end <= path.stat().st_size
            return dataset if whole else None
    except (OSError, MemoryError):
        raise
    except (*PARSE_ERRORS, EOFError):
        return None


def _text(header: FileDataset, name: str) -> str:
    try:
        return str(header.get(name) or "")
    except PARSE_ERRORS:
        return ""


def _who(association: Any) -> dict[str, str]:
    requestor = association.requestor
    title = str(getattr(requestor.primitive, "calling_ae_title", "") or requestor.ae_title)
    return {"peer": "".join(c if c.isprintable() else "?" for c in title).strip(), "address": str(requestor.address)}
