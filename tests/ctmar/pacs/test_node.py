"""The node as a process: what it takes, what it refuses, and that it says both without a patient in it."""

import gc
import json
import socket
import ssl
import struct
import time
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (pip install ctmar[pacs])")

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt

from benchmarks.pacs import node
from benchmarks.processes import free_port
from ctmar.dicom.synthetic import ct_dataset
from tests.conformance.orthanc import PROGRAM
from tests.ctmar.small import MARKER, small_volumes, write_small_series

pytestmark = [
    pytest.mark.slow,
    # the client's sockets of associations that were refused, which pynetdicom leaves to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    """A destination that keeps what it gets: port and folder."""
    folder, port = tmp_path_factory.mktemp("pacs"), free_port()

    def store(event):
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    entity = AE(ae_title="ORTHANC")
    entity.add_supported_context(CTImageStorage)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield port, folder
    server.shutdown()


@pytest.fixture(scope="module")
def service(tmp_path_factory, pacs):
    with node(tmp_path_factory.mktemp("node"), destination=pacs[0], largest_mb=3) as found:
        yield found


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()  # here, where their warnings are expected


def associate(service, title="ORTHANC", *, called="CTMAR", contexts=(CTImageStorage, VERIFICATION), port=None, **more):
    entity = AE(ae_title=title)
    for one in contexts:
        entity.add_requested_context(one, ExplicitVRLittleEndian)
    return entity.associate("127.0.0.1", port or service.port, ae_title=called, **more)


def dataset(number=1, *, series_uid="2.25.900", **more):
    made = ct_dataset(small_volumes()[0][1], z_mm=2.0 * number, number=number, series_uid=series_uid, pixel_mm=1.0)
    made.PatientName = f"{MARKER}^NAME"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in more.items():
        setattr(made, name, value)
    return made


def wait_for(service, event, count=1, *, seconds=60.0, **values):
    """Lines of the log about an event, once there are so many."""
    end = time.monotonic() + seconds
    while True:
        found = [e for e in service.events() if e["event"] == event and values.items() <= e.items()]
        if len(found) >= count:
            return found
        if time.monotonic() > end:
            raise AssertionError(service.log.read_text()[-2000:])
        time.sleep(0.1)


def get(service, path):
    port = next(line.split(" = ")[1] for line in service.config.read_text().splitlines() if "monitor_port" in line)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def test_a_series_is_corrected_and_sent_on(service, pacs, tmp_path):
    files = write_small_series(tmp_path / "series", series_uid="2.25.901")
    association = associate(service)
    assert association.send_c_echo().Status == 0
    assert [association.send_c_store(dcmread(file)).Status for file in files] == [0] * 4
    association.release()
    (done,) = wait_for(service, "done")
    assert done["latency_s"] < 60
    derived = [dcmread(file) for file in pacs[1].iterdir()]
    assert len(derived) == 4
    assert len({one.SeriesInstanceUID for one in derived} - {"2.25.901"}) == 1
    assert all(
        one.ImageType[0] == "DERIVED" and "Not for diagnostic use" in one.DerivationDescription for one in derived
    )
    sources = {dcmread(file).SOPInstanceUID: dcmread(file).pixel_array for file in files}
    changed = [
        not np.array_equal(one.pixel_array, sources[one.SourceImageSequence[0].ReferencedSOPInstanceUID])
        for one in sorted(derived, key=lambda one: one.InstanceNumber)
    ]
    assert changed == [False, True, True, False]
    # what it made itself comes back to it from a router: no circle
    association = associate(service)
    assert association.send_c_store(derived[0]).Status == 0
    association.release()
    assert wait_for(service, "ignored", why="made by ctmar")
    assert len(list(pacs[1].iterdir())) == 4


def test_no_metal_goes_nowhere(service, pacs, tmp_path):
    before = len(list(pacs[1].iterdir()))
    association = associate(service)
    for file in write_small_series(tmp_path / "clean", small_volumes()[1], series_uid="2.25.902"):
        association.send_c_store(dcmread(file))
    association.release()
    assert wait_for(service, "ignored", why="nothing was corrected")
    assert len(list(pacs[1].iterdir())) == before


def test_who_may_not_send(service):
    assert associate(service, "STRANGER").is_rejected
    assert associate(service, called="SOMEBODY").is_rejected
    assert wait_for(service, "refused", reason="unknown peer")[0]["peer"] == "STRANGER"
    assert not associate(service, contexts=(MRImageStorage,)).accepted_contexts


def test_what_is_no_ct(service):
    association = associate(service)
    assert association.send_c_store(dataset(Modality="MR")).Status == 0xA900
    association.release()
    assert wait_for(service, "refused", reason="not what it says")


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("damage", ["bytes", "truncated", "no pixels", "a UID too long"])
def test_malformed_objects(service, damage):
    """Sent as they are, which pynetdicom itself would not."""
    association = associate(service)
    made = dataset(series_uid="2.25.903")
    if damage == "no pixels":
        del made.PixelData
    if damage == "a UID too long":
        made.SeriesInstanceUID = "1." * 40 + "1"
    import io

    from pydicom.filebase import DicomFileLike
    from pydicom.filewriter import write_dataset
    from pynetdicom.dimse_primitives import C_STORE

    stream = DicomFileLike(io.BytesIO())
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, made)
    content = stream.parent.getvalue()
    content = {"bytes": b"\x89PNG" * 100, "truncated": content[: len(content) // 2]}.get(damage, content)
    request = C_STORE()
    request.MessageID, request.Priority = 7, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    request.DataSet = io.BytesIO(content)
    (context,) = [one for one in association.accepted_contexts if one.abstract_syntax == CTImageStorage]
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context.context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert answer.Status == 0xC000
    association.abort()
    assert wait_for(service, "refused", reason="malformed")


def test_an_association_that_breaks_off_in_an_object(service):
    association = associate(service)
    assert association.send_c_store(dataset(1, series_uid="2.25.904")).Status == 0
    connection = association.dul.socket.socket
    connection.sendall(struct.pack(">BBL", 4, 0, 30000) + b"\x00" * 1000)  # of a P-DATA of 30000
    connection.close()
    assert wait_for(service, "association ended", released=False)
    assert associate(service).send_c_echo().Status == 0
    # what came of it waits for the rest, and then goes without
    association = associate(service)
    assert association.send_c_store(dataset(1, series_uid="2.25.904")).Status == 0
    association.release()
    assert wait_for(service, "complete")


def test_objects_that_are_too_large(service):
    association = associate(service)
    large = dataset(series_uid="2.25.905")
    large.Rows = large.Columns = 2048
    large.PixelData = bytes(2048 * 2048 * 2)
    assert not association.send_c_store(large)  # aborted on the way
    assert len(wait_for(service, "refused", reason="object too large")) == 1
    spool = Path(service.config.parent / "spool")
    end = time.monotonic() + 10
    while list((spool / "receiving").iterdir()) and time.monotonic() < end:
        time.sleep(0.1)
    assert not list((spool / "receiving").iterdir())
    assert sum(path.stat().st_size for path in spool.rglob("*.dcm")) < 4e6


def test_a_pdu_that_announces_gigabytes(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 2**31) + b"\x00" * 100)
        assert connection.recv(100) == b"" or connection.recv(100) == b""  # closed, an abort before it at most
    assert wait_for(service, "refused", reason="pdu too large")


def test_noise(service):
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, bytes(range(256)) * 4):
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(noise)
    assert associate(service).send_c_echo().Status == 0


