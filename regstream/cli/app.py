"""The command line: arguments in, exit codes out. What a command does is done elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Sized
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from regstream import __version__, errors

EX_CONFIG = 78
# Of a descriptor: an error of a file or a connection has its name, or is told by whoever has it
_OUTPUT_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EROFS, errno.ENXIO}
URL = "http://127.0.0.1:3001"

_HELP = """Live data that behaves like a bank's: YAML streams and scenarios, over WebSocket, with hot reload.

Begin with `regstream run` in a folder that holds a streams.yaml, then follow it with `regstream tail` in another
terminal. `regstream validate` tells what is wrong with the files, `regstream preview STREAM` what a stream makes.
"""


class _Commands(typer.core.TyperGroup):
    """Ends a command whose reader has had enough (``… | head``) like any that is done."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            # There is none where it was closed
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            # What is buffered would be written again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from None
        return result


app = typer.Typer(
    cls=_Commands, help=_HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)

Streams = Annotated[
    Path | None, typer.Option("--streams", metavar="FILE", help="The streams file.  [default: ./streams.yaml]")
]
Scenarios = Annotated[
    Path | None, typer.Option("--scenarios", metavar="FOLDER", help="Scenario files.  [default: ./scenarios]")
]
Templates = Annotated[
    Path | None, typer.Option("--templates", metavar="FOLDER", help="Template files.  [default: ./templates]")
]


def _daemon(url: str) -> str:
    """What is secret in it, and the token that goes there, is in nothing that is written from here on."""
    from regstream import sanitize
    from regstream.cli import common

    # A password may hold what ends a host: up to the last @ all of it is secret
    login = url.partition("://")[2].rpartition("@")[0]
    sanitize.remember(filter(None, (login.partition(":")[2] or login, common.token())))
    return url


Url = Annotated[
    str,
    typer.Option("--url", metavar="URL", help="Where the daemon listens.", envvar="REGSTREAM_URL", callback=_daemon),
]


class Policy(enum.StrEnum):
    """What happens when a reader is too slow; the values of ``model.Policy``, which takes long to import."""

    disconnect = "disconnect"
    drop_oldest = "dropOldest"
    conflate = "conflate"


def _settings(**flags: Any) -> Any:
    from regstream import sanitize, settings

    chosen = settings.load(os.environ, **flags)
    sanitize.remember(*chosen.secrets())
    sanitize.remember(settings.hidden(os.environ))
    return chosen


def _names(incomplete: str) -> list[str]:
    """Streams of the files here that begin so, for the completion of the shell."""
    with contextlib.suppress(errors.RegstreamError):
        return [name for name in _loaded(None, None, None)[1].streams if name.startswith(incomplete)]
    return []


Several = Annotated[
    list[str] | None,
    typer.Option(
        "-s", "--stream", metavar="NAME", help="May be given several times.  [default: all]", autocompletion=_names
    ),
]


def _schemas(incomplete: str) -> list[str]:
    """What ``regstream schema`` takes and begins so, for the completion of the shell."""
    return [*(name for name in ("streams", "scenario", "ALERTS") if name.startswith(incomplete)), *_names(incomplete)]


def _catalog(streams: Path | None, scenarios: Path | None, templates: Path | None) -> tuple[Any, Any]:
    """Settings and catalog, the warnings of which are printed."""
    chosen, catalog = _loaded(streams, scenarios, templates)
    for warning in catalog.warnings:
        _complain(str(warning))
    return chosen, catalog


def _loaded(streams: Path | None, scenarios: Path | None, templates: Path | None) -> tuple[Any, Any]:
    from regstream import config

    chosen = _settings(streams=streams, scenarios=scenarios, templates=templates)
    return chosen, config.load(chosen.streams, chosen.scenarios, chosen.templates, chosen.env)


