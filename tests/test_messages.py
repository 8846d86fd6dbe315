import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstream import errors, hub, model
from regstream.server import messages

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
KEYS = st.sampled_from(["action", "channels", "after", "rewind", "x"])
VALUES = JSON | st.sampled_from(["subscribe", "unsubscribe", "ping", ["ONE"], 5, {"ONE": {"epoch": "E1", "seq": 1}}])


def rejected(text: bytes) -> bool:
    """Whether ``text`` is refused; any other error than the promised ones fails the test."""
    try:
        messages.parse(text)
    except (errors.BadValue, errors.UnknownName) as error:
        assert len(messages.error(error)) < 2000
        return True
    except messages.NotAMessage:
        return True
    return False


@given(st.binary())
@settings(deadline=None)
def test_any_bytes(text: bytes) -> None:
    assert rejected(text)


@given(st.dictionaries(KEYS, VALUES))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_object(data: dict[str, object]) -> None:
    try:
        text = orjson.dumps(data)
    except TypeError:
        return
    if not rejected(text):
        assert data["action"] in messages.ACTIONS


def test_a_subscription() -> None:
    after = {"ONE": {"epoch": "E1", "seq": 2**63 - 1}}
    text = orjson.dumps({"action": "subscribe", "channels": ["a"], "after": after, "rewind": 1000})
    message = messages.parse(text)
    assert isinstance(message, messages.Subscribe)
    assert message.positions == {"ONE": model.Position("E1", 2**63 - 1)}
    assert (message.channels, message.rewind) == (["a"], 1000)


def test_long_names_come_back_short() -> None:
    long = "x" * 50_000
    for data in (
        {"action": long},
        {"action": "ping", long: 1},
        {"action": "subscribe", "channels": ["a"], "after": {long: 1}},
    ):
        with pytest.raises((errors.BadValue, errors.UnknownName)) as caught:
            messages.parse(orjson.dumps(data))
        assert len(messages.error(caught.value)) < 1000  # type: ignore[arg-type]


def test_the_query_form() -> None:
    assert messages.from_query(["a", "b"], "5") == messages.parse(
        b'{"action":"subscribe","channels":["a","b"],"rewind":5}'
    )
    assert messages.from_query(["a"], "").action == "subscribe"
    for rewind in ("-1", "1001", "x", "1.5", " 1", "\u0665", "9" * 5000):
        with pytest.raises(errors.BadValue):
            messages.from_query(["a"], rewind)


def test_answers() -> None:
    unknown = errors.UnknownName("channel", "ONe", ("ONE",))
    data = {"code": "unknown_channel", "message": "unknown channel 'ONe', did you mean ONE?", "near": ["ONE"]}
    assert orjson.loads(messages.error(unknown)) == {"event": "error", "data": data}
    data = {"code": "bad_value", "message": "rewind: too much"}
    assert orjson.loads(messages.error(errors.BadValue("rewind", "too much"))) == {"event": "error", "data": data}
    text = messages.subscribed(["ONE"], {"ONE": hub.Subscribed("E1", 5, True, 2)})
    streams = {"ONE": {"epoch": "E1", "seq": 5, "recovered": True, "replayed": 2}}
    assert orjson.loads(text) == {"event": "subscribed", "data": {"channels": ["ONE"], "streams": streams}}
