"""Every alert fires for a real daemon that is in that state, and none for one that is well."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests import databases, process
from tests.monitoring import prometheus
from tests.process import Daemon

pytestmark = pytest.mark.slow

WELL = "well"
PATIENCE = 90.0
HEAVY = """
  HEAVY_{number}:
    interval: 100ms
    batch_size: 10000
    fields: {{x: "{{{{ uniform(0, 1) }}}}", y: "{{{{ uniform(0, 1) }}}}"}}
"""
# Not in the first events, which are tried when the files are read
FAILING = """
  FAILING:
    interval: 10ms
    fields: {x: "{{ 1 // (1 if seq < 300 else 0) }}"}
"""
TRIGGER = """
    CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.stream = 'RISK_EVENTS' THEN RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = 'odd'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER odd BEFORE INSERT ON regstream.events FOR EACH ROW EXECUTE FUNCTION odd();
"""


def nowhere() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def add(daemon: Daemon, streams: str) -> None:
    path = daemon.folder / "streams.yaml"
    path.write_text(path.read_text() + streams)
    daemon.post("reload")


def spill(daemon: Daemon) -> None:
    """More events than may wait."""
    for _ in range(11):
        daemon.burst("RISK_EVENTS", 10_000)


def overloaded(daemon: Daemon) -> None:
    add(daemon, "".join(HEAVY.format(number=number) for number in range(6)))


def failing(daemon: Daemon) -> None:
    add(daemon, FAILING)


def stopped(daemon: Daemon) -> None:
    daemon.post("stop", {})


def refused(daemon: Daemon) -> None:
    (daemon.folder / "streams.yaml").write_text("streams: [")
    assert daemon.http.post("/api/streaming/reload").status_code == 422


def tried(daemon: Daemon) -> None:
    for _ in range(500):
        assert daemon.http.post("/api/streaming/stop", headers={"origin": "https://evil.example"}).status_code == 403


def unrecoverable(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        for _ in range(30):
            reader.send(action="unsubscribe", channels=["RISK_EVENTS"])
            answer = reader.subscribe("RISK_EVENTS", after={"RISK_EVENTS": {"epoch": "of-before", "seq": 5}})
            assert answer["streams"]["RISK_EVENTS"]["recovered"] is False


def stalled(daemon: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = "GET /ws?channel=RISK_EVENTS HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            head += (
                "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            )
            one.sendall(f"{head}\r\n".encode())
            assert one.recv(12) == b"HTTP/1.1 101"
        for _ in range(4):
            daemon.burst("RISK_EVENTS", 10_000)


def restarted(daemon: Daemon) -> None:
    for _ in range(4):
        # So that Prometheus has looked at each
        time.sleep(1.5)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        daemon.http.close()
        daemon.start()


def choosy(daemon: Daemon) -> None:
    """Somebody adds a trigger, and the database takes these events no more."""
    databases.rows(daemon.environ["DATABASE_URL"], TRIGGER)
    daemon.burst("RISK_EVENTS", 3)


def nothing(_: Daemon) -> None:
    pass


# What is done to a daemon, with which environment it was started, and what is to fire for it, and nothing else
KAFKA = {"KAFKA_BROKER": f"127.0.0.1:{nowhere()}"}
DATABASE = {"DATABASE_URL": f"postgresql://nobody@127.0.0.1:{nowhere()}/none"}
CASES: dict[str, tuple[Callable[[Daemon], None], dict[str, str], set[str]]] = {
    WELL: (nothing, {}, set()),
    "overloaded": (overloaded, {}, {"RegstreamTicksMissed", "RegstreamTicksLate"}),
    "failing": (failing, {}, {"RegstreamStreamFailing"}),
    "stopped": (stopped, {}, {"RegstreamStopped"}),
    "showing": (nothing, {"ENABLE_STREAMING": "false"}, set()),
    "refused": (refused, {}, {"RegstreamReloadRefused"}),
    "tried": (tried, {}, {"RegstreamRefusals"}),
    "unrecoverable": (unrecoverable, {}, {"RegstreamRecoveriesFail"}),
    "stalled": (stalled, {}, {"RegstreamSlowReaders"}),
    "restarted": (restarted, {}, {"RegstreamRestarts"}),
    "kafka": (spill, KAFKA, {"RegstreamKafkaAway", "RegstreamSpoolFills"}),
    "full": (spill, KAFKA, {"RegstreamKafkaAway", "RegstreamEventsLost"}),
    "database": (spill, DATABASE, {"RegstreamDatabaseAway", "RegstreamDatabaseBehind"}),
    "choosy": (choosy, {}, {"RegstreamDatabaseRefuses"}),
}
GONE = {"gone": {"RegstreamDown"}}
LOSSES = [
    f"regstream_{name}_total"
    for name in ("events_lost", "alerts_dropped", "broker_errors", "broker_dropped", "store_dropped", "store_lost")
]


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, Daemon]]:
    """One daemon a case, started and not yet harmed."""
    databases.need(request.node.nodeid)
    database = request.getfixturevalue("_postgres").newest()
    folders = {name: process.copy_files(tmp_path_factory.mktemp(name)) for name in CASES}
    own = {"choosy": {"DATABASE_URL": database}}

    def start(name: str) -> Daemon:
        # Always the same port, as one that a supervisor starts again has
        env = {**CASES[name][1], **own.get(name, {}), "RATE_LIMIT": "1000/second"}
        return Daemon(folders[name], "--port", str(nowhere()), **env)

    found: dict[str, Daemon] = {}
    small = folders["full"] / "small"
    small.mkdir()
    own["full"] = {"REGSTREAM_STATE": str(small)}
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found.update(zip(CASES, pool.map(start, CASES), strict=True))
        yield found
    finally:
        for daemon in found.values():
            daemon.process.kill()
            daemon.process.wait()
            daemon.http.close()
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.fixture(scope="module")
def watched(daemons: dict[str, Daemon], tmp_path_factory: pytest.TempPathFactory) -> Iterator[prometheus.Prometheus]:
    targets = {name: daemon.port for name, daemon in daemons.items()} | {"gone": nowhere()}
    with prometheus.watching(tmp_path_factory.mktemp("prometheus"), targets) as one:
        process.eventually(lambda: len(one.ask("up")) == len(targets), PATIENCE, "the first look at each")
        time.sleep(3)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: CASES[name][0](daemons[name]), CASES))
        yield one


def test_each_alert_fires_where_it_should_and_nowhere_else(watched: prometheus.Prometheus) -> None:
    expected = {name: rules for name, (_, _, rules) in CASES.items()} | GONE

    def fired() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {name: set() for name in expected}
        for alert, instances in watched.firing().items():
            for one in instances:
                found[one].add(alert)
        return found

    # Ticks may be missed anywhere while one of them keeps this machine busy
    busy = {"RegstreamTicksMissed", "RegstreamTicksLate"}

    def wrong() -> dict[str, tuple[set[str], set[str]]]:
        """What should fire and does not, and what does and should not."""
        found = fired()
        told = {name: (rules - found[name], found[name] - rules - busy) for name, rules in expected.items()}
        return {name: one for name, one in told.items() if any(one)}

    # One that is just being started again does not answer for a moment
    with contextlib.suppress(AssertionError):
        process.eventually(lambda: not wrong(), PATIENCE)
    assert wrong() == {}


def test_no_alert_is_left_out() -> None:
    tried_here = set().union(*(rules for _, _, rules in CASES.values()), *GONE.values())
    assert {one["alert"] for one in prometheus.alerts()} - tried_here == {"RegstreamMemory"}


def said(alert: str, summary: str) -> dict[str, str]:
    """What an alert is to say."""
    rule = next(one for one in prometheus.alerts() if one["alert"] == alert)
    return {"summary": summary, "description": rule["annotations"]["description"]}


def reckon(folder: pathlib.Path, alert: str, series: dict[str, str], expected: dict[str, list[object]]) -> None:
    """Have Prometheus say whether an alert fires at these times, for figures that rise by the minute."""
    given = [{"series": name, "values": values} for name, values in series.items()]
    checks = [{"eval_time": when, "alertname": alert, "exp_alerts": told} for when, told in expected.items()]
    test = {"rule_files": [str(prometheus.RULES)], "evaluation_interval": "1m"}
    test["tests"] = [{"interval": "1m", "input_series": given, "alert_rule_test": checks}]  # type: ignore[assignment]
    (folder / "test.yml").write_text(json.dumps(test))
    done = prometheus.promtool("test", "rules", folder / "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_memory_by_prometheus_own_arithmetic(tmp_path: pathlib.Path) -> None:
    # No daemon can be made to take that much here; that the figure is there is seen of a real one, below
    labels = {"severity": "warning", "instance": "x", "job": "regstream"}
    series = {'process_resident_memory_bytes{job="regstream", instance="x"}': "6e8+2e7x20"}
    told = {"exp_labels": labels, "exp_annotations": said("RegstreamMemory", "x uses 782MiB of memory")}
    reckon(tmp_path, "RegstreamMemory", series, {"8m": [], "11m": [told]})


@pytest.mark.parametrize("counter", LOSSES)
def test_each_way_of_losing_events_by_prometheus_own_arithmetic(tmp_path: pathlib.Path, counter: str) -> None:
    # Of these a real daemon fills its disk above; the names are those of the documentation, and of a real daemon
    series = {f'{one}{{instance="x"}}': "7x20" for one in LOSSES} | {f'{counter}{{instance="x"}}': "7x5 8x15"}
    told = {
        "exp_labels": {"severity": "critical", "instance": "x"},
        "exp_annotations": said("RegstreamEventsLost", "x lost events"),
    }
    reckon(tmp_path, "RegstreamEventsLost", series, {"5m": [], "8m": [told]})
    assert f"| `{counter}` | counter |" in (prometheus.ROOT / "docs" / "monitoring.md").read_text()


def test_the_rules_are_sound_and_say_what_to_do() -> None:
    done = prometheus.promtool("check", "rules", prometheus.RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    for one in prometheus.alerts():
        assert one["labels"]["severity"] in ("critical", "warning"), one["alert"]
        assert len(one["annotations"]["description"]) > 40, one["alert"]


def test_the_example_of_a_configuration_is_one() -> None:
    path = prometheus.RULES.with_name("prometheus.yml")
    done = prometheus.promtool("check", "config", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert prometheus.load(path)["scrape_configs"][0]["job_name"] == "regstream"


def test_the_dashboard_asks_only_for_what_there_is(watched: prometheus.Prometheus) -> None:
    board = json.loads(prometheus.RULES.with_name("grafana.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            assert watched.ask(query), f"{panel['title']} shows nothing: {query}"
