"""Every error code of the Kafka protocol: what it is about, and what happens.

The one table of that; ``docs/kafka.md`` shows it. A code is of the event, of the topic or of the connection when a
request of ours can be answered by it, otherwise unknown: so is one that a newer cluster has and this table has not.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

STALL_SECONDS = 2.0
"""How long nothing may be acknowledged or refused before a connection counts as lost."""
TRIES = 3
"""How often an event is sent to which the cluster answers with a code that is unknown."""


class Scope(enum.StrEnum):
    """What is refused."""

    EVENT = "event"
    TOPIC = "topic"
    CONNECTION = "connection"
    UNKNOWN = "unknown"


class Action(enum.Enum):
    """What happens, and what it happens to."""

    def __init__(self, scope: Scope, happens: str) -> None:
        self.scope = scope
        self.happens = happens

    ACKNOWLEDGED = Scope.EVENT, "the event is on the topic"
    SPLIT = (
        Scope.EVENT,
        "the events that the broker names are refused; when it names none, the batch is halved until they are found",
    )
    EXISTS = Scope.TOPIC, "the topic is used as it is"
    FEWER_COPIES = (
        Scope.TOPIC,
        "the topic is made with one copy for each broker, with a warning that names both numbers",
    )
    MAKE_AGAIN = (
        Scope.TOPIC,
        f"sent again for {STALL_SECONDS:g} s; then a new connection makes the topic, the events wait on disk",
    )
    IN_SYNC = (
        Scope.TOPIC,
        f"sent again for {STALL_SECONDS:g} s; then its events are refused if all its copies are in sync, "
        "otherwise a new connection is made, the events wait on disk",
    )
    REFUSE = Scope.TOPIC, "the topic's events are refused until it takes one"
    RETRY = (
        Scope.CONNECTION,
        f"sent again; after {STALL_SECONDS:g} s without progress a new connection is made, the events wait on disk",
    )
    RECONNECT = Scope.CONNECTION, "a new connection is made, the events wait on disk"
    LOGIN = Scope.CONNECTION, "a new connection is made after 10 s, 20 s and so on, the events wait on disk"
    REPEAT = (
        Scope.UNKNOWN,
        f"the batch is halved until one event is left, which is refused after {TRIES} tries; "
        "when the next one is too, so are the topic's others",
    )


class Code(NamedTuple):
    """``name`` as the protocol has it, ``cure`` what to do about it (empty: nothing, or nobody knows)."""

    number: int
    name: str
    action: Action
    cure: str = ""

    @property
    def scope(self) -> Scope:
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


def _codes() -> Mapping[int, Code]:
    found: dict[int, Code] = {}
    for line in _TABLE.split("\n")[1:-1]:
        number, name, action = line.split()
        found[int(number)] = Code(int(number), name, Action[action], _CURES.get(int(number), ""))
    return found


CODES: Mapping[int, Code] = _codes()
"""By number: those of Apache Kafka 4.1."""


def of(number: int) -> Code:
    """What there is to know about a code, also about one that nobody knows."""
    return CODES.get(number) or Code(number, f"code {number}", Action.REPEAT)
