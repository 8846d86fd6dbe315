"""The environment, typed: defaults, every refusal with its cure, notices, and that no secret is shown."""

from __future__ import annotations

import pathlib

import pydantic
import pytest

from regstream import errors, settings

SECRET = "hunter2-very-secret"


def refused(environ, **flags) -> errors.SettingsError:
    with pytest.raises(errors.SettingsError) as caught:
        settings.load(environ, **flags)
    return caught.value


def test_defaults_are_those_of_the_contract():
    given = settings.load({})
    assert (given.streaming, given.host, given.port) == (True, "127.0.0.1", 3001)
    assert (given.server_name, given.region, given.env) == ("VPS-DataStreamer", "LATAM", "development")
    assert given.cors_origins == ("http://localhost:*", "http://127.0.0.1:*")
    assert given.rate_limit == settings.RateLimit(60, 60)
    assert (given.streams, given.scenarios, given.templates) == tuple(
        map(pathlib.Path, ("streams.yaml", "scenarios", "templates"))
    )
    assert (given.debug, given.notices) == ((), ())


def test_each_variable_is_declared_once_and_described():
    names = [one.name for one in settings.VARIABLES]
    fields = [one.field for one in settings.VARIABLES if one.field]
    assert len(set(names)) == len(names) and len(set(fields)) == len(fields)
    assert all(one.description for one in settings.VARIABLES)
    assert set(fields) <= set(settings.Settings.model_fields)


def test_every_variable_of_the_contract_is_declared():
    kafka = "BROKER SECURITY_PROTOCOL SASL_MECHANISM SASL_USERNAME SASL_PASSWORD SSL_CA SSL_CERT SSL_KEY"
    others = (
        "ENABLE_STREAMING STREAMING_HOST STREAMING_PORT DATABASE_URL VPS_SERVER_NAME VPS_REGION REGSTREAM_ENV DEBUG "
        "REGSTREAM_TOKENS REGSTREAM_TOKENS_FILE CORS_ORIGINS RATE_LIMIT"
    )
    expected = {f"KAFKA_{one}" for one in kafka.split()} | set(others.split())
    # Besides those of the contract: where it keeps what has to outlive the process, for how long the database does, and
    # how long frames may gather; what bounds connections; and where logs and traces go
    bounds = {"STREAMING_PROXIES", "STREAMING_MAX_CONNECTIONS", "STREAMING_MAX_PER_ADDRESS"}
    others = {"REGSTREAM_STATE", "RETENTION", "DELIVERY_WINDOW", "REGSTREAM_LOG", "OTEL_TRACES_EXPORTER"}
    assert {one.name for one in settings.VARIABLES} == expected | bounds | others


@pytest.mark.parametrize("one", [one for one in settings.VARIABLES if one.default], ids=lambda one: one.name)
def test_a_default_written_out_is_the_default(one):
    written = settings.load({one.name: one.default})
    assert getattr(written, one.field) == getattr(settings.load({}), one.field)


@pytest.mark.parametrize("one", settings.VARIABLES, ids=lambda one: one.name)
def test_an_empty_variable_counts_as_unset(one):
    assert settings.load({one.name: ""}) == settings.load({one.name: "  "}) == settings.load({})


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "Yes", "on", " on "])
def test_true(text):
    assert settings.load({"ENABLE_STREAMING": text}).streaming is True


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "off", "OFF"])
def test_false(text):
    assert settings.load({"ENABLE_STREAMING": text}).streaming is False


