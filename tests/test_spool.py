"""The spool: what was appended is there, whatever happened to the process or to the file; what is lost is told."""

from __future__ import annotations

import collections
import errno
import itertools
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstream import errors, spec
from regstream.broker import spool
from regstream.broker.spool import block
from regstream.event import Event, Head
from tests import profiles, support

Priority = spec.Priority
TIME = "2026-11-23T12:00:00.123Z"
KIB = 1024


def head(stream: str = "ONE", priority: spec.Priority = Priority.NORMAL, time_: str = TIME) -> Head:
    return Head(stream, "01JD", "one", "t.one", priority, time_, "LATAM")


def events(
    count: int, first: int = 1, size: int = 100, stream: str = "ONE", priority: spec.Priority = Priority.NORMAL
) -> list[Event]:
    shared = head(stream, priority)
    return [Event(shared, seq, f"k{seq}", b"%d|" % seq + b"x" * size) for seq in range(first, first + count)]


def everything(one: spool.Spool, count: int = 500) -> list[Event]:
    return [event for chunk in one.unacknowledged(count) for event in chunk.events]


def killed(one: spool.Spool) -> None:
    """What the end of the process does to a spool: files are closed, nothing else."""
    for lane in one._lanes:
        for file in lane:
            file.close()
    one._folder.close()


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*.spool"))


def told(appended: spool.Appended) -> dict[str, int]:
    return {loss.stream: loss.events for loss in appended.lost}


Make = Callable[..., spool.Spool]


@pytest.fixture
def make(tmp_path: pathlib.Path) -> Iterator[Make]:
    """Opens spools, all in the same folder unless told otherwise, and closes them."""
    made: list[spool.Spool] = []

    def opened(folder: pathlib.Path = tmp_path / "spool", **options: int) -> spool.Spool:
        made.append(spool.Spool(folder, **options))
        made[-1].open()
        return made[-1]

    yield opened
    for one in made:
        one.close()


