"""The spool: what it knows of a series, and what it knows after its process was killed."""

import stat
import time

import pytest

from ctmar.pacs.spool import (
    ARRIVING,
    CORRECTING,
    DIFFERS,
    DONE,
    FAILED,
    IGNORED,
    KNOWN,
    SENDING,
    STORED,
    WAITING,
    Spool,
)  # fmt: skip

AT_ONCE = {"quiet_s": 0.0, "timeout_s": 60.0}


@pytest.fixture
def spool(tmp_path):
    found = Spool(tmp_path / "spool")
    yield found
    found.close()


def receive(spool, sop="1.1", series="2.25.1", content=b"image", **more):
    path = spool.receiving / "object"
    path.write_bytes(content)
    said = {"station": "CT1", "description": "Hip", "protocol": "Pelvis", "own": False} | more
    return spool.add(path, sop_uid=sop, series_uid=series, **said)


def corrected(spool, entry, count=2):
    folder = spool.corrected / f"{entry.id}-{entry.generation}"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.dcm").write_bytes(b"x")
    return folder.name


def waiting(spool, **more):
    """A series that waits for its correction."""
    series, _ = receive(spool, **more)
    spool.release([series])
    assert spool.complete(**AT_ONCE) == [series]
    return series


def state(spool):
    return next(name for name, count in spool.counts().items() if count)


def test_what_is_received_is_there_under_no_name_of_the_patient(spool):
    series, result = receive(spool)
    assert result == STORED
    (file,) = spool.source_of(series).iterdir()
    assert file.read_bytes() == b"image"
    assert "2.25.1" not in str(file)
    assert not list(spool.receiving.iterdir())
    assert spool.size_bytes() == 5
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_an_object_that_comes_again(spool):
    series, _ = receive(spool)
    assert receive(spool) == (series, KNOWN)
    assert receive(spool, content=b"other") == (series, DIFFERS)
    (file,) = spool.source_of(series).iterdir()
    assert file.read_bytes() == b"image"
    assert not list(spool.receiving.iterdir())


def test_a_series_is_complete_when_its_association_has_ended_and_it_is_quiet(spool):
    series, _ = receive(spool)
    assert spool.complete(**AT_ONCE) == []  # not released
    spool.release([series])
    assert spool.complete(quiet_s=60, timeout_s=60) == []  # not quiet
    assert spool.complete(**AT_ONCE, still_open={series}) == []
    receive(spool, sop="1.2")
    assert spool.complete(**AT_ONCE) == []  # more came
    spool.release([series])
    assert spool.complete(**AT_ONCE) == [series]
    assert spool.complete(**AT_ONCE) == []
    assert state(spool) == WAITING


def test_or_when_nothing_comes_any_more(spool):
    series, _ = receive(spool)
    assert spool.complete(quiet_s=0, timeout_s=0, still_open={series}) == []  # its association will end, or be ended
    assert spool.complete(quiet_s=0, timeout_s=0) == [series]


def test_one_gets_it(spool):
    series = waiting(spool)
    entry = spool.next_waiting()
    assert (entry.id, entry.station, entry.description, entry.protocol) == (series, "CT1", "Hip", "Pelvis")
    assert (entry.attempts, entry.generation, entry.own) == (1, 0, False)
    assert spool.next_waiting() is None
    assert state(spool) == CORRECTING


def test_every_destination_gets_every_file_once(spool):
    waiting(spool)
    entry = spool.next_waiting()
    assert spool.send(entry, corrected(spool, entry), ["A", "B"])
    sent = []
    while (found := spool.next_to_send()) is not None:
        one, title, files = found
        assert len(files) == (2 if len(sent) % 2 == 0 else 1)
        sent.append((title, files[0].name))
        spool.sent(one, title, files[0])
        spool.conclude(one, title)
    assert sent == [("A", "0.dcm"), ("A", "1.dcm"), ("B", "0.dcm"), ("B", "1.dcm")]
    assert state(spool) == DONE
    assert not list(spool.corrected.iterdir())


def test_a_destination_is_tried_again_later_and_later_and_holds_up_no_other(spool):
    waiting(spool)
    entry = spool.next_waiting()
    spool.send(entry, corrected(spool, entry), ["A", "B"])
    entry, title, _ = spool.next_to_send()
    assert title == "A"
    assert spool.send_later(entry, "A", retry_s=60, why="rejected") == 1
    _, title, files = spool.next_to_send()
    assert title == "B"
    for file in files:
        spool.sent(entry, "B", file)
    assert not spool.conclude(entry, "B")
    assert spool.next_to_send() is None
    assert state(spool) == SENDING
    assert spool.send_later(entry, "A", retry_s=-1, why="rejected") == 2
    assert spool.next_to_send()[1] == "A"