BAD = [
    ("ENABLE_STREAMING", "maybe", "true"),
    ("ENABLE_STREAMING", "2", "true"),
    ("STREAMING_HOST", "not a host", "127.0.0.1"),
    ("STREAMING_HOST", "localhost:3001", "127.0.0.1"),
    ("STREAMING_HOST", "-x", "127.0.0.1"),
    ("STREAMING_HOST", "h\x00st", "127.0.0.1"),
    ("STREAMING_HOST", "x" * 300, "127.0.0.1"),
    ("STREAMING_PORT", "65536", "0 to 65535"),
    ("STREAMING_PORT", "-1", "0 to 65535"),
    ("STREAMING_PORT", "http", "0 to 65535"),
    ("STREAMING_PORT", "3001.0", "0 to 65535"),
    ("STREAMING_PORT", "٣٠٠١", "0 to 65535"),
    ("STREAMING_PORT", "9" * 5000, "0 to 65535"),
    ("VPS_REGION", "LA\nTAM", "64 characters"),
    ("VPS_REGION", "LA\udcffTAM", "64 characters"),
    ("VPS_SERVER_NAME", "x" * 65, "64 characters"),
    ("REGSTREAM_ENV", "pro duction", "letters"),
    ("NODE_ENV", "../x", "letters"),
    ("DEBUG", "streaming:brokr", "did you mean broker?"),
    ("DEBUG", "streaming:", "the parts are"),
    ("DEBUG", "express:*,streaming:zzz", "the parts are"),
    ("CORS_ORIGINS", "localhost", "scheme://host"),
    ("CORS_ORIGINS", "http://localhost:*/", "scheme://host"),
    ("CORS_ORIGINS", "ftp://x", "scheme://host"),
    ("CORS_ORIGINS", "http://x:99999999", "scheme://host"),
    ("CORS_ORIGINS", "http://u:p@x", "scheme://host"),
    ("CORS_ORIGINS", "http://ok.example, bad", "'bad'"),
    ("RATE_LIMIT", "60", "60/minute"),
    ("RATE_LIMIT", "0/minute", "60/minute"),
    ("RATE_LIMIT", "-5/minute", "60/minute"),
    ("RATE_LIMIT", "60/fortnight", "60/minute"),
    ("REGSTREAM_TOKENS_FILE", "no/such/tokens.txt", "one role:token pair a line"),
    ("REGSTREAM_LOG", "xml", "text json"),
    ("STREAMING_PROXIES", "-1", "0 to 10"),
    ("STREAMING_PROXIES", "11", "0 to 10"),
    ("STREAMING_MAX_CONNECTIONS", "0", "1 to"),
    ("STREAMING_MAX_PER_ADDRESS", "many", "1 to"),
    ("DELIVERY_WINDOW", "1001", "0 turns it off"),
    ("KAFKA_BROKER", "kafka", "host:port"),
    ("KAFKA_BROKER", "a:9092,b:port", "'b:port'"),
    ("KAFKA_BROKER", "a:99999", "host:port"),
    ("KAFKA_BROKER", "kafka://a:9092", "host:port"),
    ("KAFKA_SECURITY_PROTOCOL", "TLS", "SASL_SSL"),
    ("KAFKA_SASL_MECHANISM", "GSSAPI", "SCRAM-SHA-256"),
]


@pytest.mark.parametrize(("name", "value", "cure"), BAD, ids=lambda one: ascii(one)[:30])
def test_a_bad_value_is_named_with_its_cure(name, value, cure):
    error = refused({name: value})
    assert error.variable == name
    assert value.startswith(error.value.removesuffix("…")) and len(error.value) <= 81
    assert cure in error.reason
    assert str(error).startswith(f"{name}=") and "\n" not in str(error)


def test_flags_stand_over_the_environment():
    given = settings.load(
        {"STREAMING_HOST": "10.0.0.1", "STREAMING_PORT": "80"},
        streams="a.yaml",
        scenarios=pathlib.Path("b"),
        templates="c",
        host="::1",
        port=0,
    )
    assert (given.host, given.port) == ("::1", 0)
    assert (given.streams, given.scenarios, given.templates) == tuple(map(pathlib.Path, ("a.yaml", "b", "c")))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"port": 70000}, "--port"),
        ({"port": "x"}, "--port"),
        ({"host": ""}, "--host"),
        ({"streams": ""}, "--streams"),
        ({"scenarios": "a\0b"}, "--scenarios"),
    ],
)
def test_a_bad_flag_is_named(flags, named):
    assert refused({}, **flags).variable == named


@pytest.mark.parametrize(
    ("text", "host"),
    [("0.0.0.0", "0.0.0.0"), ("[::1]", "::1"), ("::", "::"), ("db-1.example.org", "db-1.example.org"), ("x", "x")],
)
def test_hosts(text, host):
    assert settings.load({"STREAMING_HOST": text}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost", "LOCALHOST"])
@pytest.mark.parametrize("insecure", [False, True])
def test_nothing_is_said_of_an_address_of_this_machine(host, insecure):
    assert settings.guarded(settings.load({}, host=host), insecure).notices == ()


OUTSIDE = pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "bank.example"])


@OUTSIDE
def test_nobody_listens_to_other_machines_without_tokens_unless_told_to(host):
    chosen = settings.load({}, host=host)
    with pytest.raises(errors.SettingsError, match="REGSTREAM_TOKENS") as caught:
        settings.guarded(chosen, insecure=False)
    assert caught.value.value == host and "--insecure" in caught.value.reason
    (notice,) = settings.guarded(chosen, insecure=True).notices
    assert host in notice and "may do everything" in notice


@OUTSIDE
@pytest.mark.parametrize("insecure", [False, True])
def test_with_tokens_only_their_way_over_the_network_is_noted(host, insecure):
    chosen = settings.load({"REGSTREAM_TOKENS": f"admin:{SECRET}"}, host=host)
    (notice,) = settings.guarded(chosen, insecure).notices
    assert "TLS" in notice and SECRET not in notice


