"""TLS for peers and destinations (PS3.15 annex B)."""

from __future__ import annotations

import socket
import ssl

from ctmar.errors import UsageError
from ctmar.pacs.settings import TlsSettings

SILENT_S = 20.0
"""How long a connection may say nothing in the middle of something."""


class PatientContext:
    """A listener's context that shakes hands when something is read: who says nothing holds up nobody else."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, connection: socket.socket, *, server_side: bool) -> ssl.SSLSocket:
        """As that of `ssl.SSLContext`."""
        connection.settimeout(SILENT_S)
        return self._context.wrap_socket(connection, server_side=server_side, do_handshake_on_connect=False)


def context_for(settings: TlsSettings | None, *, server: bool) -> ssl.SSLContext | None:
    """What a listener, or a connection to a destination, uses; None without settings.

    Raises
    ------
    UsageError
        Where certificate, key or authorities cannot be used.
    """
    if settings is None:
        return None
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    try:
        authorities = str(settings.authorities) if settings.authorities else None
        context = ssl.create_default_context(purpose, cafile=authorities)
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"tls: certificate, key or authorities cannot be used ({type(error).__name__}).") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if server and settings.authorities:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
