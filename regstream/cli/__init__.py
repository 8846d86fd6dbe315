"""The command line: arguments in, exit codes out. What a command does is done elsewhere.

Exit codes: 0 done, 1 failed, 2 wrong use (an unknown stream too), 78 bad configuration (``EX_CONFIG`` of sysexits.h).
"""

from __future__ import annotations

import asyncio
import enum
import gc
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from regstream import __version__, errors

EX_CONFIG = 78
URL = "http://127.0.0.1:3001"

_HELP = """Live data that behaves like a bank's: YAML streams and scenarios, over WebSocket, with hot reload.

Begin with `regstream run` in a folder that holds a streams.yaml, then follow it with `regstream tail` in another
terminal. `regstream validate` tells what is wrong with the files, `regstream preview STREAM` what a stream makes.
"""

app = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

Streams = Annotated[Path | None, typer.Option("--streams", help="The streams file.", show_default="./streams.yaml")]
Scenarios = Annotated[
    Path | None, typer.Option("--scenarios", help="The folder of scenario files.", show_default="./scenarios")
]
Templates = Annotated[
    Path | None, typer.Option("--templates", help="The folder of template files.", show_default="./templates")
]
Url = Annotated[str, typer.Option("--url", help="Where the daemon listens.", envvar="REGSTREAM_URL")]


class Kind(enum.StrEnum):
    """Which files a schema describes."""

    streams = "streams"
    scenario = "scenario"


def _settings(**flags: Any) -> Any:
    from regstream import settings

    return settings.load(os.environ, **flags)


def _catalog(streams: Path | None, scenarios: Path | None, templates: Path | None) -> tuple[Any, Any]:
    from regstream import config

    chosen = _settings(streams=streams, scenarios=scenarios, templates=templates)
    return chosen, config.load(chosen.streams, chosen.scenarios, chosen.templates, chosen.env)


@app.command()
def run(
    streams: Streams = None,
    scenarios: Scenarios = None,
    templates: Templates = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any.", show_default="3001")] = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    It reads the files, listens, and makes events. Edit the files and it reloads them; SIGHUP and
    POST /api/streaming/reload do the same. A second signal ends it at once.
    """
    chosen = _settings(streams=streams, scenarios=scenarios, templates=templates, host=host, port=port)
    # The start makes hardly any garbage, and collections would go through all that it makes; the daemon ends this
    gc.disable()
    from regstream import daemon
    from regstream.cli import logs, show

    logs.begin(chosen.debug)
    parts = daemon.build(chosen)
    asyncio.run(daemon.Daemon(parts, lambda ready: typer.echo(show.summary(ready))).run())


@app.command()
def validate(streams: Streams = None, scenarios: Scenarios = None, templates: Templates = None) -> None:
    """Print every problem of the files as file:line:column: message, or that there is none.

    Exit code 0 when the files are good, 78 when they are not.
    """
    _, catalog = _catalog(streams, scenarios, templates)
    counts = {"stream": catalog.streams, "scenario": catalog.scenarios, "entity": catalog.entities}
    texts = [f"{len(one)} {name}{'' if len(one) == 1 else 's'}" for name, one in counts.items()]
    typer.echo(f"ok: {', '.join(texts).replace('entitys', 'entities')}")


@app.command()
def preview(
    stream: Annotated[str, typer.Argument(help="Which stream.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=1_000_000, help="How many events.")] = 5,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same events, today and tomorrow.")] = None,
    streams: Streams = None,
    scenarios: Scenarios = None,
    templates: Templates = None,
) -> None:
    """Print the first events of a stream as JSON lines, without a broker or a network.

    With --seed the clock begins at 2026-01-01T00:00:00Z and the output is the same each time; without, it begins now.
    Exit code 2 when there is no such stream.
    """
    from regstream.cli import rehearse

    chosen, catalog = _catalog(streams, scenarios, templates)
    for event in rehearse.events(chosen, catalog, stream, count, seed):
        typer.echo(event.value)


@app.command()
def plan(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    streams: Streams = None,
    scenarios: Scenarios = None,
    templates: Templates = None,
) -> None:
    """Tell what the files will produce before anything starts: events and bytes per hour and day.

    Sizes are measured on a sample of each stream; rates come from the intervals, schedules and the profile's speed.
    """
    from regstream.cli import rehearse, show

    chosen, catalog = _catalog(streams, scenarios, templates)
    rows = rehearse.forecast(chosen, catalog)
    typer.echo(json.dumps(show.forecast_data(rows), indent=2) if as_json else show.forecast(rows, catalog, chosen.env))


@app.command()
def schema(
    kind: Annotated[Kind, typer.Argument(help="Which files.")] = Kind.streams,
) -> None:
    """Print the JSON Schema of the YAML files, for editors.

    In VS Code: regstream schema streams > .streams.schema.json, and begin streams.yaml with the line
    # yaml-language-server: $schema=.streams.schema.json
    """
    from regstream import config

    typer.echo(json.dumps(config.schema(kind.value), indent=2))


@app.command()
def tail(
    url: Url = URL,
    channel: Annotated[
        list[str] | None, typer.Option("--channel", "-c", help="May be given several times.", show_default="all")
    ] = None,
    rewind: Annotated[int, typer.Option(min=0, max=1000, help="Begin with this many past events.")] = 0,
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="End after this many events; 0: never.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The frames as they come.")] = False,
) -> None:
    """Follow a running daemon in the terminal, one line an event.

    Channels: dashboard-updates (all streams), the name of a stream or of an event, immediate-alert, system. When the
    connection is lost it comes back by itself, with the events that it missed.
    """
    from regstream.cli import follow

    follow.follow(url, channel or ["dashboard-updates", "system"], rewind, count, as_json)


@app.command()
def check(
    health: Annotated[bool, typer.Option("--health", help="Liveness, readiness, health.")] = False,
    api: Annotated[bool, typer.Option("--api", help="Status, streams, a burst and its events.")] = False,
    ws: Annotated[bool, typer.Option("--ws", help="Subscribe, ping, receive a burst whole and in order.")] = False,
    url: Url = URL,
) -> None:
    """Check a running daemon from end to end, one line a step; without flags all steps.

    The checks of --api and --ws make a burst of a few events. Exit code 0 when all pass, 1 otherwise.
    """
    from regstream.cli import checks

    wanted = [name for name, on in (("health", health), ("api", api), ("ws", ws)) if on]
    if not checks.run(url, wanted or ["health", "api", "ws"]):
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
        app()
    except errors.ConfigError as error:
        for problem in error.problems:
            _complain(str(problem))
        count = len(error.problems)
        _leave(f"{count} problem{'' if count == 1 else 's'} in the configuration", EX_CONFIG)
    except errors.SettingsError as error:
        _leave(str(error), EX_CONFIG)
    except errors.UnknownName as error:
        _leave(str(error), 2)
    except errors.RegstreamError as error:
        _leave(str(error), 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader has had enough (… | head); nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _complain(text: str) -> None:
    typer.echo(text, err=True)


def _leave(text: str, code: int) -> None:
    _complain(typer.style(f"regstream: {text}", fg="red") if sys.stderr.isatty() else f"regstream: {text}")
    sys.exit(code)
