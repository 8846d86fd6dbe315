"""A way to a server that can be cut, and mended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Relay:
    """Carries connections to ``target``, a port on loopback that may change, until it is cut."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, 0
        self._closed = False
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        with contextlib.suppress(OSError):
            if not self._closed:
                there, back = await asyncio.open_connection("127.0.0.1", self.target)
                ends.add(back)
                self._open |= ends
                await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        for end in ends:
            end.transport.abort()
        self._open -= ends

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(await self.through(data))
                await writer.drain()
        writer.close()

    async def through(self, data: bytes) -> bytes:
        """What is carried in place of ``data``."""
        return data

    def cut(self) -> None:
        """Break every connection, and take none."""
        self._closed = True
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    def mend(self) -> None:
        self._closed = False

    async def stop(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


@contextlib.asynccontextmanager
async def relaying(relay: Relay) -> AsyncIterator[Relay]:
    """``relay``, started, until the end of the block."""
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()
