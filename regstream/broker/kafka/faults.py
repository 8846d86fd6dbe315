"""What the client library raises, in words that say whose fault it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import aiokafka.conn
import aiokafka.errors
import aiokafka.protocol.metadata

from regstream import errors
from regstream.broker.kafka import codes, connection

SHARE_SECONDS = 2.0
_Address = tuple[str, int]

FAULTS = (OSError, aiokafka.errors.KafkaError)
"""What any call may raise while the cluster is away; a timeout is an OSError."""
_REFUSED = (
    aiokafka.errors.AuthenticationFailedError,
    *(aiokafka.errors.for_code(one.number) for one in codes.CODES.values() if one.action is codes.Action.LOGIN),
)


class AdvertisedError(aiokafka.errors.KafkaError):  # type: ignore[misc]
    """A server answers, and none of the addresses that it names for the cluster's brokers can be reached."""


def why(error: BaseException, servers: str) -> str:
    """In a few words, for ``/health``."""
    if isinstance(error, TimeoutError):
        return f"{servers} does not answer"
    if isinstance(error, AdvertisedError):
        return str(error.args[0])
    text = str(error) or type(error).__name__
    if isinstance(error, _REFUSED):
        return f"{servers} refuses the credentials: {text}"
    if isinstance(error, OSError):
        return f"{servers} cannot be reached: {error.strerror or text}"
    return f"{servers} cannot be used: {text}"


def broker_error(error: BaseException, servers: str) -> errors.BrokerError:
    """The same as one of ours: LoginError when it is about the credentials, with the topics that may not be read."""
    if isinstance(error, aiokafka.errors.TopicAuthorizationFailedError) and error.args:
        topics = [error.args[0]] if isinstance(error.args[0], str) else sorted(error.args[0])
        unread = {topic: f"topic {topic} may not be read, allow the user to read it" for topic in topics}
        return errors.BrokerError(why(error, servers), topics=unread)
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
    the library's clients only log, and AdvertisedError when the brokers cannot be reached where the server says that
    they are. Who is refused is not tried at the next server: each counts as a wrong password, and some of them lock an
    account.
    """
    options = reach.options()
    servers = options["bootstrap_servers"]
    security = {name: one for name, one in options.items() if name.startswith(("sasl_", "security_", "ssl_"))}
    cause: Exception | None = None
    for host, port, _ in aiokafka.conn.collect_hosts(servers):
        try:
            async with asyncio.timeout(max(SHARE_SECONDS, seconds / len(servers))):
                opened = await aiokafka.conn.create_conn(host, port, **security)
                try:
                    answer = await opened.send(aiokafka.protocol.metadata.MetadataRequest([]))
                finally:
                    opened.close()
        except _REFUSED:
            raise
        except FAULTS as error:
            cause = error
        else:
            await _reach_one((host, port), [(one[1], one[2]) for one in answer.brokers], seconds)
            return reach._replace(servers=_address(host, port))
    raise cause or ValueError("no server is named")


async def _reach_one(through: _Address, advertised: list[_Address], seconds: float) -> None:
    """Return when one of the cluster's brokers can be reached; one that is away must not keep us from the others."""
    if through in advertised or not advertised:
        return
    tries = [asyncio.create_task(_connect(*one)) for one in advertised]
    causes: list[str] = []
    try:
        async with asyncio.timeout(seconds):
            for one in asyncio.as_completed(tries):
                cause = await one
                if not cause:
                    return
                causes.append(cause)
    except TimeoutError:
        causes.append("no answer")
    finally:
        for task in tries:
            task.cancel()
        await asyncio.gather(*tries, return_exceptions=True)
    names = ", ".join(_address(*one) for one in advertised)
    raise AdvertisedError(
        f"{_address(*through)} answers, but {names}, where the cluster says that its brokers are, cannot be reached "
        f"from here: {causes[0]}; correct the brokers' advertised.listeners, or make that name lead to them"
    )


async def _connect(host: str, port: int) -> str:
    """Why there is no connection to an address; empty when there is one."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        # What asyncio makes of it names the address once more
        return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    writer.close()
    return ""


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
