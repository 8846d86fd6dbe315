import pytest

from regstream.server.security import origins

LOCAL = ("http://localhost:*", "http://127.0.0.1:*")


@pytest.mark.parametrize(
    ("origin", "patterns", "allowed"),
    [
        ("http://localhost:3000", LOCAL, True),
        ("http://localhost", LOCAL, True),
        ("HTTP://LocalHost:80", LOCAL, True),
        ("http://127.0.0.1:65535", LOCAL, True),
        ("https://localhost:3000", LOCAL, False),
        ("http://localhost.evil.example:3000", LOCAL, False),
        ("http://localhost:1@evil.example", LOCAL, False),
        ("http://localhost:", LOCAL, False),
        ("http://localhost:3000/", LOCAL, False),
        ("http://localhost:3000.evil.example", LOCAL, False),
        ("http://evil.example/http://localhost:3000", LOCAL, False),
        ("null", LOCAL, False),
        ("", LOCAL, False),
        ("http://localhost:3000", (), False),
        ("null", ("*",), True),
        ("https://anything.example", ("*",), True),
        ("https://app.bank.example", ("https://*.bank.example",), True),
        ("https://a.b.bank.example", ("https://*.bank.example",), True),
        ("https://bank.example", ("https://*.bank.example",), False),
        ("https://evil.example:443/.bank.example", ("https://*.bank.example",), False),
        ("https://bank.example", ("https://bank.example:443",), True),
        ("http://localhost:3000\nevil", LOCAL, False),
    ],
)
def test_origin(origin: str, patterns: tuple[str, ...], allowed: bool) -> None:
    assert origins.origin_allowed(origin, patterns) is allowed


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True), ("LOCALHOST:3001", True), ("127.0.0.1:3001", True), ("10.0.0.7", True),
        ("[::1]:3001", True), ("[::1]", True), ("bank.example:3001", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:3001", False), ("", False), (":3001", False),
    ],
)  # fmt: skip
def test_only_an_address_is_the_daemons_own_name(host: str, known: bool) -> None:
    assert origins.is_address(host) is known
