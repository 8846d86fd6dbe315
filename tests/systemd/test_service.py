"""The service in a booted systemd: installed, started, reloaded, killed, stuck, stopped, upgraded, taken away.

The tests go through one machine's life in the order in which they stand.
"""

from __future__ import annotations

import json
import re

from tests.systemd.machine import Machine

TOKEN = "r-0123456789abcdef"
STREAMS = "/etc/regstream/streams.yaml"


def install(box: Machine, tree: str = "/checkout", *options: str, code: int = 0) -> str:
    return box.run(f"{tree}/systemd/install.sh", "--wheels", "/wheels", *options, code=code, seconds=250)


def pid(box: Machine) -> int:
    return int(box.show("MainPID"))


def test_a_dry_run_changes_nothing(box: Machine) -> None:
    said = install(box, "/checkout", "--dry-run")
    assert "would run: install" in said and "systemctl enable" in said
    box.run("test", "!", "-e", "/opt/regstream")
    box.run("test", "!", "-e", "/etc/regstream")


def test_it_is_installed_and_started(box: Machine) -> None:
    said = install(box)
    assert "regstream 0.1.0 is installed" in said
    assert (box.show("ActiveState"), box.show("SubState"), box.show("UnitFileState")) == (
        "active",
        "running",
        "enabled",
    )
    assert json.loads(box.ask("/health"))["status"] == "ok"
    assert box.run("stat", "-c", "%a %U", "/etc/regstream/regstream.env") == "600 root\n"


def test_its_status_says_what_it_does(box: Machine) -> None:
    status = box.run("systemctl", "status", "regstream")
    assert re.search(r'Status: "6 streams run in simulation, generation 1 since 20', status)


def test_it_runs_as_nobody_in_particular_and_keeps_its_state(box: Machine) -> None:
    user = box.run("ps", "-o", "user=", "-p", str(pid(box))).strip()
    assert user not in ("root", "nobody")
    assert box.run("stat", "-c", "%a", "/var/lib/private/regstream") == "700\n"
    # Nothing but that folder can be written
    limits = box.read(f"/proc/{pid(box)}/status")
    assert re.search(r"^NoNewPrivs:\s+1$", limits, re.M) and re.search(r"^CapEff:\s+0+$", limits, re.M)
    assert re.search(r"^Seccomp:\s+2$", limits, re.M)
    box.run("nsenter", "-t", str(pid(box)), "-m", "sh", "-c", "echo x > /etc/regstream/x", code=2)


def test_its_log_has_the_levels_of_the_journal(box: Machine) -> None:
    lines = box.run("journalctl", "-u", "regstream", "-o", "json", "--no-pager", "--output-fields=MESSAGE,PRIORITY")
    logged = [json.loads(line) for line in lines.splitlines()]
    mine = [one for one in logged if "generation 1 in force" in one["MESSAGE"]]
    assert mine and mine[0]["PRIORITY"] == "6" and not mine[0]["MESSAGE"].startswith("<")


def test_a_good_reload(box: Machine) -> None:
    box.run("sed", "-i", "0,/batch_size: [0-9]*/s//batch_size: 7/", STREAMS)
    before = pid(box)
    box.run("systemctl", "reload", "regstream")
    box.until("ActiveState", "active")
    assert pid(box) == before
    # Once by the files that changed, and once because it was asked to
    box.tells("generation 3 since")


def test_a_bad_reload_fails_loudly_and_changes_nothing(box: Machine) -> None:
    good, before = box.read(STREAMS), pid(box)
    box.write(STREAMS, good.replace("priority: HIGH", "priority: HIHG", 1))
    said = box.run("systemctl", "reload", "regstream", code=1)
    assert "failed" in said
    assert "HIHG" in box.journal() and "did you mean HIGH" in box.journal()
    box.tells("files refused: streams.yaml:")
    assert pid(box) == before and box.show("ActiveState") == "active"
    assert json.loads(box.ask("/health"))["config"]["generation"] == 3
    box.write(STREAMS, good)
    box.run("systemctl", "reload", "regstream")
    box.tells("6 streams run")


def test_killed_it_is_started_again(box: Machine) -> None:
    before, restarts = pid(box), int(box.show("NRestarts"))
    box.run("kill", "-9", str(before))
    box.until("NRestarts", str(restarts + 1))
    box.until("SubState", "running")
    assert pid(box) != before


