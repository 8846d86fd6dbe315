"""What the client library raises, in words that say whose fault it is."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import aiokafka.conn
import aiokafka.errors
import aiokafka.protocol.metadata

from regstream import errors
from regstream.broker.kafka import connection

STALL_SECONDS = 2.0
"""How long nothing may be acknowledged or refused before a connection counts as lost."""
TRIES = 3
"""How often an event is sent to which the cluster answers with a code that is unknown."""


class ErrorScope(enum.StrEnum):
    """What is refused."""

    EVENT = "event"
    TOPIC = "topic"
    CONNECTION = "connection"
    UNKNOWN = "unknown"


class ErrorAction(enum.Enum):
    """What happens, and what it happens to."""

    def __init__(self, scope: ErrorScope, happens: str) -> None:
        self.scope = scope
        self.happens = happens

    ACKNOWLEDGED = ErrorScope.EVENT, "the event is on the topic"
    SPLIT = (
        ErrorScope.EVENT,
        "the events that the broker names are refused; when it names none, the batch is halved until they are found",
    )
    EXISTS = ErrorScope.TOPIC, "the topic is used as it is"
    FEWER_COPIES = (
        ErrorScope.TOPIC,
        "the topic is made with one copy for each broker, with a warning that names both numbers",
    )
    MAKE_AGAIN = (
        ErrorScope.TOPIC,
        f"sent again for {STALL_SECONDS:g} s; then a new connection makes the topic, the events wait on disk",
    )
    IN_SYNC = (
        ErrorScope.TOPIC,
        f"sent again for {STALL_SECONDS:g} s; then its events are refused if all its copies are in sync, "
        "otherwise a new connection is made, the events wait on disk",
    )
    REFUSE = ErrorScope.TOPIC, "the topic's events are refused until it takes one"
    RETRY = (
        ErrorScope.CONNECTION,
        f"sent again; after {STALL_SECONDS:g} s without progress a new connection is made, the events wait on disk",
    )
    RECONNECT = ErrorScope.CONNECTION, "a new connection is made, the events wait on disk"
    LOGIN = ErrorScope.CONNECTION, "a new connection is made after 10 s, 20 s and so on, the events wait on disk"
    REPEAT = (
        ErrorScope.UNKNOWN,
        f"the batch is halved until one event is left, which is refused after {TRIES} tries; "
        "when the next one is too, so are the topic's others",
    )


class ErrorCode(NamedTuple):
    """``name`` as the protocol has it, ``cure`` what to do about it (empty: nothing, or nobody knows)."""

    number: int
    name: str
    action: ErrorAction
    cure: str = ""

    @property
    def scope(self) -> ErrorScope:
        """What is refused."""
        return self.action.scope

    @property
    def described(self) -> str:
        """What happens, and what to do, as the page has it."""
        return f"{self.action.happens}. {self.cure[0].upper()}{self.cure[1:]}" if self.cure else self.action.happens

    def __str__(self) -> str:
        return f"{self.name}, {self.cure}" if self.cure else self.name


_CURES = {
    2: "give the stream a key, or take compaction from the topic",
    10: "raise the topic's max.message.bytes, or make the events smaller",
    17: "no topic can have this name: give the stream another one",
    18: "raise the topic's segment.bytes, or make the events smaller",
    19: "the topic's min.insync.replicas asks for more copies than it has: lower it, or add copies",
    29: "allow the user to describe, create, write and read the topic",
    31: "allow the user IdempotentWrite on the cluster",
    32: "message.timestamp.before.max.ms or message.timestamp.after.max.ms of the topic forbids the event's time",
    33: "set KAFKA_SASL_MECHANISM to one that the broker offers",
    34: "check KAFKA_SECURITY_PROTOCOL and KAFKA_SASL_MECHANISM",
    35: "the broker is too old for this client: upgrade it",
    37: "give the profile at least 1 partition",
    39: "make the topic by hand",
    40: "make the topic by hand",
    43: "raise the topic's message.format.version",
    44: "a policy of the cluster forbids it: change the policy, or make the topic by hand",
    56: "a disk of the broker fails: see its log",
    58: "check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
    72: "the partition's leader lacks the listener that this client uses",
    76: "the broker does not know lz4: upgrade it",
    87: "give the stream a key, or take compaction from the topic; if it has none, a rule of the cluster forbids it",
}
_TABLE = """
  -1 UNKNOWN_SERVER_ERROR REPEAT
   0 NONE ACKNOWLEDGED
   1 OFFSET_OUT_OF_RANGE RECONNECT
   2 CORRUPT_MESSAGE SPLIT
   3 UNKNOWN_TOPIC_OR_PARTITION MAKE_AGAIN
   4 INVALID_FETCH_SIZE RECONNECT
   5 LEADER_NOT_AVAILABLE RETRY
   6 NOT_LEADER_OR_FOLLOWER RETRY
   7 REQUEST_TIMED_OUT RETRY
   8 BROKER_NOT_AVAILABLE RECONNECT
   9 REPLICA_NOT_AVAILABLE RETRY
  10 MESSAGE_TOO_LARGE SPLIT
  11 STALE_CONTROLLER_EPOCH RECONNECT
  12 OFFSET_METADATA_TOO_LARGE REPEAT
  13 NETWORK_EXCEPTION RETRY
  14 COORDINATOR_LOAD_IN_PROGRESS REPEAT
  15 COORDINATOR_NOT_AVAILABLE REPEAT
  16 NOT_COORDINATOR REPEAT
  17 INVALID_TOPIC_EXCEPTION REFUSE
  18 RECORD_LIST_TOO_LARGE SPLIT
  19 NOT_ENOUGH_REPLICAS IN_SYNC
  20 NOT_ENOUGH_REPLICAS_AFTER_APPEND RETRY
  21 INVALID_REQUIRED_ACKS RECONNECT
  22 ILLEGAL_GENERATION REPEAT
  23 INCONSISTENT_GROUP_PROTOCOL REPEAT
  24 INVALID_GROUP_ID REPEAT
  25 UNKNOWN_MEMBER_ID REPEAT
  26 INVALID_SESSION_TIMEOUT REPEAT
  27 REBALANCE_IN_PROGRESS REPEAT
  28 INVALID_COMMIT_OFFSET_SIZE REPEAT
  29 TOPIC_AUTHORIZATION_FAILED REFUSE
  30 GROUP_AUTHORIZATION_FAILED REPEAT
  31 CLUSTER_AUTHORIZATION_FAILED RECONNECT
  32 INVALID_TIMESTAMP SPLIT
  33 UNSUPPORTED_SASL_MECHANISM LOGIN
  34 ILLEGAL_SASL_STATE LOGIN
  35 UNSUPPORTED_VERSION RECONNECT
  36 TOPIC_ALREADY_EXISTS EXISTS
  37 INVALID_PARTITIONS REFUSE
  38 INVALID_REPLICATION_FACTOR FEWER_COPIES
  39 INVALID_REPLICA_ASSIGNMENT REFUSE
  40 INVALID_CONFIG REFUSE
  41 NOT_CONTROLLER RETRY
  42 INVALID_REQUEST REPEAT
  43 UNSUPPORTED_FOR_MESSAGE_FORMAT REFUSE
  44 POLICY_VIOLATION REFUSE
  45 OUT_OF_ORDER_SEQUENCE_NUMBER RECONNECT
  46 DUPLICATE_SEQUENCE_NUMBER ACKNOWLEDGED
  47 INVALID_PRODUCER_EPOCH RECONNECT
  48 INVALID_TXN_STATE RECONNECT
  49 INVALID_PRODUCER_ID_MAPPING RECONNECT
  50 INVALID_TRANSACTION_TIMEOUT RECONNECT
  51 CONCURRENT_TRANSACTIONS RETRY
  52 TRANSACTION_COORDINATOR_FENCED RECONNECT
  53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED RECONNECT
  54 SECURITY_DISABLED RECONNECT
  55 OPERATION_NOT_ATTEMPTED REPEAT
  56 KAFKA_STORAGE_ERROR RETRY
  57 LOG_DIR_NOT_FOUND REPEAT
  58 SASL_AUTHENTICATION_FAILED LOGIN
  59 UNKNOWN_PRODUCER_ID RECONNECT
  60 REASSIGNMENT_IN_PROGRESS REPEAT
  61 DELEGATION_TOKEN_AUTH_DISABLED REPEAT
  62 DELEGATION_TOKEN_NOT_FOUND REPEAT
  63 DELEGATION_TOKEN_OWNER_MISMATCH REPEAT
  64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED REPEAT
  65 DELEGATION_TOKEN_AUTHORIZATION_FAILED REPEAT
  66 DELEGATION_TOKEN_EXPIRED REPEAT
  67 INVALID_PRINCIPAL_TYPE REPEAT
  68 NON_EMPTY_GROUP REPEAT
  69 GROUP_ID_NOT_FOUND REPEAT
  70 FETCH_SESSION_ID_NOT_FOUND RETRY
  71 INVALID_FETCH_SESSION_EPOCH RETRY
  72 LISTENER_NOT_FOUND RETRY
  73 TOPIC_DELETION_DISABLED REFUSE
  74 FENCED_LEADER_EPOCH RETRY
  75 UNKNOWN_LEADER_EPOCH RETRY
  76 UNSUPPORTED_COMPRESSION_TYPE REFUSE
  77 STALE_BROKER_EPOCH RECONNECT
  78 OFFSET_NOT_AVAILABLE RETRY
  79 MEMBER_ID_REQUIRED REPEAT
  80 PREFERRED_LEADER_NOT_AVAILABLE RETRY
  81 GROUP_MAX_SIZE_REACHED REPEAT
  82 FENCED_INSTANCE_ID REPEAT
  83 ELIGIBLE_LEADERS_NOT_AVAILABLE RETRY
  84 ELECTION_NOT_NEEDED REPEAT
  85 NO_REASSIGNMENT_IN_PROGRESS REPEAT
  86 GROUP_SUBSCRIBED_TO_TOPIC REPEAT
  87 INVALID_RECORD SPLIT
  88 UNSTABLE_OFFSET_COMMIT REPEAT
  89 THROTTLING_QUOTA_EXCEEDED RETRY
  90 PRODUCER_FENCED RECONNECT
  91 RESOURCE_NOT_FOUND REPEAT
  92 DUPLICATE_RESOURCE REPEAT
  93 UNACCEPTABLE_CREDENTIAL REPEAT
  94 INCONSISTENT_VOTER_SET REPEAT
  95 INVALID_UPDATE_VERSION REPEAT
  96 FEATURE_UPDATE_FAILED REPEAT
  97 PRINCIPAL_DESERIALIZATION_FAILURE RECONNECT
  98 SNAPSHOT_NOT_FOUND REPEAT
  99 POSITION_OUT_OF_RANGE REPEAT
 100 UNKNOWN_TOPIC_ID RETRY
 101 DUPLICATE_BROKER_REGISTRATION REPEAT
 102 BROKER_ID_NOT_REGISTERED REPEAT
 103 INCONSISTENT_TOPIC_ID RETRY
 104 INCONSISTENT_CLUSTER_ID RECONNECT
 105 TRANSACTIONAL_ID_NOT_FOUND REPEAT
 106 FETCH_SESSION_TOPIC_ID_ERROR RETRY
 107 INELIGIBLE_REPLICA REPEAT
 108 NEW_LEADER_ELECTED REPEAT
 109 OFFSET_MOVED_TO_TIERED_STORAGE REPEAT
 110 FENCED_MEMBER_EPOCH REPEAT
 111 UNRELEASED_INSTANCE_ID REPEAT
 112 UNSUPPORTED_ASSIGNOR REPEAT
 113 STALE_MEMBER_EPOCH REPEAT
 114 MISMATCHED_ENDPOINT_TYPE RECONNECT
 115 UNSUPPORTED_ENDPOINT_TYPE RECONNECT
 116 UNKNOWN_CONTROLLER_ID RECONNECT
 117 UNKNOWN_SUBSCRIPTION_ID REPEAT
 118 TELEMETRY_TOO_LARGE REPEAT
 119 INVALID_REGISTRATION REPEAT
 120 TRANSACTION_ABORTABLE REPEAT
 121 INVALID_RECORD_STATE REPEAT
 122 SHARE_SESSION_NOT_FOUND REPEAT
 123 INVALID_SHARE_SESSION_EPOCH REPEAT
 124 FENCED_STATE_EPOCH REPEAT
 125 INVALID_VOTER_KEY REPEAT
 126 DUPLICATE_VOTER REPEAT
 127 VOTER_NOT_FOUND REPEAT
 128 INVALID_REGULAR_EXPRESSION REPEAT
 129 REBOOTSTRAP_REQUIRED RECONNECT
 130 STREAMS_INVALID_TOPOLOGY REPEAT
 131 STREAMS_INVALID_TOPOLOGY_EPOCH REPEAT
 132 STREAMS_TOPOLOGY_FENCED REPEAT
 133 SHARE_SESSION_LIMIT_REACHED REPEAT
"""


def _codes() -> Mapping[int, ErrorCode]:
    found: dict[int, ErrorCode] = {}
    for line in _TABLE.split("\n")[1:-1]:
        number, name, action = line.split()
        found[int(number)] = ErrorCode(int(number), name, ErrorAction[action], _CURES.get(int(number), ""))
    return found


CODES: Mapping[int, ErrorCode] = _codes()
"""By number: those of Apache Kafka 4.1."""


def of(number: int) -> ErrorCode:
    """What there is to know about a code, also about one that nobody knows."""
    return CODES.get(number) or ErrorCode(number, f"code {number}", ErrorAction.REPEAT)


SHARE_SECONDS = 2.0
_Address = tuple[str, int]

FAULTS = (OSError, aiokafka.errors.KafkaError)
"""What any call may raise while the cluster is away; a timeout is an OSError."""
_REFUSED = (
    aiokafka.errors.AuthenticationFailedError,
    *(aiokafka.errors.for_code(one.number) for one in CODES.values() if one.action is ErrorAction.LOGIN),
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


async def probe(reach: connection.Connection, seconds: float) -> connection.Connection:
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
