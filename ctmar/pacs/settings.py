"""What a node is asked to do: `serve.toml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Literal

from ctmar.config import load_toml, settings_from
from ctmar.correction_settings import CorrectionSettings
from ctmar.errors import UsageError
from ctmar.presets import PRESETS, with_preset
from ctmar.restorer import DEFAULT_MODEL

_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
"""PS3.5 section 6.2: 16 characters, no backslash, spaces only inside."""


@dataclass(frozen=True)
class Peer:
    """Who may send: by the AE title that it calls itself, and by its address.

    Parameters
    ----------
    ae_title
        Calling AE title.
    hosts
        IP addresses, or networks such as 192.0.2.0/24, that it may come from; any where there are none.
    """

    ae_title: str
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_title(self.ae_title)
        for host in self.hosts:
            try:
                ip_network(host, strict=False)
            except ValueError:
                raise ValueError(f"hosts: {host!r} is no IP address and no network; names are not looked up") from None

    def may_come_from(self, address: str) -> bool:
        """Whether it is one of its addresses."""
        return not self.hosts or any(ip_address(address) in ip_network(host, strict=False) for host in self.hosts)


@dataclass(frozen=True)
class Destination:
    """Where corrected series are sent.

    Parameters
    ----------
    ae_title, host, port
        Of the receiver.
    tls
        Whether it wants TLS, see `TlsSettings`.
    """

    ae_title: str
    host: str
    port: int
    tls: bool = False

    def __post_init__(self) -> None:
        _require_title(self.ae_title)
        _require_port(self.port)


@dataclass(frozen=True)
class Rule:
    """What becomes of a series. The patterns are those of file names (``*``, ``?``, ``[abc]``), in any case.

    Parameters
    ----------
    station, description, protocol
        Patterns for StationName, SeriesDescription and ProtocolName.
    action
        ``correct``, or ``ignore``: acknowledged and forgotten.
    without_metal
        What to do with a series in which no metal is found: ``ignore``, or ``send`` it as it is.
    preset, method, model, seg
        As for ``ctmar correct``.
    strength
        As for ``ctmar correct``; None for the preset's.
    to
        AE titles of destinations; all where there are none.
    """

    station: str = "*"
    description: str = "*"
    protocol: str = "*"
    action: Literal["correct", "ignore"] = "correct"
    without_metal: Literal["ignore", "send"] = "ignore"
    preset: str = "auto"
    method: str = ""
    model: str = DEFAULT_MODEL
    strength: float | None = None
    seg: bool = False
    to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"there is no preset {self.preset!r}: expected one of {', '.join(PRESETS)}")
        self.correction("auto")

    def matches(self, station: str, description: str, protocol: str) -> bool:
        """Whether it is about such a series."""
        pairs = ((station, self.station), (description, self.description), (protocol, self.protocol))
        return all(fnmatchcase(text.lower().strip(), pattern.lower()) for text, pattern in pairs)

    def correction(self, device: str) -> CorrectionSettings:
        """How it corrects."""
        values: dict[str, Any] = {"seg": self.seg, "device": device, "preset": self.preset}
        if self.method:
            values["method"] = self.method
        if self.strength is not None:
            values["strength"] = self.strength
        return settings_from(CorrectionSettings, with_preset(values, self.preset), origin="rules")


@dataclass(frozen=True)
class TlsSettings:
    """Files in PEM: our own certificate with its key, and the authorities whose certificates are believed.

    With authorities, a peer has to show a certificate of theirs (PS3.15 annex B.9 and B.10).
    """

    certificate: Path
    key: Path
    authorities: Path | None = None


@dataclass(frozen=True)
class ServeSettings:
    """A node.

    Parameters
    ----------
    spool
        Folder for what was received and not yet sent: it has patients' data in it, and is made for its owner alone.
    ae_title, address, port
        What it answers to, and where it listens.
    peers
        Who may send; nobody else is let in.
    destinations
        Where corrected series go.
    rules
        The first that matches a series says what becomes of it; where none does, it is ignored. Without any rule,
        every series is corrected.
    quiet_s
        A series is complete when its associations were released and nothing came for so long.
    timeout_s
        Or when nothing came for so long, however its associations ended.
    max_object_mb
        Size of an object at which its association is aborted.
    max_spool_gb, min_free_gb
        What the spool may hold and what it must leave of its disk: beyond, objects are refused as "out of resources".
    max_associations
        At the same time.
    keep_h, keep_failed_h
        How long received images are kept once their series is done, for those that come late; and those that failed.
    workers, scheduler, device
        Who corrects: as for ``ctmar correct``.
    attempts
        Corrections of a series before it is given up.
    retry_s
        Wait before a destination is tried again; it doubles every time, up to a hundredfold.
    monitor_port
        Of /health and /metrics on 127.0.0.1; 0 for none.
    tls
        For peers, and for destinations that want it.
    """

    spool: Path
    ae_title: str = "CTMAR"
    address: str = "127.0.0.1"
    port: int = 11112
    peers: tuple[Peer, ...] = ()
    destinations: tuple[Destination, ...] = ()
    rules: tuple[Rule, ...] = field(default_factory=lambda: (Rule(),))
    quiet_s: float = 10.0
    timeout_s: float = 300.0
    max_object_mb: float = 1024.0
    max_spool_gb: float = 100.0
    min_free_gb: float = 2.0
    max_associations: int = 10
    keep_h: float = 24.0
    keep_failed_h: float = 168.0
    workers: int = 1
    scheduler: str | None = None
    device: str = "auto"
    attempts: int = 3
    retry_s: float = 5.0
    monitor_port: int = 0
    tls: TlsSettings | None = None

    def __post_init__(self) -> None:
        _require_title(self.ae_title)
        _require_port(self.port)
        if not self.peers:
            raise ValueError("peers must name who may send: [[peers]] with ae_title")
        if not self.destinations:
            raise ValueError("destinations must name where corrected series go: [[destinations]]")
        if self.monitor_port == self.port:
            raise ValueError("port and monitor_port are the same")
        for one in self.destinations:
            if one.port == self.port and one.host in ("localhost", "127.0.0.1", self.address):
                raise ValueError(f"the destination {one.ae_title} is this node itself")
        known = {one.ae_title for one in self.destinations}
        for rule in self.rules:
            if unknown := set(rule.to) - known:
                raise ValueError(f"a rule sends to {', '.join(sorted(unknown))}, which is no destination")
        if self.tls is None and any(one.tls for one in self.destinations):
            raise ValueError("a destination wants TLS: it needs [tls] with certificate and key")
        positive = ("quiet_s", "timeout_s", "max_object_mb", "max_spool_gb", "max_associations", "attempts", "retry_s")
        for name in (*positive, "workers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")

    def rule_for(self, station: str, description: str, protocol: str) -> Rule | None:
        """The first that matches."""
        return next((rule for rule in self.rules if rule.matches(station, description, protocol)), None)

    def destinations_of(self, rule: Rule) -> tuple[Destination, ...]:
        """Where a rule sends."""
        return tuple(one for one in self.destinations if not rule.to or one.ae_title in rule.to)


def read_settings(path: Path, overrides: Mapping[str, Any] | None = None) -> ServeSettings:
    """The settings in a file.

    Raises
    ------
    UsageError
        Where it is not there, or says something impossible.
    """
    settings = settings_from(ServeSettings, load_toml(path), overrides=overrides, origin=str(path))
    for file in (settings.tls.certificate, settings.tls.key, settings.tls.authorities) if settings.tls else ():
        if file is not None and not file.is_file():
            raise UsageError(f"{path}: tls: {file} is not there")
    return settings


def _require_title(title: str) -> None:
    if not _AE_TITLE.fullmatch(title):
        raise ValueError(f"{title!r} is no AE title: 1 to 16 characters, no backslash, no space at an end")


def _require_port(port: int) -> None:
    if not 0 < port < 65536:
        raise ValueError(f"a port lies in 1..65535, not {port}")
