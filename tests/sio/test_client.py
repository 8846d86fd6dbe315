"""The real JavaScript client against a real server, on each way that it takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.sio import world
from tests.sio.world import BOUND, POLLING, UPGRADE, WEBSOCKET, Node, Server, until

WAYS = pytest.mark.parametrize("way", [POLLING, WEBSOCKET, UPGRADE], ids=["polling", "websocket", "upgrade"])


def expected(stream: str, first: int, last: int, epoch: str = "E1") -> list[tuple[str, str, int]]:
    return [(stream, epoch, seq) for seq in range(first, last + 1)]


async def came(client: Node, count: int, event: str = "streaming-update") -> list[tuple[str, str, int]]:
    """What came under a name, when there is so much of it."""
    await until(lambda: client.names().count(event) >= count)
    return client.seqs(event)


class TestWays:
    @WAYS
    async def test_join_receive_leave(self, server: Server, client: Node, way: dict[str, Any]) -> None:
        await client.open(server.port, way)
        answer = await client.ask("join-streaming", "dashboard-updates")
        state = {"epoch": "E1", "seq": 0, "recovered": False, "replayed": 0}
        assert answer == {"channels": ["dashboard-updates"], "streams": dict.fromkeys(("ONE", "TWO", "ALERTS"), state)}
        assert server.hub.subscribers == 1
        server.show("ONE", 2)
        server.show("ALERTS")
        assert await came(client, 3) == [*expected("ONE", 1, 2), ("ALERTS", "E1", 1)]
        await came(client, 1, "immediate-alert")
        assert client.names() == ["streaming-update", "one-type"] * 2 + ["streaming-update", "immediate-alert"]
        frames = [one for one in client.all("event") if one["event"] == "one-type"]
        assert frames[0]["data"] == {"subject": "ONE", "epoch": "E1", "seq": 1, "pad": ""}
        assert {one["rest"] for one in client.all("event")} == {0}
        assert await client.ask("leave-streaming", "dashboard-updates") == {"channels": ["dashboard-updates"]}
        assert server.hub.subscribers == 0
        server.show("ONE")
        assert await client.ask("join-streaming", ["ONE", "two-type"])
        server.show("ONE")
        assert (await came(client, 4))[-1] == ("ONE", "E1", 4)
        assert client.all("disconnect") == client.all("connect_error") == []

    @WAYS
    async def test_it_takes_the_way_that_it_should(self, server: Server, client: Node, way: dict[str, Any]) -> None:
        await client.open(server.port, way)
        first = (await client.until("open"))["transport"]
        assert first == way["transports"][0]
        if way is UPGRADE:
            assert (await client.until("upgrade"))["transport"] == "websocket"

    @WAYS
    async def test_thousands_at_once_are_whole(self, server: Server, client: Node, way: dict[str, Any]) -> None:
        await client.open(server.port, way)
        await client.ask("join-streaming", ["ONE", "TWO"])
        for _ in range(20):
            server.show("ONE", 150, size=200)
            server.show("TWO", 2, size=40_000)
            await asyncio.sleep(0)
        seqs = await came(client, 3040)
        assert [one for one in seqs if one[0] == "ONE"] == expected("ONE", 1, 3000)
        assert [one for one in seqs if one[0] == "TWO"] == expected("TWO", 1, 40)
        assert client.seqs("one-type") == expected("ONE", 1, 3000)

    @WAYS
    async def test_leaving_is_noticed(self, server: Server, client: Node, way: dict[str, Any]) -> None:
        await client.open(server.port, way)
        await client.ask("join-streaming", "ONE")
        client.do("disconnect")
        await until(lambda: server.sessions.connections == server.hub.subscribers == 0)
        assert (await client.until("disconnect"))["reason"] == "io client disconnect"
        client.do("connect")
        await client.until("connect", 2)
        assert await client.ask("join-streaming", "ONE")

    @WAYS
    async def test_frames_that_are_no_events(self, server: Server, client: Node, way: dict[str, Any]) -> None:
        await client.open(server.port, way)
        await client.ask("join-streaming", "system")
        server.hub.announce("reload", {"generation": 2})
        await until(lambda: client.names())
        frame = client.all("event")[0]
        assert (frame["event"], frame["data"]["kind"]) == ("system", "reload")
        await client.ask("join-streaming", "ONE", {"policy": "dropOldest", "maxRate": 0.5})
        server.show("ONE", 5000)
        await until(lambda: "lagging" in client.names())
        told = next(one["data"] for one in client.all("event") if one["event"] == "lagging")
        assert told == {"dropped": {"ONE": 5000 - 4096}, "total": 5000 - 4096}
        assert await came(client, 1) == [("ONE", "E1", 905)]
        assert "reload" not in client.names() and client.names().count("system") == 1


class TestUpgrade:
    async def test_nothing_is_lost_doubled_or_overtaken(self, server: Server, client: Node) -> None:
        async with world.proxied(server.port) as proxy:
            proxy.websockets.clear()
            await client.open(proxy.port, UPGRADE)
            await client.ask("join-streaming", "ONE")
            shown = 0
            while not client.all("upgrade") or shown < 3000:
                server.show("ONE", 5, size=300)
                shown += 5
                if shown == 1000:
                    assert client.all("upgrade") == [] and proxy.held == 1
                    proxy.websockets.set()
                await asyncio.sleep(0.001)
                assert shown < 100_000, "it never changes over"
            assert await came(client, shown) == expected("ONE", 1, shown)
            assert client.seqs("one-type") == expected("ONE", 1, shown)
            assert client.all("disconnect") == []

    async def test_one_that_fails_leaves_the_client_polling(self, server: Server, client: Node) -> None:
        async with world.proxied(server.port) as proxy:
            proxy.websockets.clear()
            await client.open(proxy.port, UPGRADE)
            await client.ask("join-streaming", "ONE")
            await until(lambda: proxy.held == 1)
            proxy.spoil()
            proxy.websockets.set()
            server.show("ONE", 500)
            assert await came(client, 500) == expected("ONE", 1, 500)
            assert client.all("upgrade") == client.all("disconnect") == []


class TestOptions:
    async def test_after_rewind_snapshot(self, server: Server, client: Node) -> None:
        server.show("ONE", 50)
        server.show("TWO", 3, key="a")
        server.show("TWO", 1, key="b")
        await client.open(server.port, WEBSOCKET)
        after = {"ONE": {"epoch": "E1", "seq": 40}}
        answer = await client.ask("join-streaming", ["ONE", "TWO"], {"after": after, "snapshot": True})
        assert answer["streams"]["ONE"] == {
            "epoch": "E1", "seq": 50, "recovered": True, "replayed": 10, "snapshot": 0
        }  # fmt: skip
        assert answer["streams"]["TWO"]["snapshot"] == 2
        seqs = await came(client, 12)
        assert seqs == [*expected("ONE", 41, 50), ("TWO", "E1", 3), ("TWO", "E1", 4)]
        names = [one["on"] for one in client.said if one["on"] in ("ack", "event")]
        assert names.index("ack") == 0, "the acknowledgement goes before what is replayed"
        await client.ask("leave-streaming", ["ONE", "TWO"])
        answer = await client.ask("join-streaming", "ONE", {"rewind": 4})
        assert answer["streams"]["ONE"]["replayed"] == 4
        assert (await came(client, 16))[12:] == expected("ONE", 47, 50)

    async def test_null_is_no_options(self, server: Server, client: Node) -> None:
        await client.open(server.port, WEBSOCKET)
        assert (await client.ask("join-streaming", "ONE", None))["channels"] == ["ONE"]

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["dashboard-update"], "unknown_channel", "unknown channel 'dashboard-update'"),
            ([], "bad_value", "channels"),
            ([7], "bad_value", "channels"),
            ([[]], "bad_value", "channels"),
            ([["ONE", 7]], "bad_value", "channels.1"),
            (["ONE", "x"], "bad_value", "options"),
            (["ONE", {"rewind": -1}], "bad_value", "rewind"),
            (["ONE", {"after": {"ONE": 7}}], "bad_value", "after.ONE"),
            (["ONE", {"what": 1}], "bad_value", "what"),
            (["ONE", {"policy": "none"}], "bad_value", "policy"),
        ],
    )
    async def test_what_is_wrong_is_told(
        self, server: Server, client: Node, arguments: list[Any], code: str, message: str
    ) -> None:
        await client.open(server.port, WEBSOCKET)
        answer = await client.ask("join-streaming", *arguments)
        assert set(answer) == {"error"}
        assert answer["error"]["code"] == code
        assert answer["error"]["message"].startswith(message)
        client.tell("join-streaming", *arguments)
        await until(lambda: client.names() == ["error"])
        assert client.all("event")[0]["data"] == answer["error"]
        assert server.hub.subscribers == 0
        assert (await client.ask("join-streaming", "ONE"))["channels"] == ["ONE"], "the connection goes on"

    async def test_an_event_that_there_is_not(self, server: Server, client: Node) -> None:
        await client.open(server.port, WEBSOCKET)
        answer = await client.ask("join-steaming", "ONE")
        assert answer["error"]["code"] == "unknown_event" and answer["error"]["near"][0] == "join-streaming"
        answer = await client.ask("leave-streaming", "NONE")
        assert answer["error"]["code"] == "unknown_channel"


class TestReturn:
    @WAYS
    async def test_a_cut_is_made_good(self, server: Server, client: Node, way: dict[str, Any]) -> None:
        """5,000 events: as many as 10 s at 500 a second."""
        async with world.serving(ring_events=6000) as server, world.proxied(server.port) as proxy:
            await client.open(proxy.port, way, follow=["ONE", "TWO"])
            await client.until("joined")
            server.show("ONE", 100)
            server.show("TWO", 1)
            await came(client, 101)
            proxy.cut()
            assert (await client.until("disconnect"))["reason"] in ("transport close", "transport error")
            # Between two polls nobody notices there yet: the session goes on without the client for a while
            server.show("ONE", 5000)
            proxy.mend()
            again = (await client.until("joined", 2))["data"]["streams"]
            assert again["ONE"] == {"epoch": "E1", "seq": 5100, "recovered": True, "replayed": 5000}
            assert again["TWO"] == {"epoch": "E1", "seq": 1, "recovered": True, "replayed": 0}
            server.show("ONE", 50)
            seqs = await came(client, 5151)
            assert [one for one in seqs if one[0] == "ONE"] == expected("ONE", 1, 5150)

    async def test_longer_than_history_lasts(self, client: Node) -> None:
        async with world.serving(ring_events=100) as server, world.proxied(server.port) as proxy:
            await client.open(proxy.port, WEBSOCKET, follow=["ONE"], join={"snapshot": True})
            await client.until("joined")
            server.show("ONE", 10)
            await came(client, 10)
            proxy.cut()
            await client.until("disconnect")
            server.show("ONE", 500)
            proxy.mend()
            again = (await client.until("joined", 2))["data"]["streams"]["ONE"]
            assert again == {"epoch": "E1", "seq": 510, "recovered": False, "replayed": 0, "snapshot": 1}
            assert (await came(client, 11))[10:] == [("ONE", "E1", 510)]

    @WAYS
    async def test_another_server_in_its_place(self, client: Node, way: dict[str, Any]) -> None:
        async with world.serving() as server:
            port = server.port
            await client.open(port, way, follow=["ONE"])
            await client.until("joined")
            server.show("ONE", 20)
            await came(client, 20)
        # Not "io server disconnect", after which a client does not come back
        assert (await client.until("disconnect"))["reason"] in ("transport close", "transport error")
        async with world.serving(port=port, epoch="E2") as server:
            server.show("ONE", 5)
            again = (await client.until("joined", 2))["data"]["streams"]["ONE"]
            assert (again["epoch"], again["recovered"], again["replayed"]) == ("E2", False, 0)
            server.show("ONE", 1)
            assert (await came(client, 21))[20:] == [("ONE", "E2", again["seq"] + 1)]
            client.do("disconnect")
            await until(lambda: server.sessions.connections == 0)


class TestSlow:
    async def test_one_that_stops_reading_is_cut_and_comes_back(self, client: Node) -> None:
        async with world.serving(subscriber_limits={"limit": 200}) as server:
            await client.open(server.port, WEBSOCKET, follow=["ONE"])
            await client.until("joined")
            client.do("stall")
            await client.until("stalled")
            async with asyncio.timeout(BOUND):
                while server.hub.counts.slow == 0:
                    server.show("ONE", 20, size=2000)
                    await asyncio.sleep(0)
            await until(lambda: server.hub.subscribers == 0)
            client.do("resume")
            assert (await client.until("disconnect"))["reason"] in ("transport close", "transport error")
            assert (await client.until("joined", 2))["data"]["channels"] == ["ONE"]


class TestReplay:
    @WAYS
    async def test_what_is_sent_again_is_marked_under_both_names(
        self, server: Server, client: Node, way: dict[str, Any]
    ) -> None:
        await client.open(server.port, way)
        await client.ask("join-streaming", "dashboard-updates")
        server.show("ONE", 2)
        server.again("ONE", 1)
        server.show("ONE", 1)
        assert await came(client, 4) == [*expected("ONE", 1, 2), ("ONE", "E1", 1), ("ONE", "E1", 3)]
        frames = [one for one in client.all("event") if one["event"] == "one-type"]
        assert [one["data"].get("replay") for one in frames] == [None, None, True, None]
