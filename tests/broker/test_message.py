"""What is one of our events, and what is none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream.broker import codec
from tests.test_broker import events

(OURS,) = events(1, key="SVP-003", topic="t")
NOT_OURS: list[dict[str, Any]] = [
    {"id": "7"}, {"epoch": None}, {"epoch": "E2"}, {"seq": 0}, {"seq": -1}, {"seq": "1"}, {"seq": True}, {"seq": 1.0},
    {"priority": "URGENT"}, {"priority": []}, {"subject": 7}, {"specversion": "0.3"}, {"data": None}, {"data": [1]},
    {"time": 7}, {"region": {}}, {"type": ["one"]},
]  # fmt: skip


def test_ours_comes_back_as_it_was() -> None:
    assert codec.read("t", b"SVP-003", OURS.value) == OURS
    assert codec.read("t", None, OURS.value) == OURS._replace(key=None)


@pytest.mark.parametrize("change", NOT_OURS, ids=str)
def test_an_event_that_is_altered_is_not_ours(change: dict[str, Any]) -> None:
    assert codec.read("t", None, json.dumps({**json.loads(OURS.value), **change}).encode()) is None


@pytest.mark.parametrize("member", list(json.loads(OURS.value)))
def test_nor_is_one_that_lacks_what_we_read(member: str) -> None:
    value = json.loads(OURS.value)
    del value[member]
    read = codec.read("t", None, json.dumps(value).encode())
    assert (read is None) is (member not in ("source", "datacontenttype"))


def test_nor_one_with_a_key_that_is_no_text() -> None:
    assert codec.read("t", b"\xff", OURS.value) is None


@given(st.binary() | st.none(), st.binary() | st.none())
def test_bytes_never_raise(key: bytes | None, value: bytes | None) -> None:
    assert codec.read("t", key, value) is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner)
                    | st.dictionaries(st.sampled_from([*json.loads(OURS.value)]) | st.text(), inner)))  # fmt: skip
def test_json_never_raises(value: Any) -> None:
    codec.read("t", b"k", json.dumps(value).encode())


def test_the_time_as_kafka_has_it() -> None:
    assert codec.milliseconds("2026-11-23T12:00:00.123Z") == 1795435200123
