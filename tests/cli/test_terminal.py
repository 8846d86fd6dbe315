"""What every command owes a terminal and a pipe: help, exit codes, colours, completion."""

from __future__ import annotations

import os
import pathlib
import pty
import re
import select
import subprocess
import time

import pytest

from tests import process
from tests.support import ROOT

COMMANDS = ("run", "validate", "preview", "plan", "generate", "schema", "tail", "replay", "check")
ESCAPE = "\x1b["


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str) -> None:
    done = process.run(command, "--help", COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: regstream {command} ")
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", done.stdout, re.MULTILINE):
        line = next(one for one in done.stdout.splitlines() if option in one)
        assert len(line.split(option)[1].split()) >= 2, f"{option} says what it is for"


def test_the_first_help_names_every_command_in_one_line_each() -> None:
    done = process.run("--help", COLUMNS="80")
    listed = dict(re.findall(r"^  ([a-z]+) {2,}(.+)$", done.stdout.partition("Commands:")[2], re.MULTILINE))
    assert tuple(listed) == COMMANDS
    assert not any(text.endswith("...") for text in listed.values())
    assert "regstream run" in done.stdout and "regstream tail" in done.stdout
    bare = process.run(COLUMNS="80")
    assert bare.returncode == 2 and bare.stderr == done.stdout


def test_the_version() -> None:
    assert re.fullmatch(r"regstream \d+\.\d+\.\d+\n", process.run("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["previw"], "preview"),
        (["preview"], "STREAM"),
        (["preview", "BUDGET_UPDATES", "--sead", "1"], "--seed"),
        (["preview", "BUDGET_UPDATES", "-n", "0"], "-n"),
        (["run", "--port", "many"], "--port"),
        (["schema", "stream"], "did you mean streams"),
        (["schema", "scenario", "--event"], "--event"),
        (["tail", "--url", "nonsense"], "http://"),
        (["check", "--url", "nonsense"], "http://"),
    ],
)
def test_wrong_use_exits_with_2_and_says_what_is_right(arguments: list[str], said: str) -> None:
    done = process.run(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["preview", "TRANSACTION_STREAM", "-n", "20000"], ["schema"]])
def test_a_reader_that_has_had_enough_is_no_error(arguments: list[str]) -> None:
    child = subprocess.Popen(
        process.command(*arguments),
        cwd=ROOT,
        env=process.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(30) == 0
    child.stderr.close()


def on_a_terminal(*arguments: object, cwd: pathlib.Path = ROOT, **env: str) -> str:
    """What a command shows on a terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        process.command(*arguments),
        cwd=cwd,
        env=process.environment(TERM="xterm-256color", **env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + process.SECONDS
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 65536)
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
        child.wait(process.SECONDS)
    return shown.decode()


@pytest.mark.parametrize("arguments", [["plan"], ["check", "--health", "--url"], ["preview", "NOTHING"]])
def test_colours_are_for_terminals_that_want_them(arguments: list[str], daemon: process.Daemon) -> None:
    arguments = [*arguments, daemon.url] if arguments[-1] == "--url" else arguments
    assert ESCAPE in on_a_terminal(*arguments)
    assert ESCAPE not in on_a_terminal(*arguments, NO_COLOR="1")
    piped = process.run(*arguments)
    assert ESCAPE not in piped.stdout + piped.stderr


def complete(*words: str) -> list[str]:
    """What a shell is offered for the last of these words."""
    done = process.run(
        _REGSTREAM_COMPLETE="complete_bash", COMP_WORDS=" ".join(("regstream", *words)), COMP_CWORD=str(len(words))
    )
    return done.stdout.split()


def test_a_shell_can_complete() -> None:
    assert complete("pre") == ["preview"]
    assert complete("preview", "--see") == ["--seed"]
    assert complete("preview", "RI") == ["RISK_EVENTS"]
    script = process.run(_REGSTREAM_COMPLETE="source_bash").stdout
    assert "_REGSTREAM_COMPLETE=complete_bash" in script