def test_regstream_env_wins_over_its_alias():
    assert settings.load({"NODE_ENV": "test"}).env == "test"
    assert settings.load({"NODE_ENV": "not used !", "REGSTREAM_ENV": "production"}).env == "production"
    assert settings.load({"NODE_ENV": "test", "REGSTREAM_ENV": ""}).env == "test"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("streaming:*", settings.PARTS),
        ("streaming:broker", ("broker",)),
        ("streaming:hub, streaming:broker", ("broker", "hub")),
        ("express:* streaming:c*", ("clock", "config")),
        ("1", ()),
        ("*", ()),
        ("express:*", ()),
    ],
)
def test_debug(text, parts):
    given = settings.load({"DEBUG": text})
    assert (given.debug, given.notices) == (parts, ())


@pytest.mark.parametrize(
    ("text", "rate"),
    [("1/second", (1, 1)), ("60/Minute", (60, 60)), ("5 / hour", (5, 3600)), ("1000/day", (1000, 86400))],
)
def test_rates(text, rate):
    given = settings.load({"RATE_LIMIT": text})
    assert (given.rate_limit, given.notices) == (rate, ())


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * 86400), ("12 h", 43200), ("1D", 86400), ("", None), (" ", None)]
)
def test_retention(text, seconds):
    assert settings.load({"RETENTION": text}).retention == seconds


@pytest.mark.parametrize("text", ["30", "0d", "1w", "-1d", "1.5d", "d", "100000d"])
def test_a_retention_that_is_none_is_refused_with_its_cure(text):
    assert "30d or 12h" in refused({"RETENTION": text}).reason


@pytest.mark.parametrize(
    "text",
    [f"postgresql://u:{SECRET}@127.0.0.1:5432/d", "postgres:///d", "postgresql://u@h/d?sslmode=require",
     "host=/run/postgresql dbname=d", f"host=h password='{SECRET} x' user=u"],
)  # fmt: skip
def test_an_address_of_a_database_does_not_show_itself(text):
    given = settings.load({"DATABASE_URL": text})
    assert given.database.get_secret_value() == text
    assert text not in repr(given) and SECRET not in repr(given)


@pytest.mark.parametrize(
    "text", ["localhost:5432", "mysql://u@h/d", "postgresql://", "x", f"postgresql://u:{SECRET} @h"]
)
def test_what_is_no_address_of_postgresql_is_refused_without_showing_it(text):
    error = refused({"DATABASE_URL": text})
    assert "postgresql://user:password@host:5432/database" in error.reason
    assert SECRET not in f"{error} {error!r}"


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://*.bank.example", ("https://*.bank.example",)),
        ("HTTP://A.example, http://b.example:8080", ("HTTP://A.example", "http://b.example:8080")),
        ("http://a.example,http://a.example", ("http://a.example",)),
        ("http://[::1]:*", ("http://[::1]:*",)),
        ("*", ("*",)),
    ],
)
def test_origins(text, origins):
    assert settings.load({"CORS_ORIGINS": text}).cors_origins == origins


def test_kafka_is_what_its_variables_say():
    given = settings.load({
        "KAFKA_BROKER": " a.example:9092, [::1]:9093 ,", "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
        "KAFKA_SASL_MECHANISM": "scram-sha-512", "KAFKA_SASL_USERNAME": "alice", "KAFKA_SASL_PASSWORD": SECRET,
        "KAFKA_SSL_CA": "/ca.pem", "KAFKA_SSL_CERT": "/cert.pem", "KAFKA_SSL_KEY": "/key.pem",
    })  # fmt: skip
    assert given.kafka_servers == ("a.example:9092", "[::1]:9093")
    assert (given.kafka_protocol, given.kafka_mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (given.kafka_username, given.kafka_password.get_secret_value()) == ("alice", SECRET)
    assert (given.kafka_ca, given.kafka_cert, given.kafka_key) == ("/ca.pem", "/cert.pem", "/key.pem")
    assert SECRET not in f"{given!r} {given}"


def test_without_servers_there_is_no_kafka():
    assert settings.load({}).kafka_servers == settings.load({"KAFKA_BROKER": " , "}).kafka_servers == ()


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({}, ".regstream"),
        ({"STATE_DIRECTORY": "/var/lib/one"}, "/var/lib/one"),
        ({"STATE_DIRECTORY": "/var/lib/one", "REGSTREAM_STATE": "/two"}, "/two"),
    ],
)
def test_where_it_keeps_what_outlives_it(environ, state):
    assert str(settings.load(environ).state) == state


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("STREAMING_PROT", "STREAMING_PORT"),
        ("VPS_SERVERNAME", "VPS_SERVER_NAME"),
        ("REGSTREAM_PORT", "STREAMING_PORT"),
        ("STREAMING_RATE_LIMIT", "RATE_LIMIT"),
        ("REGSTREAM_QQQQQQQQQ", ""),
    ],
)
def test_an_unknown_variable_of_ours_is_noted(name, hint):
    (notice,) = settings.load({name: SECRET, "PATH": "/bin", "PORT": "1"}).notices
    assert notice.startswith(f"{name} is not a variable") and hint in notice
    assert ("did you mean" in notice) is bool(hint)
    assert SECRET not in notice