def test_stuck_it_is_started_again(box: Machine) -> None:
    # With less patience than the unit has, which is what differs
    box.run("mkdir", "-p", "/run/systemd/system/regstream.service.d")
    box.write("/run/systemd/system/regstream.service.d/test.conf", "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "restart", "regstream")
    before, restarts = pid(box), int(box.show("NRestarts"))
    box.run("kill", "-STOP", str(before))
    box.until("NRestarts", str(restarts + 1))
    box.until("SubState", "running")
    assert pid(box) != before
    assert "Watchdog timeout" in box.journal()
    box.run("rm", "-r", "/run/systemd/system/regstream.service.d")
    box.run("systemctl", "daemon-reload")


def test_with_bad_files_it_does_not_start_and_is_not_tried_again(box: Machine) -> None:
    good = box.read(STREAMS)
    box.write(STREAMS, "streams: [")
    assert "failed" in box.run("systemctl", "restart", "regstream", code=1)
    assert (box.show("ActiveState"), box.show("NRestarts")) == ("failed", "0")
    assert "streams.yaml:1:" in box.journal()
    box.write(STREAMS, good)
    box.run("systemctl", "start", "regstream")


def test_what_it_knows_outlives_a_restart(box: Machine) -> None:
    box.run("sh", "-c", "echo kept > /var/lib/private/regstream/mark")
    box.run("systemctl", "restart", "regstream")
    assert box.read("/var/lib/regstream/mark") == "kept\n"


def test_tokens_come_from_the_environment_file(box: Machine) -> None:
    box.run(
        "sh",
        "-c",
        "echo 'REGSTREAM_TOKENS=read:r-0123456789abcdef admin:a-0123456789abcdef' >> /etc/regstream/regstream.env",
    )
    box.run("systemctl", "restart", "regstream")
    assert "401" in box.ask("/health", code=1)
    assert json.loads(box.ask("/health", token=TOKEN))["status"] == "ok"


def test_an_upgrade_keeps_configuration_and_state(box: Machine) -> None:
    mine, env = box.read(STREAMS), box.read("/etc/regstream/regstream.env")
    box.run("rm", "/etc/regstream/scenarios/system-outage.yaml", code=None)
    gone = box.run("ls", "/etc/regstream/scenarios")
    said = install(box, "/newer")
    assert "regstream 0.1.1 is installed" in said and "streams.yaml.new" in said
    assert (box.read(STREAMS), box.read("/etc/regstream/regstream.env")) == (mine, env)
    assert box.run("ls", "/etc/regstream/scenarios") == gone
    assert box.read("/var/lib/regstream/mark") == "kept\n"
    assert json.loads(box.ask("/health", token=TOKEN))["system"]["version"] == "0.1.1"


def test_what_traces_need_is_installed_where_they_are_wanted(box: Machine) -> None:
    ask = ("/opt/regstream/current/bin/python", "-c", "import opentelemetry.sdk")
    assert "ModuleNotFoundError" in box.run(*ask, code=1)
    box.run("sh", "-c", "echo OTEL_TRACES_EXPORTER=otlp >> /etc/regstream/regstream.env")
    assert "is installed" in install(box, "/newer")
    box.run(*ask)
    assert json.loads(box.ask("/health", token=TOKEN))["status"] == "ok"


def test_an_upgrade_for_which_the_files_are_bad_is_not_put_into_force(box: Machine) -> None:
    good, before = box.read(STREAMS), pid(box)
    box.write(STREAMS, good + "\nunknown_key: 1\n")
    said = install(box, "/checkout", code=1)
    assert "not valid for this version" in said and "unknown_key" in said
    assert pid(box) == before and "0.1.1" in box.run("readlink", "/opt/regstream/current")
    assert box.run("ls", "/opt/regstream/releases").count("0.1.") == 2
    box.write(STREAMS, good)


def test_an_upgrade_that_does_not_start_is_taken_back(box: Machine) -> None:
    said = install(box, "/broken", code=1)
    assert "the one before is in force again" in said
    box.until("SubState", "running")
    assert json.loads(box.ask("/health", token=TOKEN))["system"]["version"] == "0.1.1"


def test_it_stops_in_order(box: Machine) -> None:
    box.run("systemctl", "stop", "regstream")
    assert (box.show("ActiveState"), box.show("Result"), box.show("ExecMainStatus")) == ("inactive", "success", "0")
    # A service that an operator stopped is not started by an upgrade
    assert "was not started" in install(box, "/newer")
    assert box.show("ActiveState") == "inactive"


def test_it_is_taken_away(box: Machine) -> None:
    said = box.run("/newer/systemd/install.sh", "--uninstall")
    assert "stay" in said
    box.run("test", "!", "-e", "/opt/regstream")
    assert box.show("LoadState") == "not-found"
    assert box.read("/var/lib/regstream/mark") == "kept\n"
    box.run("/newer/systemd/install.sh", "--uninstall", "--purge")
    for path in ("/etc/regstream", "/var/lib/private/regstream", "/etc/systemd/system/regstream.service"):
        box.run("test", "!", "-e", path)