def test_a_correction_that_nobody_is_at_waits_again(spool):
    series = waiting(spool)
    spool.next_waiting()
    spool.unstick([series])
    assert state(spool) == CORRECTING
    spool.unstick([])
    assert state(spool) == WAITING


def test_images_that_come_late(spool):
    """While it is corrected: what comes of it is of no use. While it is sent: afterwards all is corrected again."""
    series = waiting(spool)
    entry = spool.next_waiting()
    receive(spool, sop="1.2")
    assert state(spool) == ARRIVING
    assert not spool.send(entry, corrected(spool, entry), ["A"])
    assert not list(spool.corrected.iterdir())
    spool.end(entry, FAILED, "old")
    assert state(spool) == ARRIVING
    spool.release([series])
    spool.complete(**AT_ONCE)
    entry = spool.next_waiting()
    assert (entry.generation, entry.attempts) == (1, 1)
    spool.send(entry, corrected(spool, entry, 1), ["A"])
    receive(spool, sop="1.3")
    assert state(spool) == SENDING
    one, title, (file,) = spool.next_to_send()
    spool.sent(one, title, file)
    assert spool.conclude(one, title)
    assert state(spool) == ARRIVING
    spool.release([series])
    spool.complete(**AT_ONCE)
    assert spool.next_waiting().generation == 2
    assert len(list(spool.source_of(series).iterdir())) == 3


def test_after_the_end_an_image_begins_it_again_but_one_that_is_known_does_not(spool):
    waiting(spool)
    spool.end(spool.next_waiting(), IGNORED, "no metal")
    receive(spool)
    assert state(spool) == IGNORED
    receive(spool, sop="1.2")
    assert state(spool) == ARRIVING


def test_after_a_kill(tmp_path):
    """Nothing is closed: the next one finds what the disk holds."""
    first = Spool(tmp_path / "spool")
    waiting(first)
    entry = first.next_waiting()
    (first.receiving / "half").write_bytes(b"half an obj")
    corrected(first, entry)
    second = Spool(tmp_path / "spool")
    assert state(second) == WAITING
    assert not list(second.receiving.iterdir())
    assert not list(second.corrected.iterdir())
    entry = second.next_waiting()
    assert entry.attempts == 2
    second.send(entry, corrected(second, entry), ["A"])
    one, title, files = second.next_to_send()
    second.sent(one, title, files[0])
    third = Spool(tmp_path / "spool")
    assert [file.name for file in third.next_to_send()[2]] == ["1.dcm"]
    assert third.next_to_send()[2][0].is_file()
    third.sent(one, title, files[1])
    fourth = Spool(tmp_path / "spool")  # all was sent, but that was not noted
    assert fourth.next_to_send() is None
    assert state(fourth) == DONE
    for one in (first, second, third, fourth):
        one.close()


def test_a_sender_has_time_to_come_back_after_a_kill(tmp_path):
    first = Spool(tmp_path / "spool")
    series, _ = receive(first)
    time.sleep(0.3)
    second = Spool(tmp_path / "spool")
    assert second.complete(quiet_s=0, timeout_s=0.25) == []
    time.sleep(0.3)
    assert second.complete(quiet_s=0, timeout_s=0.25) == [series]
    for one in (first, second):
        one.close()


def test_attempts_that_count_and_that_do_not(spool):
    waiting(spool)
    spool.again(spool.next_waiting(), "a bug")
    assert spool.next_waiting().attempts == 2
    (entry,) = [spool._entry(spool._one("SELECT id FROM series")["id"])]
    spool.again(entry, "no room", counted=False)
    entry = spool.next_waiting()
    assert entry.attempts == 2
    spool.end(entry, FAILED, "given up")
    assert spool.next_waiting() is None
    assert spool.retry_failed() == 1
    assert spool.next_waiting().attempts == 1


def test_what_is_old_is_forgotten(spool):
    series = waiting(spool)
    spool.end(spool.next_waiting(), FAILED, "no CT")
    assert spool.purge(keep_s=0, keep_failed_s=60) == 0
    assert spool.purge(keep_s=0, keep_failed_s=0) == 1
    assert not spool.source_of(series).exists()
    assert sum(spool.counts().values()) == spool.size_bytes() == 0
    assert receive(spool)[1] == STORED
