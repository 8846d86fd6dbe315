"""How to reach a cluster."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from typing import Any, NamedTuple

from regstream import errors

ANSWER_SECONDS = 5.0
Place = tuple[str, int]
"""Topic and partition."""


class Connection(NamedTuple):
    """Bootstrap servers, comma separated, and the security settings; empty texts are unset."""

    servers: str
    protocol: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    username: str = ""
    password: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    def options(self) -> dict[str, Any]:
        """The keywords that every client of the library takes. Raises BrokerError for files that cannot be used."""
        made: dict[str, Any] = {
            "bootstrap_servers": [one.strip() for one in self.servers.split(",")],
            "security_protocol": self.protocol,
            "retry_backoff_ms": 250,
            "request_timeout_ms": int(ANSWER_SECONDS * 1000),
        }
        if "SASL" in self.protocol:
            made |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return made | ({"ssl_context": self._tls()} if "SSL" in self.protocol else {})

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except (OSError, ssl.SSLError) as error:
            raise errors.BrokerError(f"the TLS files cannot be used: {error}") from error
        return context


STOP_SECONDS = 0.8
# For what is closed after that: all bounds in a row are to end within a step of the daemon's stop
_REST_SECONDS = 0.2


class _Pending(set[Any]):
    """Batches under way, for a sender that may end late: it puts one back, and takes out what has taken itself out."""

    def remove(self, batch: Any) -> None:
        self.discard(batch)


async def stop(client: Any, seconds: float = STOP_SECONDS) -> None:
    """Stop a client, which may want to wait for a broker that is gone; bounded, and it never raises.

    In a task of its own, because some clients end with the cancellation of a task that they cancelled themselves.
    """
    if client is None:
        return
    task = asyncio.ensure_future(client.close() if hasattr(client, "close") else client.stop())
    _, late = await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    if late or task.cancelled() or task.exception() is not None:
        # It ended before it came to its connections
        await stop(getattr(client, "_client", None), _REST_SECONDS)


async def discard(producer: Any) -> None:
    """End a producer with all it holds: one that is only stopped would send that when the cluster is back."""
    sender = None if producer is None else producer._sender
    if sender is not None and sender.sender_task is not None:
        sender.sender_task.cancel()
        await stop(producer.client, _REST_SECONDS)
        # What it has under way would wait for news of the cluster that nobody brings any more
        producer.client.force_metadata_update()
        producer.client._md_update_fut.set_result(False)
        await asyncio.wait({sender.sender_task}, timeout=_REST_SECONDS)
        held = producer._message_accumulator
        # Each batch takes itself out of there when it ends, those too that were put back
        held._pending_batches = _Pending(held._pending_batches)
        held._pending_batches.update(itertools.chain.from_iterable(held._batches.values()))
        for batch in tuple(held._pending_batches):
            batch.future.cancel()
    await stop(producer, _REST_SECONDS)
