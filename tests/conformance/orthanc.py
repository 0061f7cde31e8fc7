"""A DICOM server of one's own: Orthanc on free ports of this machine, with everything it keeps in one folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.processes import end, free_port

PROGRAM = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
PLUGINS = [path for path in (Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),) if path.exists()]
STORESCU = "/usr/bin/storescu"
"""dcmtk's: pynetdicom installs another of the same name."""

_SECONDS = 30.0


@dataclass(frozen=True)
class Orthanc:
    """A running server."""

    http_port: int
    dicom_port: int

    def get(self, path: str, *, accept: str = "application/dicom+json, application/json") -> tuple[bytes, str]:
        """Content of an answer, and its type."""
        return self._send("GET", path, headers={"Accept": accept})

    def json(self, path: str) -> Any:
        """An answer in JSON."""
        return json.loads(self.get(path)[0])

    def qido(self, path: str) -> list[dict[str, Any]]:
        """Matches of a search (PS3.18 section 10.6), by tag."""
        found = self.json(f"/dicom-web/{path}")
        return [{tag: e.get("Value", [None])[0] for tag, e in one.items()} for one in found]

    def wado(self, study: str, series: str, instance: str) -> bytes:
        """An instance as a DICOM file (PS3.18 section 10.4)."""
        path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"
        content, kind = self.get(path, accept='multipart/related; type="application/dicom"; transfer-syntax=*')
        message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + content)
        (part,) = message.get_payload()  # type: ignore[misc]
        return part.get_payload(decode=True)  # type: ignore[union-attr,no-any-return]

    def store_by_stow(self, files: Sequence[Path]) -> None:
        """PS3.18 section 10.5."""
        parts = [b"--part\r\nContent-Type: application/dicom\r\n\r\n" + f.read_bytes() + b"\r\n" for f in files]
        kind = 'multipart/related; type="application/dicom"; boundary=part'
        content, _ = self._send(
            "POST",
            "/dicom-web/studies",
            data=b"".join(parts) + b"--part--",
            headers={"Content-Type": kind, "Accept": "application/dicom+json"},
        )
        answer = json.loads(content)
        assert not answer.get("00081198", {}).get("Value"), answer  # Failed SOP Sequence
        assert len(answer["00081199"]["Value"]) == len(files)

    def store_by_rest(self, files: Sequence[Path]) -> None:
        """Orthanc's own way."""
        for file in files:
            content, _ = self._send("POST", "/instances", data=file.read_bytes(), headers={})
            assert json.loads(content)["Status"] == "Success"

    def store_by_c_store(self, files: Sequence[Path]) -> None:
        """C-STORE (PS3.4 annex B) by dcmtk."""
        command = [STORESCU, "-R", "-aec", "ORTHANC", "127.0.0.1", str(self.dicom_port), *map(str, files)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert "E:" not in run.stderr
        assert "W:" not in run.stderr

    def send_series(self, series: str, modality: str) -> None:
        """Send a series (Orthanc's own identifier) on an association of its own, and wait until it is there."""
        request = json.dumps({"Resources": [series], "Synchronous": True, "Timeout": 60}).encode()
        self._send("POST", f"/modalities/{modality}/store", data=request, headers={})

    def delete_all(self) -> None:
        """Forget everything that was stored."""
        for study in self.json("/studies"):
            self._send("DELETE", f"/studies/{study}", headers={})

    def _send(self, method: str, path: str, *, headers: dict[str, str], data: bytes | None = None) -> tuple[bytes, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", data=data, method=method, headers=headers
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_SECONDS) as answer:
            return answer.read(), answer.headers.get("Content-Type", "")


@contextmanager
def running(folder: Path, *, modalities: Mapping[str, int] = MappingProxyType({})) -> Iterator[Orthanc]:
    """A server that keeps what it is sent in a folder, and ends with the block.

    `modalities` are the AE titles that it can send to, with their ports on this machine.
    """
    server = Orthanc(free_port(), free_port())
    settings = {
        "Name": "ctmar tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(path) for path in PLUGINS],
        "DicomWeb": {"Enable": True},
        "HttpPort": server.http_port,
        "DicomPort": server.dicom_port,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomModalities": {title: [title, "127.0.0.1", port] for title, port in modalities.items()},
        "ConcurrentJobs": 8,
        "StrictAetComparison": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(PROGRAM), str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        _wait(server, process, folder / "log")
        yield server
    finally:
        end(process, seconds=_SECONDS)


def _wait(server: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            server.get("/system")
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