class TestKeeping:
    def test_events_come_back_identical(self, make: Make) -> None:
        sent = [
            *events(3),
            Event(head("ÑU", Priority.LOW), 1, None, b""),
            Event(head("ÑU", Priority.LOW), 2, "", b"\x00\xff" + block.MAGIC * 3),
            Event(head("TWO", Priority.CRITICAL), 2**63, "ñandú \udc80 \x00", "é".encode()),
            *events(700, first=4),
        ]
        one = make()
        assert one.append(sent) == (len(sent), ())
        assert everything(one) == sent
        killed(one)
        again = make()
        assert everything(again) == sent
        assert type(everything(again)[0]) is Event
        assert everything(again)[0].head.priority is Priority.NORMAL

    def test_nothing(self, make: Make) -> None:
        one = make()
        assert one.append([]) == (0, ())
        assert one.read(0) is None
        assert one.status == spool.SpoolStatus(0, 0, "", 0, spool.LIMIT, {}, 0, 0, "")

    def test_acknowledged_is_not_given_again(self, make: Make) -> None:
        one = make()
        sent = events(1000)
        one.append(sent)
        for upto in (0, 1, 200, 333, 999, 500):
            one.acknowledge(upto)
            waiting = 1000 - one.acknowledged
            assert one.waiting == waiting
            assert everything(one) == sent[1000 - waiting :]
        one.acknowledge(5000)
        assert one.acknowledged == one.last == 1000
        assert everything(one) == []

    def test_marks_go_on_after_a_restart(self, make: Make) -> None:
        one = make()
        one.append(events(10))
        one.acknowledge(10)
        one.close()
        assert not files(one._folder.path)
        again = make()
        assert again.last == 10
        assert again.append(events(1)).last == 11
        killed(again)
        assert make().read(0) == spool.Chunk(11, events(1))

    def test_order_holds_across_priorities(self, make: Make) -> None:
        one = make()
        mixed = [
            event
            for seq in range(1, 100)
            for priority in (Priority.LOW, Priority.CRITICAL, Priority.NORMAL)
            for event in events(seq % 3, first=seq, stream=priority.value, priority=priority)
        ]
        for at in range(0, len(mixed), 7):
            one.append(mixed[at : at + 7])
        assert everything(one, 5) == mixed
        killed(one)
        again = make()
        assert everything(again, 50) == mixed
        again.acknowledge(41)
        assert everything(again) == mixed[41:]
        assert again.waiting == len(mixed) - 41

    def test_what_comes_meanwhile_comes_too(self, make: Make) -> None:
        one = make()
        one.append(events(3))
        chunks = one.unacknowledged(1)
        assert next(chunks).events == events(3)
        one.append(events(2, first=4, priority=Priority.CRITICAL))
        assert next(chunks) == spool.Chunk(5, events(2, first=4, priority=Priority.CRITICAL))
        one.acknowledge(5)
        assert next(chunks, None) is None

    def test_several_chunks_may_be_under_way(self, make: Make) -> None:
        one = make()
        one.append(events(1000))
        first = one.read(0, 200)
        assert first
        second = one.read(first.upto, 200)
        assert second
        assert first.events + second.events == events(400)
        one.acknowledge(first.upto)
        assert one.read(0, 200) == second

    def test_files_go_when_nothing_in_them_waits(self, make: Make) -> None:
        one = make(segment_size=10 * KIB, limit=100_000 * KIB)
        marks = [one.append(events(20, first=1 + 20 * number, size=600)).last for number in range(40)]
        assert len(files(one._folder.path)) > 20
        before = one.status
        assert one.waiting_bytes == before.waiting_bytes
        for mark in marks:
            one.acknowledge(mark)
        assert before.size == before.waiting_bytes > 480_000
        assert len(files(one._folder.path)) == 1
        assert one.status.waiting_bytes == one.waiting_bytes == 0
        one.close()
        assert not files(one._folder.path)

    def test_a_file_that_is_written_to_all_the_time_stays_small(self, make: Make) -> None:
        one = make()
        for number in range(2000):
            one.acknowledge(one.append(events(10, first=1 + 10 * number, size=600)).last)
        assert one.status.size < 2 * spool.WORTH_DELETING

    def test_status(self, make: Make) -> None:
        one = make()
        one.append([Event(head(time_="2026-11-23T12:00:01.000Z"), 1, None, b"x" * 1000)])
        one.append([Event(head("LOW", Priority.LOW, "2026-11-23T12:00:02.000Z"), 1, None, b"y" * 1000)])
        status = one.status
        assert (status.waiting, status.oldest) == (2, "2026-11-23T12:00:01.000Z")
        assert 2000 < status.waiting_bytes == status.size < 2300
        one.acknowledge(1)
        assert (one.status.waiting, one.status.oldest) == (1, "2026-11-23T12:00:02.000Z")

    def test_one_write_a_batch(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        one = make()
        one.append(events(1))
        writes: list[int] = []
        real = os.writev
        monkeypatch.setattr(os, "writev", lambda fd, parts: writes.append(fd) or real(fd, parts))
        one.append(events(1000, first=2))
        assert len(writes) == 1


class TestFolder:
    def test_one_process_has_it(self, make: Make) -> None:
        one = make()
        with pytest.raises(errors.StartError, match=rf"in use by process {os.getpid()}$"):
            make()
        one.append(events(1))
        one.close()
        make()

    @pytest.mark.integration
    def test_another_process_is_named(self, tmp_path: pathlib.Path) -> None:
        script = "import sys, pathlib; from regstream.broker import spool; "
        script += f"s = spool.Spool(pathlib.Path({str(tmp_path)!r})); s.open(); print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, cwd=support.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout and process.stdout.readline()
            with pytest.raises(errors.StartError, match=f"in use by process {process.pid}"):
                spool.Spool(tmp_path).open()
            process.kill()
        one = spool.Spool(tmp_path)
        one.open()
        one.close()

    def test_a_folder_that_cannot_be(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(errors.StartError, match=r"spool .*: (file exists|not a directory)"):
            spool.Spool(tmp_path / "file").open()
        with pytest.raises(errors.StartError):
            spool.Spool(tmp_path / "file" / "below").open()

    def test_before_open_and_after_close(self, tmp_path: pathlib.Path) -> None:
        one = spool.Spool(tmp_path)
        for _ in range(2):
            assert told(one.append(events(3))) == {"ONE": 3}
            one.acknowledge(2)
            assert one.read(0) is None
            assert "not open" in one.status.error
            one.open()
            assert one.append(events(2)).lost == ()
            one.close()
            one.close()
        one.open()
        assert one.waiting == 4
        one.close()

    @pytest.mark.parametrize("damage", [b"", b"abc", b"\xff" * 12, bytes(12)])
    def test_a_mark_that_cannot_be_believed_loses_nothing(self, make: Make, damage: bytes) -> None:
        one = make()
        one.append(events(5))
        one.acknowledge(3)
        killed(one)
        (one._folder.path / "acknowledged").write_bytes(damage)
        again = make()
        assert everything(again) == events(5)
        assert again.append(events(1)).last == 6

    def test_what_is_not_ours_is_left_alone(self, make: Make, tmp_path: pathlib.Path) -> None:
        (tmp_path / "spool").mkdir()
        (tmp_path / "spool" / "notes.txt").write_text("mine")
        make().close()
        assert (tmp_path / "spool" / "notes.txt").read_text() == "mine"


class TestDamage:
    def filled(self, make: Make) -> tuple[pathlib.Path, list[list[Event]]]:
        """A folder with one file of ten blocks, as a killed process leaves it, and what is in each of them."""
        one = make()
        batches = [events(5, first=1 + 5 * number) for number in range(10)]
        for batch in batches:
            one.append(batch)
        killed(one)
        (path,) = files(one._folder.path)
        return path, batches

    def test_torn_at_any_byte(self, make: Make) -> None:
        path, batches = self.filled(make)
        data = path.read_bytes()
        ends = [found.end for found in block.search(data, 0)]
        for cut in range(len(data) - len(data) // 8, len(data)):
            path.write_bytes(data[:cut])
            one = make()
            whole = sum(end <= cut for end in ends)
            assert everything(one) == [event for batch in batches[:whole] for event in batch]
            assert one.status.torn == (cut not in ends)
            assert path.stat().st_size == one.status.size == ends[whole - 1]
            more = events(3, first=100)
            one.append(more)
            killed(one)
            for other in files(path.parent):
                if other != path:
                    other.unlink()

    @pytest.mark.parametrize("number", [0, 4, 9])
    def test_a_damaged_block_costs_itself(self, make: Make, number: int) -> None:
        path, batches = self.filled(make)
        data = bytearray(path.read_bytes())
        found = list(block.search(bytes(data), 0))[number]
        sound = [event for at, batch in enumerate(batches) if at != number for event in batch]
        for at in range(found.start, found.end, 7):
            spoilt = bytearray(data)
            spoilt[at] ^= 0x40
            path.write_bytes(spoilt)
            one = make()
            assert everything(one) == sound
            assert (one.status.damaged, one.status.torn) == ((0, 1) if number == 9 else (1, 0))
            killed(one)

    def test_any_bytes_at_all(self, make: Make) -> None:
        path, batches = self.filled(make)
        data = path.read_bytes()
        chance = random.Random(7)
        sent = [event for batch in batches for event in batch]
        for _ in range(100):
            spoilt = bytearray(data)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(spoilt))
                spoilt[at : at + chance.randint(0, 300)] = chance.randbytes(chance.randint(0, 300))
            path.write_bytes(spoilt)
            one = make()
            found = everything(one)
            assert found == [event for event in sent if event in found]
            killed(one)

    def test_a_block_within_a_value_is_not_found(self, make: Make) -> None:
        one = make()
        hidden = b"".join(block.pack(events(2), 1))
        one.append(events(4))
        one.append([Event(head(), 5, None, hidden + b"x" * 50)])
        one.append(events(1, first=6))
        killed(one)
        (path,) = files(one._folder.path)
        data = bytearray(path.read_bytes())
        data[list(block.search(bytes(data), 0))[1].end - 1] ^= 1
        path.write_bytes(data)
        assert [event.seq for event in everything(make())] == [1, 2, 3, 4, 6]

    def test_damage_while_it_is_open_is_passed_over(self, make: Make) -> None:
        one = make()
        for number in range(3):
            one.append(events(5, first=1 + 5 * number))
        (path,) = files(one._folder.path)
        with path.open("r+b") as file:
            file.seek(one.status.size // 2)
            file.write(b"????")
        assert everything(one) == events(5) + events(5, first=11)
        assert one.status.damaged

    def test_a_file_that_is_gone_is_told(self, make: Make) -> None:
        one = make()
        one.append(events(5))
        one.append(events(5, stream="TWO", priority=Priority.LOW))
        files(one._folder.path)[0].unlink()
        assert everything(one) == events(5, stream="TWO", priority=Priority.LOW)
        assert one.status.lost == {"ONE": 5}
        assert one.append(events(1)).lost == ()
        assert one.status.waiting == 6


class TestFull:
    """A limit of 1,600 KiB is files of about 100 KiB, each of them a batch of 100 events here."""

    def batch(self, number: int, priority: spec.Priority) -> list[Event]:
        return events(100, first=1 + 100 * number, size=1000, stream=priority.value, priority=priority)

    def fill(self, one: spool.Spool, priority: spec.Priority, count: int, first: int = 0) -> dict[str, int]:
        lost: collections.Counter[str] = collections.Counter()
        for number in range(first, first + count):
            lost.update(told(one.append(self.batch(number, priority))))
        return dict(lost)

    def seqs(self, one: spool.Spool) -> dict[str, list[int]]:
        found: dict[str, list[int]] = collections.defaultdict(list)
        for event in everything(one):
            found[event.head.stream].append(event.seq)
        return found

    def test_the_lowest_priority_goes_first(self, make: Make) -> None:
        one = make(limit=1600 * KIB)
        assert self.fill(one, Priority.HIGH, 5) == self.fill(one, Priority.NORMAL, 5) == {}
        assert self.fill(one, Priority.LOW, 4) == {}
        lost = self.fill(one, Priority.CRITICAL, 8)
        assert set(lost) == {"LOW", "NORMAL"}
        assert lost["LOW"] == 400
        left = self.seqs(one)
        assert left["HIGH"] == list(range(1, 501))
        assert left["CRITICAL"] == list(range(1, 801))
        assert left["NORMAL"] == list(range(1 + lost["NORMAL"], 501))
        assert one.status.lost == lost
        assert one.status.size <= 1600 * KIB

    def test_less_urgent_than_all_that_wait_is_refused(self, make: Make) -> None:
        one = make(limit=1600 * KIB)
        self.fill(one, Priority.HIGH, 15)
        appended = one.append(self.batch(0, Priority.LOW))
        while not appended.lost:
            appended = one.append(self.batch(0, Priority.LOW))
        before = self.seqs(one)["HIGH"]
        assert len(before) == 1500
        refused = one.append(self.batch(7, Priority.NORMAL) + self.batch(8, Priority.NORMAL))
        assert before == self.seqs(one)["HIGH"]
        assert sum(told(refused).values()) >= 200

    def test_of_the_same_priority_the_oldest_go(self, make: Make) -> None:
        one = make(limit=1600 * KIB)
        lost = self.fill(one, Priority.NORMAL, 40)
        left = self.seqs(one)["NORMAL"]
        assert left == list(range(lost["NORMAL"] + 1, 4001))
        assert len(left) >= 1300

    def test_what_is_lost_is_told_exactly(self, make: Make) -> None:
        one = make(limit=1600 * KIB)
        self.fill(one, Priority.LOW, 14)
        one.acknowledge(30)
        lost = [loss for number in range(4) for loss in one.append(self.batch(number, Priority.HIGH)).lost]
        assert lost[0] == spool.Loss("LOW", "01JD", 31, lost[0].last, lost[0].last - 30)
        assert sum(loss.events for loss in lost) == lost[-1].last - 30
        assert self.seqs(one)["LOW"] == list(range(lost[-1].last + 1, 1401))

    def test_what_is_being_sent_goes_too_and_is_lost_only_if_that_fails(self, make: Make) -> None:
        one = make(limit=1600 * KIB)
        self.fill(one, Priority.LOW, 10)
        one.hold(300)
        lost = self.fill(one, Priority.HIGH, 14)
        left = self.seqs(one)
        assert left["HIGH"] == list(range(1, 1401))
        # Those that are being sent went first: they are the oldest of the least urgent
        assert lost == {"LOW": left["LOW"][0] - 301}
        one.acknowledge(200)
        assert one.release() == (spool.Loss("LOW", "01JD", 201, 300, 100),)
        assert one.status.lost == {"LOW": left["LOW"][0] - 201}

    def test_what_is_in_memory_alone_is_lost_with_it(self, make: Make) -> None:
        one = make(limit=100 * KIB)
        one.append(events(90, size=1000, priority=Priority.CRITICAL), held=True)
        assert one.append(events(90, size=1000, stream="LOW", priority=Priority.LOW), held=True) == (180, ())
        assert one.status.lost == {}
        one.acknowledge(90)
        assert one.release() == (spool.Loss("LOW", "01JD", 1, 90, 90),)
        assert one.release() == ()
        assert one.status.lost == {"LOW": 90}

    def test_what_is_done_with_makes_room_first(self, make: Make) -> None:
        one = make(limit=1600 * KIB)
        self.fill(one, Priority.LOW, 7)
        self.fill(one, Priority.HIGH, 7)
        one.acknowledge(700)
        assert self.fill(one, Priority.LOW, 6, first=7) == {}

    def test_larger_than_the_limit(self, make: Make) -> None:
        one = make(limit=600 * KIB)
        one.append(events(10, size=1000))
        huge = Event(head("HUGE", Priority.CRITICAL), 1, None, b"x" * 700 * KIB)
        assert told(one.append([huge])) == {"HUGE": 1}
        assert everything(one) == events(10, size=1000)
        appended = one.append(events(1000, first=11, size=1000))
        left = everything(one)
        assert left == events(len(left), first=1011 - len(left), size=1000)
        assert told(appended) == {"ONE": 1010 - len(left)}
        assert len(left) > 100

    @settings(max_examples=profiles.examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_nothing_vanishes_untold(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        folder = tmp_path_factory.mktemp("spool")
        one = spool.Spool(folder, limit=300 * KIB)
        one.open()
        given_, lost = set(), collections.Counter[str]()
        seqs: collections.Counter[str] = collections.Counter()
        for _ in range(data.draw(st.integers(5, 40))):
            priority = data.draw(st.sampled_from(Priority))
            count, size = data.draw(st.integers(1, 30)), data.draw(st.integers(10, 4000))
            batch = events(count, seqs[priority] + 1, size, priority.value, priority)
            seqs[priority.value] += count
            given_.update((event.head.stream, event.seq) for event in batch)
            appended = one.append(batch)
            lost.update(told(appended))
            for loss in appended.lost:
                gone = {(loss.stream, seq) for seq in range(loss.first, loss.last + 1)}
                if len(gone) == loss.events:
                    assert not gone & {(event.head.stream, event.seq) for event in everything(one)}
            assert one.status.size <= 300 * KIB
            if data.draw(st.integers(0, 9)) == 0:
                killed(one)
                one = spool.Spool(folder, limit=300 * KIB)
                one.open()
        left = everything(one)
        assert one.waiting == len(left) == len(given_) - lost.total()
        streams = collections.Counter(event.head.stream for event in left)
        assert streams == seqs - lost
        one.close()


@pytest.fixture
def small(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of 512 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", f"{folder}"]
        mounted = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no mount: {error}")
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", f"{folder}"], check=True)


@pytest.mark.integration
class TestDisk:
    def check_full_and_free_again(self, one: spool.Spool, free: Callable[[], Any]) -> None:
        kept: list[Event] = []
        lost = 0
        for number in range(40):
            batch = events(50, first=1 + 50 * number, size=1000)
            appended = one.append(batch)
            if appended.lost:
                assert appended.lost == (spool.Loss("ONE", "01JD", batch[0].seq, batch[-1].seq, 50),)
                causes = [os.strerror(code).lower() for code in (errno.ENOSPC, errno.EFBIG)]
                assert re.fullmatch(rf"/\S+: ({'|'.join(causes)}): .*choose another place", one.status.error)
                lost += 50
            else:
                kept += batch
        assert kept
        assert lost
        assert everything(one) == kept
        assert sum(path.stat().st_size for path in files(one._folder.path)) == one.status.size
        assert all(path.stat().st_size for path in files(one._folder.path))
        free()
        assert one.append(events(50, first=5000, size=1000)).lost == ()
        assert one.status.error == ""
        assert one.status.lost == {"ONE": lost}
        killed(one)
        again = spool.Spool(one._folder.path)
        again.open()
        assert everything(again) == kept + events(50, first=5000, size=1000)
        assert (again.status.damaged, again.status.torn) == (0, 0)
        again.close()

    def test_a_disk_that_is_full(self, small: pathlib.Path) -> None:
        (small / "ballast").write_bytes(b"x" * 100 * KIB)
        one = spool.Spool(small / "spool")
        one.open()
        self.check_full_and_free_again(one, (small / "ballast").unlink)

    def test_a_full_disk_takes_the_urgent_in_place_of_the_less_urgent(self, small: pathlib.Path, make: Make) -> None:
        one = make(small / "spool")
        batches = itertools.count()

        def fill(priority: Priority, count: int = 50) -> int:
            """How many of them are lost at once."""
            made = events(count, 1 + 50 * next(batches), 1000, priority.value, priority)
            return told(one.append(made)).get(priority.value, 0)

        while not fill(Priority.NORMAL, 10):
            fill(Priority.LOW, 10)
        before = dict(one.status.lost)
        assert before.pop("LOW", 0) and before == {"NORMAL": 10}
        assert fill(Priority.LOW)
        assert not any(fill(Priority.CRITICAL) for _ in range(4))
        # A part of them, not one whole file of the disk's size
        assert one.status.waiting - 200 > 0
        while not fill(Priority.CRITICAL):
            pass
        left = everything(one)
        assert {event.head.priority for event in left} == {Priority.CRITICAL}
        # Not among themselves
        assert [event.seq for event in left] == sorted(event.seq for event in left)
        killed(one)
        again = make(small / "spool")
        assert everything(again) == left
        # The numbers of what went are not used again
        assert set(again.positions) == {"LOW", "NORMAL", "CRITICAL"}

    @settings(max_examples=profiles.examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_nothing_is_lost_while_something_less_urgent_waits(self, small: pathlib.Path, data: st.DataObject) -> None:
        """Whatever there is too little of: the spool's own room, the disk's, or that of a file."""
        for path in sorted(small.glob("**/*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit, most = data.draw(st.sampled_from([(300 * KIB, 0), (spool.LIMIT, 0), (spool.LIMIT, 50 * KIB)]))
        one = spool.Spool(small / "spool", limit=limit)
        one.open()
        made, lost = collections.Counter[str](), collections.Counter[str]()
        resource.setrlimit(resource.RLIMIT_FSIZE, (most or before[0], before[1]))
        try:
            for _ in range(data.draw(st.integers(20, 60))):
                priority = data.draw(st.sampled_from(Priority))
                count, size = data.draw(st.integers(1, 30)), data.draw(st.sampled_from([10, 400, 1000]))
                batch = events(count, made[priority.value] + 1, size, priority.value, priority)
                if data.draw(st.integers(0, 5)) == 0:
                    one.hold(one.last)
                made[priority.value] += count
                gone = collections.Counter(told(one.append(batch)))
                lost += gone
                if gone:
                    most_urgent = min(Priority(name).rank for name in gone)
                    assert all(event.head.priority.rank <= most_urgent for event in everything(one))
                if data.draw(st.integers(0, 9)) == 0:
                    one.acknowledge(one.acknowledged + one.waiting // 3)
                if data.draw(st.integers(0, 5)) == 0:
                    lost += collections.Counter({loss.stream: loss.events for loss in one.release()})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert one.status.lost == lost
        one.close()

    def test_a_file_that_may_not_grow(self, tmp_path: pathlib.Path) -> None:
        """The kernel writes the part that fits: a torn block, which must not stay. The next file takes the whole."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        one = spool.Spool(tmp_path)
        one.open()
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
        try:
            for number in range(5):
                one.append(events(50, first=1 + 50 * number, size=1000))
            appended = one.append(events(50, first=251, size=1000))
            assert (appended.lost, one.status.error) == ((), "")
            huge = events(1, first=1000, size=400_000, stream="HUGE")
            assert told(one.append(huge)) == {"HUGE": 1}
            assert os.strerror(errno.EFBIG).lower() in one.status.error
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert everything(one) == events(300, size=1000)
        assert one.append(events(50, first=301, size=1000)).lost == ()
        killed(one)
        again = spool.Spool(tmp_path)
        again.open()
        assert len(everything(again)) == 350
        assert len(files(tmp_path)) == 3
        assert again.status.torn == 0
        again.close()

    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
    def test_nothing_can_be_done(self, make: Make, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        def fail(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        one = make()
        one.append(events(5))
        with monkeypatch.context() as patched:
            for name in ("writev", "write", "pwrite", "ftruncate", "open"):
                patched.setattr(os, name, fail)
            for number in range(3):
                assert told(one.append(events(5, first=6 + 5 * number))) == {"ONE": 5}
                assert os.strerror(code).lower() in one.status.error and "choose" in one.status.error
            one.acknowledge(2)
            assert one.acknowledged == 2
        assert everything(one) == events(3, first=3)
        assert one.append(events(5, first=50)).last == 25
        assert one.status.error == ""
        assert everything(one) == events(3, first=3) + events(5, first=50)


class Killed(BaseException):
    """The process ends here."""


class Machine:
    """A spool that is used, killed in the middle of a write, and opened again; with a list beside it that is right."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.waiting: dict[int, Event] = {}
        self.acknowledged = 0
        self.open()

    def open(self) -> None:
        self.spool = spool.Spool(self.folder, segment_size=2 * KIB)
        self.spool.open()

    def append(self, batch: list[Event]) -> None:
        first = self.spool.last + 1
        assert self.spool.append(batch) == (first + len(batch) - 1, ())
        self.waiting.update(enumerate(batch, first))

    def acknowledge(self, mark: int) -> None:
        self.spool.acknowledge(mark)
        self.acknowledged = max(self.acknowledged, min(mark, self.spool.last))
        self.waiting = {at: event for at, event in self.waiting.items() if at > self.acknowledged}

    def kill_while_appending(self, batch: list[Event], room: int) -> None:
        """SIGKILL after ``room`` bytes; what was written whole may be there afterwards, all else must be as it was."""
        first, real = self.spool.last + 1, os.writev

        def partial(fd: int, parts: list[bytes]) -> int:
            nonlocal room
            data = b"".join(parts)
            done = os.write(fd, data[:room])
            room -= done
            if done < len(data):
                raise Killed
            return done

        os.writev = partial
        try:
            self.spool.append(batch)
        except Killed:
            pass
        finally:
            os.writev = real
        killed(self.spool)
        self.open()
        maybe = dict(enumerate(batch, first))
        found = {event.value for event in everything(self.spool)}
        self.waiting.update({at: event for at, event in maybe.items() if event.value in found})

    def check(self, count: int) -> None:
        assert everything(self.spool, count) == [event for _, event in sorted(self.waiting.items())]
        assert self.spool.waiting == len(self.waiting)
        assert self.spool.acknowledged == self.acknowledged
        marks = [chunk.upto for chunk in self.spool.unacknowledged(count)]
        assert marks == sorted(set(marks))


@settings(max_examples=profiles.examples(80))
@given(st.data())
def test_killed_at_any_byte_nothing_is_lost_doubled_or_reordered(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    machine = Machine(tmp_path_factory.mktemp("spool"))
    number = 0

    def batch() -> list[Event]:
        nonlocal number
        made: list[Event] = []
        for _ in range(data.draw(st.integers(1, 3))):
            priority, count = data.draw(st.sampled_from(Priority)), data.draw(st.integers(1, 8))
            made += events(count, number + 1, data.draw(st.integers(0, 300)), priority.value, priority)
            number += count
        return made

    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(["append", "append", "acknowledge", "kill", "reopen", "check"])):
            case "append":
                machine.append(batch())
            case "acknowledge":
                machine.acknowledge(data.draw(st.integers(0, machine.spool.last + 2)))
            case "kill":
                machine.kill_while_appending(batch(), data.draw(st.integers(0, 4000)))
            case "reopen":
                machine.spool.close()
                machine.open()
            case "check":
                machine.check(data.draw(st.integers(1, 20)))
    machine.check(100)
    machine.spool.close()


@pytest.mark.integration
def test_killed_for_real(tmp_path: pathlib.Path) -> None:
    script = textwrap.dedent(f"""
        import pathlib, sys
        from regstream.broker import spool
        from tests import test_spool
        one = spool.Spool(pathlib.Path({str(tmp_path / "spool")!r}))
        one.open()
        seq = one.last
        print("open", flush=True)
        while True:
            last = one.append(test_spool.events(20, seq + 1, 600)).last
            if last % 3 == 0:
                one.acknowledge(last - 50)
            sys.stdout.write(f"{{seq + 1}} {{last}} {{one.acknowledged}}\\n")
            sys.stdout.flush()
            seq = last
    """)
    chance = random.Random(5)
    for _ in range(5):
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, cwd=support.ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout and process.stdout.readline() == "open\n"
            said = [process.stdout.readline() for _ in range(chance.randint(1, 500))]
            process.send_signal(signal.SIGKILL)
            said += process.stdout.readlines()
        if not said[-1].endswith("\n"):
            said.pop()
        _, last, acknowledged = map(int, said[-1].split())
        one = spool.Spool(tmp_path / "spool")
        one.open()
        left = everything(one)
        # One more round may have been done before it could be said.
        assert one.last in (last, last + 20)
        assert acknowledged <= one.acknowledged <= max(acknowledged, one.last - 50)
        assert [event.seq for event in left] == list(range(one.acknowledged + 1, one.last + 1))
        assert left == events(len(left), one.acknowledged + 1, 600)
        killed(one)


class TestSize:
    def test_many_events_take_little_memory(self, make: Make) -> None:
        one = make()
        for number in range(600):
            one.append(events(100, first=1 + 100 * number, size=600))
        assert one.waiting == 60_000
        tracemalloc.start()
        expected = 1
        for chunk in one.unacknowledged():
            assert chunk.events[0].seq == expected
            expected = chunk.events[-1].seq + 1
            one.acknowledge(chunk.upto)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert expected == 60_001
        assert peak < 4_000_000

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [100, 1])
    def test_speed(self, make: Make, size: int, capsys: pytest.CaptureFixture[str]) -> None:
        one = make()
        batches = [events(size, 1 + size * number, 600) for number in range(20_000 // size)]
        took = {}
        start = time.process_time()
        for batch in batches:
            one.append(batch)
        took["append"] = time.process_time() - start
        start = time.process_time()
        count = len(everything(one))
        took["read"] = time.process_time() - start
        start = time.process_time()
        for number in range(len(batches)):
            one.acknowledge((number + 1) * size)
        took["acknowledge"] = time.process_time() - start
        with capsys.disabled():
            figures = ", ".join(f"{name} {seconds / count * 1e6:.2f}" for name, seconds in took.items())
            print(f"\nspool, batches of {size}, µs an event of 600 bytes: {figures}")
        assert count == 20_000
        # Ten times what it takes: this is about a mistake, the figures are above.
        assert sum(took.values()) < (floor(batches) if size > 1 else 12 * floor(batches))


def floor(batches: list[list[Event]]) -> float:
    """Processor seconds for a fixed piece of work with these events, which is as slow as the machine is."""
    start = time.process_time()
    for batch in batches:
        for event in batch:
            for _ in range(4):
                json.loads(json.dumps({"text": event.value.decode("latin-1"), "numbers": list(range(20))}))
    return time.process_time() - start


class TestPositions:
    """Where streams stood outlives what they were told in."""

    def test_are_the_newest_ever_appended(self, make: Make) -> None:
        one = make()
        assert one.positions == {}
        one.append(events(10))
        one.append(events(5, stream="TWO", priority=Priority.HIGH))
        one.acknowledge(one.last)
        assert one.positions == {"ONE": ("01JD", 10), "TWO": ("01JD", 5)}

    @pytest.mark.parametrize("end", [killed, spool.Spool.close])
    def test_outlive_the_files(self, make: Make, end: Callable[[spool.Spool], None]) -> None:
        one = make(limit=1024 * KIB, segment_size=64 * KIB)
        one.append(events(3, stream="TWO"))
        for first in range(1, 2001, 100):
            one.acknowledge(one.append(events(100, first, size=600)).last)
        end(one)
        for _ in range(2):
            again = make()
            assert again.waiting == 0
            assert again.positions == {"ONE": ("01JD", 2000), "TWO": ("01JD", 3)}
            end(again)

    def test_of_what_was_lost_are_kept_too(self, make: Make) -> None:
        one = make(limit=64 * KIB)
        for first in range(1, 2001, 100):
            one.append(events(100, first, size=600, priority=Priority.LOW))
        one.close()
        assert make().positions == {"ONE": ("01JD", 2000)}

    @pytest.mark.parametrize("text", ["", "[]", '{"ONE": 3}', '{"ONE": ["E", "x"]}', "\0\0"])
    def test_that_cannot_be_believed_are_as_good_as_none(self, make: Make, tmp_path: pathlib.Path, text: str) -> None:
        one = make()
        one.append(events(3))
        killed(one)
        (tmp_path / "spool" / "positions").write_text(text)
        assert make().positions == {"ONE": ("01JD", 3)}
