"""What the client library raises, in words that say whose fault it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiokafka.conn
import aiokafka.errors

from regstream import errors
from regstream.broker.kafka import codes, connection

SHARE_SECONDS = 2.0

FAULTS = (OSError, aiokafka.errors.KafkaError)
"""What any call may raise while the cluster is away; a timeout is an OSError."""
_REFUSED = (
    aiokafka.errors.AuthenticationFailedError,
    *(aiokafka.errors.for_code(one.number) for one in codes.CODES.values() if one.action is codes.Action.LOGIN),
)


def why(error: BaseException, servers: str) -> str:
    """In a few words, for ``/health``."""
    if isinstance(error, TimeoutError):
        return f"{servers} does not answer"
    text = str(error) or type(error).__name__
    if isinstance(error, _REFUSED):
        return f"{servers} refuses the credentials: {text}"
    if isinstance(error, OSError):
        return f"{servers} cannot be reached: {error.strerror or text}"
    return f"{servers} cannot be used: {text}"


def broker_error(error: BaseException, servers: str) -> errors.BrokerError:
    """The same as one of ours: LoginError when it is about the credentials."""
    kind = errors.LoginError if isinstance(error, _REFUSED) else errors.BrokerError
    return kind(why(error, servers))


@contextlib.asynccontextmanager
async def bounded(seconds: float, servers: str) -> AsyncIterator[None]:
    """Raises BrokerError for whatever goes wrong with the cluster in here, and when it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except FAULTS as error:
        raise broker_error(error, servers) from error


async def knock(reach: connection.Connection, seconds: float) -> connection.Connection:
    """The same connection by way of one server that lets us in, so that no client hangs at one that is silent.

    Each server has its share of the ``seconds``, but no less than ``SHARE_SECONDS``. Raises why none lets us in, which
    the library's clients only log. Who is refused is not tried at the next server: each counts as a wrong password, and
    some of them lock an account.
    """
    options = reach.options()
    servers = options["bootstrap_servers"]
    security = {name: one for name, one in options.items() if name.startswith(("sasl_", "security_", "ssl_"))}
    cause: Exception | None = None
    for host, port, _ in aiokafka.conn.collect_hosts(servers):
        try:
            async with asyncio.timeout(max(SHARE_SECONDS, seconds / len(servers))):
                (await aiokafka.conn.create_conn(host, port, **security)).close()
        except _REFUSED:
            raise
        except FAULTS as error:
            cause = error
        else:
            return reach._replace(servers=f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    raise cause or ValueError("no server is named")
