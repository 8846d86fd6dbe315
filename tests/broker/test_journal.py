"""Rows in a folder: what is there after a process that was killed, and how much of the disk that takes."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from regstream import errors
from regstream.broker import recovery, spool


def opened(folder: pathlib.Path, **options: Any) -> recovery.LocalState:
    """A journal; who lets go of one without ``close`` is as good as killed."""
    made = recovery.LocalState(spool.Spool(folder, **options), "E", lambda: 1_800_000_000.0)
    made.open()
    return made


def killed(one: recovery.LocalState) -> None:
    """Only the lock goes with the process."""
    one._spool._folder.close()


def size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.spool"))


def test_the_last_of_each_row_is_there_after_a_kill(tmp_path: pathlib.Path) -> None:
    first = opened(tmp_path)
    assert first.seed(11) == 11
    first.keep({"svp": {"A": {"spent": 0.1}, "B": {"spent": 2}}, "/told": {"S": {"told": 7}}})
    first.keep({"svp": {"A": {"spent": 10**15, "tags": [None, True, {"x": "ñ"}]}}})
    killed(first)
    second = opened(tmp_path)
    assert second.seed(12) == 11
    assert second.rows("svp") == {"A": {"spent": 10**15, "tags": [None, True, {"x": "ñ"}]}, "B": {"spent": 2}}
    assert second.rows("/told") == {"S": {"told": 7}} and second.rows("other") == {}
    assert second.position("S") is None and second.past("S") == []
    second.close()
    second.close()


def test_what_many_changes_take_is_bounded_by_what_the_rows_take(tmp_path: pathlib.Path) -> None:
    one = opened(tmp_path, segment_size=spool.LEAST, limit=64 * 2**20)
    text = "x" * 1_000
    for number in range(20_000):
        one.keep({"svp": {str(number % 50): {"spent": number, "text": text}}})
    # 20 MB of changes, of rows of 50 kB
    assert size(tmp_path) < 4 * recovery.LEAST_BYTES
    killed(one)
    again = opened(tmp_path)
    assert {state["spent"] for state in again.rows("svp").values()} == set(range(19_950, 20_000))
    again.close()


def test_a_process_that_dies_while_all_is_written_loses_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened(tmp_path)
    rows = {str(number): {"n": number} for number in range(2_500)}
    one.keep({"e": rows})
    monkeypatch.setattr(one._spool, "acknowledge", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one._write_all()
    killed(one)
    assert opened(tmp_path).rows("e") == rows


def test_what_cannot_be_written_down_is_said_once_and_the_rest_is_kept(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = opened(tmp_path)
    for number in (1, 2):
        one.keep({"odd": {"A": {"n": print}}, "svp": {"A": {"n": number}}})
    assert caplog.text.count("rows of odd will not be remembered") == 1
    one.close()
    again = opened(tmp_path)
    assert (again.rows("odd"), again.rows("svp")) == ({}, {"A": {"n": 2}})
    again.close()


def test_values_come_back_with_their_types(tmp_path: pathlib.Path) -> None:
    state = {
        "whole": 2**70,
        "float": 1e22,
        "zero": 1.0,
        "tuple": (1, 2),
        "keys": {1: "\0\ud800"},
        "order": {"b": 1, "a": 2},
    }
    one = opened(tmp_path)
    one.keep({"svp": {"A": state}})
    killed(one)
    again = opened(tmp_path)
    assert repr(again.rows("svp")) == repr({"A": state})
    again.close()


def test_a_note_that_nobody_understands_is_passed_over(tmp_path: pathlib.Path) -> None:
    one = opened(tmp_path)
    one._rows.keep = lambda _: b"["  # type: ignore[method-assign]
    one.keep({"svp": {"A": {"n": 1}}})
    del one._rows.keep
    one.keep({"svp": {"A": {"n": 2}}})
    killed(one)
    again = opened(tmp_path)
    assert again.rows("svp") == {"A": {"n": 2}}
    again.close()


def test_a_full_folder_is_said_once_and_ends_nothing(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    one = opened(tmp_path, limit=200_000)
    for number in range(3):
        one.keep({"svp": {str(number): {"text": "x" * 150_000}}})
    assert caplog.text.count("rows will not be what they are after a restart") == 1
    assert len(one.rows("svp")) == 3


def test_one_daemon_at_a_time_has_the_folder(tmp_path: pathlib.Path) -> None:
    one = opened(tmp_path)
    with pytest.raises(errors.StartError, match="spool"):
        opened(tmp_path)
    one.close()
    assert opened(tmp_path).seed(3) == 3