SLIPS = [
    lambda name: name + "S", lambda name: name[:-1], lambda name: name.lower(), lambda name: name.replace("_", "", 1),
    lambda name: name.replace("_", "-"), lambda name: name[:2] + name[3] + name[2] + name[4:],
    lambda name: "_".join(reversed(name.split("_"))), lambda name: name[:3] + "X" + name[4:],
]  # fmt: skip


@pytest.mark.parametrize("one", settings.VARIABLES, ids=lambda one: one.name)
def test_a_name_that_is_nearly_ours_is_noted(one):
    for slip in SLIPS:
        name = slip(one.name)
        if name != one.name and name not in {other.name for other in settings.VARIABLES}:
            (notice,) = settings.load({name: SECRET}).notices
            assert (
                notice.startswith((f"{name} is not a variable", "REGSTREAM_TOKEN is for"))
                and one.name in notice
                and SECRET not in notice
            )


@pytest.mark.parametrize("name", ["KAFKA_BROKERS", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_SERVERS"])
def test_what_others_call_the_servers_of_kafka_is_noted(name):
    (notice,) = settings.load({name: "a:9092"}).notices
    assert notice == f"{name} is not a variable of regstream and has no effect, did you mean KAFKA_BROKER?"


def test_variables_of_others_are_not_noted():
    others = (
        "PATH HOME LANG TZ PORT HOST NODE_ENV STATE_DIRECTORY LOGS_DIRECTORY RUNTIME_DIRECTORY DATABASE_USER "
        "DATABASE_HOST DATABASE_NAME KAFKA_HOME KAFKA_OPTS KAFKA_HEAP_OPTS KAFKA_LOG4J_OPTS OTEL_METRICS_EXPORTER "
        "OTEL_LOGS_EXPORTER OTEL_SERVICE_NAME OTEL_EXPORTER_OTLP_HEADERS PGPASSWORD DEBUG_COLORS DEBUGINFOD_URLS "
        "DBUS_SESSION_BUS_ADDRESS VIRTUAL_ENV PYTHONPATH NOTIFY_SOCKET JOURNAL_STREAM LS_COLORS no_proxy"
    )
    assert settings.load(dict.fromkeys(others.split(), "x")).notices == ()


@pytest.mark.parametrize("one", [one for one in settings.VARIABLES if one.secret], ids=lambda one: one.name)
def test_a_secret_is_never_shown(one):
    try:
        shown = repr(settings.load({one.name: SECRET}))
    except errors.SettingsError as error:
        shown = f"{error} {error!r}"
        assert error.variable == one.name and one.name in ("DATABASE_URL", "REGSTREAM_TOKENS")
    assert SECRET not in shown


def test_tokens_come_from_the_environment_and_from_a_file(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# who may do what\n\nread:{SECRET}-1\n  control:{SECRET}-2  \n")
    given = settings.load({"REGSTREAM_TOKENS": f"admin:{SECRET}-3", "REGSTREAM_TOKENS_FILE": str(file)})
    found = [(one.role, one.secret.get_secret_value()) for one in given.all_tokens]
    assert found == [("admin", f"{SECRET}-3"), ("read", f"{SECRET}-1"), ("control", f"{SECRET}-2")]
    assert given.notices == () and SECRET not in f"{given!r} {given}"


def test_a_token_that_can_be_guessed_is_noted_without_being_shown():
    (notice,) = settings.load({"REGSTREAM_TOKENS": f"admin:hunter2 read:{SECRET}"}).notices
    assert "admin" in notice and "openssl" in notice and "hunter2" not in notice


@pytest.mark.parametrize("name", settings.COMMANDS)
def test_what_the_commands_read_is_not_called_unknown(name):
    (notice,) = settings.load({name: SECRET}).notices
    assert "for the commands that talk to a daemon" in notice and SECRET not in notice


def test_source_is_a_uri_reference():
    assert settings.load({}).source == "/regstream/LATAM/VPS-DataStreamer"
    assert settings.load({"VPS_REGION": "São Paulo/1"}).source == "/regstream/S%C3%A3o%20Paulo%2F1/VPS-DataStreamer"


def test_settings_are_frozen():
    with pytest.raises(pydantic.ValidationError):
        settings.load({}).port = 1
