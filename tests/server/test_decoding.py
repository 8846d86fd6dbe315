"""How deep JSON from outside may be nested, wherever it comes in."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream import errors
from regstream.server import cursors, decoding
from regstream.server.decoding import MAX_DEPTH
from regstream.server.transports import messages
from tests.server import conftest
from tests.server.test_routes import BASE, is_problem
from tests.sio import test_wire as sio_wire
from tests.sio import world
from tests.test_ws import serving


def nested(depth: int, form: str = "list") -> str:
    """A 1 within so many lists, objects, or both by turns."""
    if form == "both":
        text = "1"
        for level in range(depth):
            text = f'{{"]":{text}}}' if level % 2 else f"[{text}]"
        return text
    begin, end = ("[", "]") if form == "list" else ('{"a":', "}")
    return begin * depth + "1" + end * depth


FORMS = ("list", "object", "both")
DEEP = (MAX_DEPTH + 1, 200, 254, 255, 500, 1_023, 1_025, 20_000)


@pytest.mark.parametrize("form", FORMS)
def test_the_bound_is_exact_and_the_same_for_every_depth_beyond(form: str) -> None:
    for depth in (0, 1, MAX_DEPTH - 1, MAX_DEPTH):
        decoding.bound(nested(depth, form).encode())
        assert decoding.loads(nested(depth, form)) is not None
    for depth in DEEP:
        with pytest.raises(decoding.TooDeep, match=f"deeper than {MAX_DEPTH} levels"):
            decoding.loads(nested(depth, form))


@pytest.mark.parametrize(
    "text", ["", "{", "]" * 500, "[" * 500, '{"a":' * 500, '"' + "[" * 500, '"\\', '{"a":"\\ud800"}', "\ud800"]
)
def test_what_is_no_json_is_that(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        decoding.loads(text)
    assert isinstance(caught.value, orjson.JSONDecodeError)


def test_brackets_in_texts_and_beside_each_other_are_no_nesting() -> None:
    for value in (["[" * 500, '\\"[{' * 500], [[]] * 5_000, [{"{": ["}"]}] * 500, {"\\": "[" * 100, '"': "]" * 100}):
        assert decoding.loads(orjson.dumps(value)) == value


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


scalars = st.none() | st.integers(-(2**60), 2**60) | st.text(st.sampled_from('[]{}\\"a,:'), max_size=12)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@given(values, st.integers(0, MAX_DEPTH + 4), st.booleans())
def test_it_is_measured_as_a_parser_would(value: Any, more: int, as_list: bool) -> None:
    for _ in range(more):
        value = [value, value] if as_list and depth_of(value) < 6 else {"[": value}
    text = json.dumps(value).encode()
    if depth_of(value) > MAX_DEPTH:
        with pytest.raises(decoding.TooDeep):
            decoding.bound(text)
    else:
        assert decoding.loads(text) == value


@pytest.mark.parametrize("depth", DEEP)
def test_messages_parameters_and_cursors_are_refused(depth: int) -> None:
    for form in FORMS:
        text = nested(depth, form)
        for read in (
            lambda text=text: messages.parse(b'{"action":"subscribe","channels":["A"],"after":' + text.encode() + b"}"),
            lambda text=text: messages.parse(text.encode()),
            lambda text=text: messages.from_query({"channel": ["A"], "after": [text]}),
        ):
            with pytest.raises(errors.BadValue, match="deeper than"):
                read()
    cursor = "W" + base64.urlsafe_b64encode(nested(140).encode()).decode().rstrip("=")
    with pytest.raises(errors.BadValue):
        cursors.read_place("after", cursor)


BODIES: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: f'{{"streamType":"SYSTEM_METRICS","count":1,"x":{text}}}',
    lambda text: f'{{"streamType":{text},"count":1}}',
)


async def test_bodies_and_queries_are_refused_as_problems(live: conftest.Live) -> None:
    client: httpx.AsyncClient = live.client
    for depth in DEEP:
        for form in FORMS:
            text = nested(depth, form)
            for body in BODIES:
                for method, path in (("POST", "burst"), ("PATCH", "streams/SYSTEM_METRICS"), ("POST", "simulate")):
                    answer = await client.request(
                        method, f"{BASE}/{path}", content=body(text), headers={"content-type": "application/json"}
                    )
                    assert "nested deeper" in is_problem(answer, 400)["detail"]
            if depth > 1_000:
                continue
            quoted = urllib.parse.quote(text)
            for path in (
                f"stream?channel=SYSTEM_METRICS&after={quoted}",
                f"events?where=a={quoted}",
                f"events?after={quoted}",
            ):
                is_problem(await client.get(f"{BASE}/{path}"), 400)


async def test_frames_are_answered_with_an_error_and_the_connection_goes_on() -> None:
    async with serving() as server, server.client() as client:
        for depth in DEEP[:-1]:
            await client.ws.send(nested(depth))
            assert "deeper than" in (await client.one("error"))["message"]
            await client.say(action="subscribe", channels=["ONE"], after=orjson.loads(nested(MAX_DEPTH - 1, "object")))
            assert (await client.one("error"))["code"] == "bad_value"
        await client.subscribe("ONE")


async def test_packets_are_acknowledged_with_an_error_on_both_transports() -> None:
    async with world.serving() as server:
        async with sio_wire.on_websocket(server) as one:
            for depth in DEEP[:-1]:
                await one.send(f'427["join-streaming","ONE",{{"after":{nested(depth, "object")}}}]')
                text = await sio_wire.said(one)
                assert text.startswith("437[") and "deeper than" in text
            await one.send('428["join-streaming","ONE"]')
            assert "error" not in await sio_wire.said(one)
        async with sio_wire.poller(server) as one:
            answer = await one.join("ONE", {"after": orjson.loads(nested(500, "object"))})
            assert answer["error"]["code"] == "bad_value" and "deeper than" in answer["error"]["message"]
            assert "streams" in await one.join("ONE")