@app.command()
def run(
    streams: Streams = None,
    scenarios: Scenarios = None,
    templates: Templates = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", help="Port; 0 takes a free one.  [default: 3001]")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines in though there are no tokens.")
    ] = False,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Make what would have been since then first, then go live."),
    ] = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    It reads the files, listens, and makes events. Edit the files and it reloads them; SIGHUP and
    POST /api/streaming/reload do the same. A second signal ends it at once.

    With --from 2026-01-01 it begins with the history since then, as fast as it can, and goes live where that ends.
    Started again with the same time and seed it goes on where broker or database stand.
    """
    from regstream import settings
    from regstream.cli import common

    asked = _settings(streams=streams, scenarios=scenarios, templates=templates, host=host, port=port)
    chosen = settings.guarded(asked, insecure)
    since = None if begin is None else common.past("--from", begin)
    if since is not None and not chosen.streaming:
        raise errors.BadValue("--from", "ENABLE_STREAMING is false: this daemon generates nothing")
    # The start makes hardly any garbage, and collections would go through all that it makes; the daemon ends this
    gc.disable()
    from regstream import daemon, logs

    logs.configure(chosen.debug, chosen.log)
    one = daemon.Daemon(daemon.build(chosen, since), _announce)
    asyncio.run(one.run())
    while one.again is not None:
        # Files are read anew as it is; nothing else would handle it now, and it would end the process
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        one = daemon.Daemon(daemon.build(one.again, since, one.renumber), _announce)
        asyncio.run(one.run())


def _announce(ready: Any) -> None:
    """Print where the daemon listens; it serves also where that cannot be printed."""
    from regstream.cli import common, rendering

    try:
        typer.echo(rendering.summary(ready))
        sys.stdout.flush()
    except BrokenPipeError as error:
        common.give_up(error)
    except OSError as error:
        logging.getLogger("regstream.daemon").warning("%s", common.give_up(error))


@app.command()
def validate(
    streams: Streams = None,
    scenarios: Scenarios = None,
    templates: Templates = None,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for problems.")] = False,
) -> None:
    """Print every problem of the files.

    Each is one line, file:line:column: message, with the name that was probably meant. What is odd but can be used
    is a warning, file:line:column: warning: message. Exit code 0 when the files are good, 78 when they are not.
    """
    from regstream import config
    from regstream.functions import csv

    chosen, catalog = _loaded(streams, scenarios, templates)
    warnings = sorted({*catalog.warnings, *config.large_numbers(chosen.streams, catalog)})
    for warning in warnings:
        _complain(str(warning))
    _warn(chosen)
    for note in catalog.notes:
        _complain(str(note))
    if strict and warnings:
        _leave(f"{_counted(warnings, 'warning', 'warnings')} in the configuration", EX_CONFIG)
    counts: tuple[str, ...] = (
        _counted(catalog.streams, "stream", "streams"),
        _counted(catalog.scenarios, "scenario", "scenarios"),
        _counted(catalog.entities, "entity", "entities"),
        _counted([name for name in catalog.templates if not csv.is_table(name)], "template file", "template files"),
    )
    if found := list(filter(csv.is_table, catalog.templates)):
        counts = (*counts, _counted(found, "CSV file", "CSV files"))
    if warnings:
        counts = (*counts, _counted(warnings, "warning", "warnings"))
    typer.echo(f"ok: {', '.join(counts)}")


def _warn(chosen: Any) -> None:
    for notice in chosen.notices:
        _complain(f"warning: {notice}", "yellow")


def _counted(found: Sized, one: str, many: str) -> str:
    return f"{len(found)} {one if len(found) == 1 else many}"


@app.command()
def preview(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Which stream.", autocompletion=_names)],
    count: Annotated[
        int, typer.Option("-n", "--count", metavar="N", min=1, max=1_000_000, help="How many events.")
    ] = 5,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Same seed, same events, today and tomorrow.")
    ] = None,
    streams: Streams = None,
    scenarios: Scenarios = None,
    templates: Templates = None,
) -> None:
    """Print the first events of a stream as JSON lines.

    No broker and no network is touched. With --seed the clock begins at 2026-01-01T00:00:00Z and the output is the
    same each time; without, it begins now.
    Exit code 2 when there is no such stream.
    """
    from regstream.cli import common, preview

    chosen, catalog = _catalog(streams, scenarios, templates)
    out = common.output()
    for event in preview.events(chosen, catalog, stream, count, seed):
        out.write(event.value + b"\n")


@app.command()
def plan(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    streams: Streams = None,
    scenarios: Scenarios = None,
    templates: Templates = None,
) -> None:
    """Tell how much the files will produce.

    That is events and bytes per hour and day, for each stream and in all, before anything starts.
    Sizes are measured on a sample of each stream; rates come from the intervals, schedules and the profile's speed.
    """
    from regstream.cli import preview, rendering

    chosen, catalog = _catalog(streams, scenarios, templates)
    rows = preview.forecast(chosen, catalog)
    typer.echo(
        json.dumps(rendering.forecast_data(rows, catalog), indent=2)
        if as_json
        else rendering.forecast(rows, catalog, chosen.env)
    )


@app.command()
def generate(
    begin: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From then on: 2026-01-01, 2026-01-01T09:30:00Z.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to then, which is not included.")] = None,
    duration: Annotated[
        str | None,
        typer.Option(metavar="D", help="For so long, 90d, 12h, 30m; without --from and --to it ends now."),
    ] = None,
    stream: Several = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=2**63 - 1, help="Same seed, same events.  [default: the files']"),
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="FILE", help="JSON lines into a file, - for standard output; or kafka, postgres.")
    ] = "-",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", min=1, max=256, help="Processes for a file.  [default: as cores]"),
    ] = None,
    streams: Streams = None,
    scenarios: Scenarios = None,
    templates: Templates = None,
) -> None:
    """Make the events of a span of time, as fast as can be.

    They are those that a daemon with the same files, the same seed and the same beginning makes, in the order of their
    time. A file is there once it is whole. Into kafka (KAFKA_BROKER) and postgres (DATABASE_URL) only that is written
    which is not there yet, so that what was interrupted can be begun again.
    """
    from regstream.cli import common, generate

    start, stop = common.span(begin, end, duration)
    chosen, catalog = _catalog(streams, scenarios, templates)
    _warn(chosen)
    generate.run(chosen, catalog, generate.Asked(start, stop, tuple(stream or ()), seed, out, jobs))


@app.command()
def schema(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="streams or scenario: the files; or a stream.", autocompletion=_schemas),
    ] = "streams",
    event: Annotated[bool, typer.Option("--event", help="Of the whole event of a stream, not of its data.")] = False,
    streams: Streams = None,
    scenarios: Scenarios = None,
    templates: Templates = None,
) -> None:
    """Print the JSON Schema of the files, or of a stream's data.

    That of the files is for editors. Write it with: regstream schema streams > streams.schema.json

    and begin streams.yaml with: # yaml-language-server: $schema=./streams.schema.json

    That of a stream, regstream schema BUDGET_UPDATES, is read off its declaration; no event is made. With --event it
    is that of the CloudEvent around the data. ALERTS is a stream too. Exit code 2 when there is no such stream.
    """
    from regstream.cli import common, preview

    made = preview.document(name, event, lambda: _catalog(streams, scenarios, templates)[1])
    common.say_json(json.dumps(made, indent=2, ensure_ascii=False))


@app.command()
def tail(
    url: Url = URL,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            "-c", "--channel", metavar="NAME", help="May be given several times.  [default: all]", autocompletion=_names
        ),
    ] = None,
    rewind: Annotated[
        int, typer.Option(metavar="N", min=0, max=1000, help="Begin with so many past events of each channel.")
    ] = 0,
    count: Annotated[
        int, typer.Option("-n", "--count", metavar="N", min=0, help="End after so many events; 0: never.")
    ] = 0,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="Begin with the newest event of each key.")] = False,
    policy: Annotated[
        Policy | None,
        typer.Option(metavar="NAME", help="When this is too slow: disconnect, dropOldest, conflate."),
    ] = None,
    max_rate: Annotated[
        float | None, typer.Option(metavar="N", help="At most so many events a second, of each key if conflated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The frames as they come.")] = False,
) -> None:
    """Follow a running daemon, one line an event.

    Channels: dashboard-updates (all streams), the name of a stream or of an event, immediate-alert, system. When the
    connection is lost it comes back by itself, with the events that it missed.
    """
    from regstream.cli import tail

    channels = channel or ["dashboard-updates", "system"]
    tail.follow(url, channels, count, as_json, rewind=rewind, snapshot=snapshot, policy=policy, max_rate=max_rate)


@app.command()
def replay(
    begin: Annotated[str, typer.Option("--from", metavar="TIME", help="Events of this time or later, RFC 3339.")],
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="Events before this time.")],
    speed: Annotated[
        str, typer.Option(metavar="X", help="How many times as fast as they came, or max: as fast as can be.")
    ] = "1",
    stream: Several = None,
    topic: Annotated[
        str | None, typer.Option(metavar="NAME", help="Into this topic of Kafka instead of the dashboards.")
    ] = None,
    url: Url = URL,
) -> None:
    """Have a running daemon send stored events again.

    Dashboards get them marked as replayed; what is live goes on. Needs a daemon with a database. Shows how far it is;
    Ctrl-C cancels it.
    """
    from regstream.cli import replay

    asked = {"from": begin, "to": end, "speed": speed, "streams": stream or [], "topic": topic}
    if not replay.run(url, asked):
        raise typer.Exit(1)


@app.command()
def check(
    health: Annotated[bool, typer.Option("--health", help="Liveness, readiness, health.")] = False,
    api: Annotated[bool, typer.Option("--api", help="Status, streams, a burst and its events.")] = False,
    ws: Annotated[bool, typer.Option("--ws", help="Subscribe, ping, receive a burst whole and in order.")] = False,
    socketio: Annotated[bool, typer.Option("--socketio", help="The same on Socket.IO, by polls.")] = False,
    shutdown: Annotated[bool, typer.Option("--shutdown", help="A daemon of its own stops in order.")] = False,
    url: Url = URL,
    as_json: Annotated[bool, typer.Option("--json", help="All steps as one JSON object.")] = False,
) -> None:
    """Check a running daemon from end to end.

    One line a step, without flags all steps. Some make bursts of a few events, and one begins a scenario that it
    cancels at once. What REGSTREAM_TOKEN is not good for is skipped. Exit code 0 when no step fails, 1 otherwise.
    """
    from regstream.cli import check

    flags = {"health": health, "api": api, "ws": ws, "socketio": socketio, "shutdown": shutdown}
    if not check.run(url, [name for name, on in flags.items() if on] or list(flags), as_json):
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"regstream {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def main() -> None:
    """The console script: errors become a few lines on the terminal and an exit code."""
    try:
        app(prog_name="regstream", color=_colour())
    except errors.ConfigError as error:
        for problem in sorted((*error.problems, *error.warnings)):
            _complain(str(problem))
        _leave(f"{_counted(error.problems, 'problem', 'problems')} in the configuration", EX_CONFIG)
    except errors.SettingsError as error:
        _leave(str(error), EX_CONFIG)
    except (errors.UnknownName, errors.BadValue) as error:
        _leave(str(error), 2)
    except errors.RegstreamError as error:
        _leave(str(error), 1)
    except OSError as error:
        if error.errno not in _OUTPUT_FAULTS or error.filename is not None:
            raise
        from regstream.cli import common

        _leave(common.give_up(error), 1)


def _colour() -> bool | None:
    """False when there must be no colours; None: where there is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _complain(text: str, colour: str | None = None) -> None:
    from regstream import sanitize

    line = typer.style(sanitize.printable(sanitize.redact(text)), fg=colour)
    # Where nobody can be told, the exit code says it
    with contextlib.suppress(OSError):
        typer.echo(line, err=True, color=_colour())


def _leave(text: str, code: int) -> None:
    _complain(f"regstream: {text}", "red")
    sys.exit(code)
