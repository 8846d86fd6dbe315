import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstream import errors, hub, spec
from regstream.event import Position
from regstream.server.transports import messages

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
        assert len(str(messages.error(error))) < 2000
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
    assert message.request == hub.SubscriptionRequest(["a"], {"ONE": Position("E1", 2**63 - 1)}, 1000)


def test_a_subscription_with_everything() -> None:
    message = messages.parse(
        b'{"action":"subscribe","channels":["a"],"snapshot":true,"policy":"conflate","maxRate":0.5}'
    )
    assert isinstance(message, messages.Subscribe)
    assert message.request == hub.SubscriptionRequest(
        ["a"], snapshot=True, wish=hub.DeliveryOptions(spec.Policy.CONFLATE, 0.5)
    )
    for wrong in ('"policy":"drop"', '"maxRate":0', '"maxRate":"2"', '"maxRate":10001', '"snapshot":1'):
        with pytest.raises(errors.BadValue):
            messages.parse(b'{"action":"subscribe","channels":["a"],%b}' % wrong.encode())


def test_long_names_come_back_short() -> None:
    long = "x" * 50_000
    for data in (
        {"action": long},
        {"action": "ping", long: 1},
        {"action": "subscribe", "channels": ["a"], "after": {long: 1}},
    ):
        with pytest.raises((errors.BadValue, errors.UnknownName)) as caught:
            messages.parse(orjson.dumps(data))
        assert len(str(messages.error(caught.value))) < 1000  # type: ignore[arg-type]


def test_the_query_form() -> None:
    query = {"channel": ["a", "b"], "rewind": ["5"], "snapshot": ["true"], "policy": ["dropOldest"], "maxRate": ["0.5"]}
    assert messages.from_query({**query, "after": ['{"ONE":{"epoch":"E1","seq":4}}']}) == messages.parse(
        b'{"action":"subscribe","channels":["a","b"],"rewind":5,"snapshot":true,"policy":"dropOldest","maxRate":0.5,'
        b'"after":{"ONE":{"epoch":"E1","seq":4}}}'
    )
    assert messages.from_query({"channel": ["a"], "rewind": [""], "other": ["x"]}).rewind == 0


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("rewind", ["-1", "1001", "x", "1.5", "nan", "inf", "1e400", "9" * 5000]),
        ("snapshot", ["1", "yes"]),
        ("policy", ["drop"]),
        ("maxRate", ["0", "x", "-1"]),
        ("after", ["{", "[]", "5", '{"ONE":5}']),
        ("channel", ["", "x" * 129]),
    ],
)
def test_a_query_that_cannot_be_used(key: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(errors.BadValue) as caught:
            messages.from_query({"channel": ["a"], key: [text]})
        assert len(str(caught.value)) < 300


def test_answers() -> None:
    unknown = errors.UnknownName("channel", "ONe", ("ONE",))
    data = {"code": "unknown_channel", "message": "unknown channel 'ONe', did you mean ONE?", "near": ["ONE"]}
    assert orjson.loads(orjson.dumps(messages.error(unknown))) == data
    data = {"code": "bad_value", "message": "rewind: too much"}
    assert messages.error(errors.BadValue("rewind", "too much")) == data
    answer = {"epoch": "E1", "seq": 5, "recovered": True, "replayed": 2}
    assert messages.subscribed(["ONE"], {"ONE": hub.Subscribed("E1", 5, True, 2)})["streams"] == {"ONE": answer}
    asked = messages.subscribed(["ONE"], {"ONE": hub.Subscribed("E1", 5, True, 2, 3)})
    assert asked == {"channels": ["ONE"], "streams": {"ONE": {**answer, "snapshot": 3}}}