def test_who_connects_and_says_nothing_holds_up_nobody(service):
    silent = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(3)]
    for one in silent:
        one.sendall(b"\x01")
    assert associate(service).send_c_echo().Status == 0
    for one in silent:
        one.close()


def test_deflated_objects_are_not_taken(service):
    entity = AE(ae_title="ORTHANC")
    entity.add_requested_context(CTImageStorage, DeflatedExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", service.port, ae_title="CTMAR")
    assert not association.accepted_contexts


def test_what_watches_it_sees(service):
    health = json.loads(get(service, "/health"))
    assert health["ok"]
    assert health["series"]["failed"] == 0
    metrics = get(service, "/metrics")
    assert 'ctmar_objects_received_total{result="stored"}' in metrics
    assert 'ctmar_refused_total{reason="unknown peer"} 1.0' in metrics
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(service, "/other")


def test_no_patient_in_what_it_says(service):
    said = service.log.read_text() + get(service, "/metrics")
    assert MARKER not in said
    assert "2.25." not in said


def test_no_room(tmp_path, pacs):
    """The sender is told to come back."""
    with node(tmp_path, destination=pacs[0]) as first:
        first.kill()
        first.config.write_text(first.config.read_text().replace("min_free_gb = 0.05", "min_free_gb = 1e9"))
        first.start()
        assert associate(first).send_c_store(dataset()).Status == 0xA700
        assert wait_for(first, "refused", reason="out of resources")


def test_a_destination_that_is_away_gets_it_later(tmp_path, pacs):
    port = free_port()
    with node(tmp_path, destination=port) as service:
        association = associate(service)
        for file in write_small_series(tmp_path / "series", series_uid="2.25.906"):
            association.send_c_store(dcmread(file))
        association.release()
        wait_for(service, "not sent", 2)
        got = []
        entity = AE(ae_title="ORTHANC")
        entity.add_supported_context(CTImageStorage)

        def store(event):
            got.append(event.dataset.SOPInstanceUID)
            return 0xC001 if len(got) == 2 else 0x0000

        server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
        wait_for(service, "done")
        server.shutdown()
        assert len(got) == 5
        assert got[1] == got[2]  # the one that it refused, and no other, came again


def test_one_spool_one_node(tmp_path, service):
    second = replace(service, log=tmp_path / "second.log")
    with pytest.raises(RuntimeError, match="another process"):
        second.start()
    second.process.wait()


def test_tls(tmp_path, pacs):
    """Only who shows a certificate of the authority gets in."""
    certificates(tmp_path)
    with node(tmp_path, destination=pacs[0]) as service:
        service.kill()
        names = {"certificate": "node.pem", "key": "node.key", "authorities": "ca.pem"}
        lines = "".join(f'{name} = "{tmp_path / file}"\n' for name, file in names.items())
        service.config.write_text(service.config.read_text() + "[tls]\n" + lines)
        service.start()
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        assert not associate(service).is_established
        assert not associate(service, tls_args=(context, "localhost")).is_established
        context.load_cert_chain(tmp_path / "node.pem", tmp_path / "node.key")
        association = associate(service, tls_args=(context, "localhost"))
        assert association.send_c_echo().Status == 0
        association.release()


def certificates(folder):
    """An authority, and a certificate of its for localhost."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "node")}
    named = {name: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in keys}
    now = datetime.now(UTC)
    for name, key in keys.items():
        builder = (
            x509.CertificateBuilder()
            .subject_name(named[name])
            .issuer_name(named["ca"])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["ca"].public_key()), critical=False)
        )
        if name == "ca":
            usage = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                 "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False
            )  # fmt: skip
            builder = builder.add_extension(x509.KeyUsage(**usage | {"key_cert_sign": True}), critical=True)
        else:
            local = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(local), critical=False)
        made = builder.sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(private)


@pytest.mark.skipif(PROGRAM is None, reason="Orthanc is not installed")
def test_series_from_orthanc_while_the_node_is_killed(tmp_path):
    """Fifty of them take longer: `python -m benchmarks.pacs`."""
    from benchmarks.pacs import run

    result = run(tmp_path, series=20, slices=2, kills=3, senders=4, workers=1, method="li")
    assert result.starts == 4
    assert result.sources == 20
    assert result.derived == {2: 20}
