"""No part of a secret in any text, and nothing that steers a terminal."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import string
import unicodedata
import urllib.parse

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regstream import errors, logs, sanitize, settings
from regstream.store import pool

PASSWORDS = st.text(string.ascii_letters + string.digits + "@:/?#[]%&=+ '\"\\$!*();,.-_~^é", min_size=6, max_size=24)
CASE = "Sup3r@TAILOFSECRET"


PUBLIC = f"app 127.0.0.1 sslpassword host= user=app port= {' '.join(sanitize._PUBLIC)}"
"""What an address holds besides the password."""
with pytest.raises(errors.SettingsError) as _caught:
    settings.load({"DATABASE_URL": "x"})
REFUSED = f"{_caught.value} {_caught.value!r}"


def parts(secret: str) -> set[str]:
    """What must not be seen: five characters in a row, and what stands between two special ones."""
    runs = {secret[at : at + sanitize.PIECE] for at in range(len(secret) - sanitize.PIECE + 1)}
    return {one.lower() for one in runs | {one for one in re.split(r"\W", secret) if len(one) >= sanitize.SHORTEST}}


def shown(secret: str, text: str, public: str = "") -> list[str]:
    """Those parts of ``secret`` that are in ``text``, and not in what may be shown anyway."""
    words = set(re.findall(r"\w+", text.lower()))
    found = [one for one in parts(secret) if (one in text.lower() if len(one) >= sanitize.PIECE else one in words)]
    return [one for one in found if one not in public.lower()]


def forms(password: str) -> list[str]:
    """Addresses that somebody writes who has this password, right and wrong."""
    encoded = urllib.parse.quote(password, safe="")
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    return [
        f"postgresql://app:{password}@127.0.0.1:1/db",
        f"postgresql://app:{encoded}@127.0.0.1:1/db",
        f"postgresql://app@127.0.0.1:1/db?password={encoded}",
        f"postgresql://app@127.0.0.1:1/db?sslpassword={password}",
        f"host=127.0.0.1 port=1 user=app password='{quoted}'",
        f"host=127.0.0.1 port=1 password={password} user=app",
        f"postgres//app:{password}@127.0.0.1/db",
    ]


def quotes(text: str) -> list[str]:
    """What others say of an address, or of a part of it."""
    return [f"bad address {text}", repr(text), json.dumps(text), *re.split("[@:/?#&= ]", text)]


@given(PASSWORDS)
@example(CASE)
@example("a@bcd:efg/hij")
@example("p%40ss@w0rd%")
def test_no_part_of_a_password_is_shown_whatever_the_address(password: str) -> None:
    for text in forms(password):
        redactor = sanitize.Redactor()
        try:
            chosen = settings.load({"DATABASE_URL": text})
        except errors.SettingsError as error:
            # The same for every address: nothing of this one can be in it
            assert f"{error} {error!r}" == REFUSED and "percent-encode" in error.reason
            continue
        redactor.remember(*chosen.secrets())
        for quote in quotes(text):
            assert not shown(password, redactor.redact(quote), PUBLIC)


@given(PASSWORDS)
@example(CASE)
def test_an_encoded_password_is_what_the_library_takes(password: str) -> None:
    text = f"postgresql://app:{urllib.parse.quote(password, safe='')}@127.0.0.1:1/db"
    settings.load({"DATABASE_URL": text})
    assert psycopg.conninfo.conninfo_to_dict(text)["password"] == password


@given(PASSWORDS)
def test_what_is_taken_means_what_it_seems_to(password: str) -> None:
    """An address with an unescaped password is refused, unless the library finds that very password in it."""
    text = f"postgresql://app:{password}@127.0.0.1:1/db"
    try:
        settings.load({"DATABASE_URL": text})
    except errors.SettingsError:
        return
    found = psycopg.conninfo.conninfo_to_dict(text)
    assert (found["host"], found["password"]) == ("127.0.0.1", urllib.parse.unquote(password))


@pytest.mark.parametrize(
    "text",
    ["postgresql://u@h/d?sslmode=require", "postgres:///d", "postgresql://[::1]:5432/d", "postgresql://a:1,b:2/d",
     "postgresql://u:p%40ss@h/d?host=/run/postgresql&options=-c%20x%3D1", "postgresql://%2Frun%2Fpostgresql/d",
     "host=/run/postgresql dbname=d", "host=h password='a b \\' c' user=u"],
)  # fmt: skip
def test_good_addresses_are_taken(text: str) -> None:
    assert settings.load({"DATABASE_URL": text}).database.get_secret_value() == text
    psycopg.conninfo.conninfo_to_dict(text)


def test_an_error_of_the_library_has_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = sanitize.Redactor()
    redactor.remember([CASE])
    monkeypatch.setattr(sanitize, "redact", redactor.redact)
    # As it was taken before
    asked = pool.Database(f"postgresql://app:{CASE}@127.0.0.1:5432/db?connect_timeout=2")
    with pytest.raises(errors.StoreError) as caught:
        asyncio.run(asked.connect())
    assert not shown(CASE, f"{caught.value} {caught.value.reason!r}")


def test_each_kind_of_secret_is_known(tmp_path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END PRIVATE KEY-----\n")
    environ = {
        "KAFKA_SASL_PASSWORD": "sasl/secret", "REGSTREAM_TOKENS": "read:tok-0123456789abcdef",
        "DATABASE_URL": "postgresql://u:dbpass@h/d?sslpassword=keypass", "KAFKA_SSL_KEY": f"{key}",
        "PGPASSWORD": "pgpassw0rd", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abcdefgh,x-key=zyxwvu",
        "REGSTREAM_TOKEN": "mytoken-99",
    }  # fmt: skip
    redactor = sanitize.Redactor()
    redactor.remember(*settings.load(environ).secrets())
    redactor.remember(settings.hidden(environ))
    said = (
        "sasl/secret tok-0123456789abcdef dbpass keypass MIIEvQIBADANBgkqhkiG9w0 pgpassw0rd abcdefgh zyxwvu mytoken-99"
    )
    assert set(redactor.redact(said).split()) == {sanitize.MASK}
    assert redactor.redact("private key of u at h, x-key") == "private key of u at h, x-key"


@pytest.mark.parametrize("name", ["KAFKA_SSL_CA", "KAFKA_SSL_CERT", "KAFKA_SSL_KEY"])
def test_a_key_in_place_of_its_file_is_refused_and_not_shown(name: str) -> None:
    with pytest.raises(errors.SettingsError) as caught:
        settings.load({name: "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n"})
    assert "MIIE" not in f"{caught.value} {caught.value!r}" and "file" in caught.value.reason


def record(message: str, error: Exception | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    return logging.LogRecord("regstream.store", logging.ERROR, __file__, 1, message, None, info)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_of_the_log_has_a_part_of_it(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    redactor = sanitize.Redactor()
    redactor.remember([CASE])
    monkeypatch.setattr(sanitize, "redact", redactor.redact)
    line = logs._formatter(form).format(record(f"host {CASE[6:]}", ValueError(f"at {CASE.lower()}")))
    assert not shown(CASE, line) and "regstream.store" in line


CONTROLS = "".join(one for one in map(chr, range(0x110000)) if unicodedata.category(one) in ("Cc", "Zl", "Zp", "Cs"))
BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize("steers", [CONTROLS, BIDIRECTIONAL])
def test_what_steers_a_terminal_is_escaped(steers: str) -> None:
    shown = sanitize.printable(f"a{steers}é漢😀")
    assert shown.startswith("a") and shown.endswith("é漢😀")
    assert not set(shown) & set(steers) and shown.count("\\") == len(steers)


def test_json_with_escapes_says_the_same() -> None:
    value = {"k\x1b": "\x9b31m\u202e\n"}
    line = sanitize.printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(line) == value and line.isascii()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_of_the_log_is_one(form: str) -> None:
    line = logs._formatter(form).format(record("al\x1b[31m\nFAKE LINE\u202e\x9b\x85\u2028"))
    assert len(line.splitlines()) == 1 and line.isprintable()
