"""Draws what a span of the shipped bank looks like, from the file that ``regstream generate`` has written.

    REGSTREAM_ENV=production regstream generate --from 2026-01-01 --to 2026-04-01 --out quarter.jsonl
    python docs/quarter/draw.py quarter.jsonl

Writes ``rates.png``, ``budgets.png``, ``findings.png`` and ``projects.png`` beside itself, or into ``--into``. It needs
matplotlib, which ``make test`` installs.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import itertools
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import matplotlib as mpl
import orjson

mpl.use("agg")
import matplotlib.dates
import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).resolve().parent
WANTED = ("TRANSACTION_STREAM", "BUDGET_UPDATES", "COMPLIANCE_ALERTS", "PROJECT_UPDATES")
STATES = {"OPEN": "#4c78a8", "IN_REVIEW": "#f2b134", "ESCALATED": "#d1495b", "RESOLVED": "#8fb996"}
DAY = datetime.timedelta(days=1)
_LIVES = 40
_BANK = datetime.timezone(datetime.timedelta(hours=-5), "Bogotá")
"""The zone in which the payments of the bank follow the hours: it has no summer time."""

Event = dict[str, Any]
mpl.rcParams.update(
    {
        "figure.figsize": (11, 5),
        "figure.dpi": 110,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "font.size": 10,
        "axes.titlelocation": "left",
        "savefig.bbox": "tight",
        "timezone": "America/Bogota",
        "axes.prop_cycle": mpl.cycler(color=mpl.color_sequences["tab20"][::2] + mpl.color_sequences["tab20"][1::2]),
    }
)


def read(file: BinaryIO, size: int) -> Iterator[tuple[str, datetime.datetime, Event]]:
    """Stream, time in the bank's zone and data of the events that are drawn; how far it is goes to a terminal."""
    subjects = {f'"subject":"{name}"'.encode(): name for name in WANTED}
    done, shown = 0, -1
    for line in file:
        done += len(line)
        head = line[:400]
        name = next((name for mark, name in subjects.items() if mark in head), None)
        if name is not None:
            event = orjson.loads(line)
            yield name, datetime.datetime.fromisoformat(event["time"]).astimezone(_BANK), event["data"]
        part = done * 100 // max(size, 1)
        if part != shown and sys.stderr.isatty():
            shown = part
            print(f"\rreading {part:3d} %", end="\n" if part == 100 else "", file=sys.stderr, flush=True)


class Span:
    """What was read: payments by day and hour, and the reports of budgets, findings and projects."""

    def __init__(self) -> None:
        self.payments: collections.Counter[tuple[datetime.date, int]] = collections.Counter()
        self.budgets: dict[str, list[tuple[datetime.datetime, float]]] = collections.defaultdict(list)
        self.findings: dict[str, list[tuple[datetime.datetime, str]]] = collections.defaultdict(list)
        self.projects: dict[str, list[tuple[datetime.datetime, Event]]] = collections.defaultdict(list)

    def take(self, name: str, time: datetime.datetime, data: Event) -> None:
        """Take one event."""
        if name == "TRANSACTION_STREAM":
            self.payments[time.date(), time.hour] += 1
        elif name == "BUDGET_UPDATES":
            self.budgets[data["svpName"]].append((time, data["utilization"]))
        elif name == "COMPLIANCE_ALERTS":
            self.findings[data["findingId"]].append((time, data["status"]))
        else:
            self.projects[data["projectName"]].append((time, data))


def dated(axes: plt.Axes) -> None:
    """Make the horizontal axis one of dates, with few enough of them to be read."""
    locator = mpl.dates.AutoDateLocator(maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mpl.dates.ConciseDateFormatter(locator))


def rates(span: Span) -> plt.Figure:
    """Payments by hour: each hour of the span as a square, and the mean of working days, Saturdays and Sundays."""
    days = sorted({day for day, _ in span.payments})
    figure, (left, right) = plt.subplots(1, 2, width_ratios=(2, 1))
    grid = [[span.payments[day, hour] for day in days] for hour in range(24)]
    edges = [*days, days[-1] + DAY]
    image = left.pcolormesh(edges, range(25), grid, cmap="magma")
    left.set(title="Payments an hour", ylabel="hour in Bogotá", yticks=range(0, 25, 3))
    dated(left)
    left.grid(visible=False)
    figure.colorbar(image, ax=left)
    kinds = {"Monday to Friday": range(5), "Saturday": (5,), "Sunday": (6,)}
    # The first and the last day may be parts of one
    whole = days[1:-1] or days
    for label, weekdays in kinds.items():
        those = [day for day in whole if day.weekday() in weekdays]
        if those:
            mean = [sum(span.payments[day, hour] for day in those) / len(those) for hour in range(24)]
            right.plot(range(24), mean, marker="o", markersize=3, label=label)
    right.set(title="Mean by hour of the day", xlabel="hour in Bogotá", xticks=range(0, 24, 3))
    right.set_ylim(0, right.get_ylim()[1] * 1.25)
    right.legend(frameon=False, loc="upper right")
    return figure


def budgets(span: Span) -> plt.Figure:
    """How much of each budget is gone."""
    figure, axes = plt.subplots()
    for name, reports in sorted(span.budgets.items()):
        times, used = zip(*reports, strict=True)
        axes.plot(times, used, linewidth=1.1, label=name)
    for level, colour in ((85, "#f2b134"), (95, "#e07a3f"), (100, "#d1495b")):
        axes.axhline(level, color=colour, linewidth=1, linestyle="--")
    axes.set(title="Part of the quarter's budget that is spent, by senior vice president", ylabel="%", ylim=(0, None))
    dated(axes)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def findings(span: Span) -> plt.Figure:
    """How many findings are known in which state, and the lives of some of them."""
    figure, (left, right) = plt.subplots(1, 2)
    known = sorted((time, key, status) for key, told in span.findings.items() for time, status in told)
    times, counts, last = [], {state: [] for state in STATES}, {}
    step = (known[-1][0] - known[0][0]) / 200
    for time, key, status in known:
        last[key] = status
        if status == "RESOLVED":
            last.pop(key)
        if not times or time - times[-1] >= step:
            now = collections.Counter(last.values())
            times.append(time)
            for state, found in counts.items():
                found.append(now[state])
    shown = [state for state in STATES if state != "RESOLVED"]
    left.stackplot(times, *(counts[state] for state in shown), labels=shown, colors=[STATES[one] for one in shown])
    left.set(title="Findings that are not resolved", ylim=(0, None))
    left.legend(frameon=False, loc="upper left", ncols=3)
    left.set_ylim(0, 1.15 * max(sum(states) for states in zip(*(counts[one] for one in shown), strict=True)))
    dated(left)
    middle = known[len(known) // 2][0]
    born = [key for key, told in span.findings.items() if told[0][0] >= middle and told[-1][1] == "RESOLVED"]
    for place, key in enumerate(sorted(born, key=lambda key: span.findings[key][0])[:_LIVES]):
        told = span.findings[key]
        for (time, status), (until, _) in itertools.pairwise(told):
            right.barh(place, until - time, left=time, color=STATES[status], height=0.8)
        right.plot([told[-1][0]], [place], marker="|", color="#333333")
    right.set(title=f"The lives of {min(len(born), _LIVES)} findings, until they were resolved", yticks=[])
    dated(right)
    right.legend(
        handles=[plt.Rectangle((0, 0), 1, 1, color=STATES[name], label=name) for name in shown],
        frameon=False,
        loc="lower right",
    )
    return figure


def projects(span: Span) -> plt.Figure:
    """How projects move and how their deadlines come nearer; where one is held up it does neither."""
    figure, (left, right) = plt.subplots(1, 2)
    for name, told in sorted(span.projects.items())[:6]:
        times = [time for time, _ in told]
        [line] = left.plot(times, [data["progress"] for _, data in told], linewidth=1.2, label=name)
        right.plot(times, [data["daysToDeadline"] for _, data in told], linewidth=1.2, color=line.get_color())
        held = [(time, data) for time, data in told if data["blocker"]]
        for axes, value in ((left, "progress"), (right, "daysToDeadline")):
            axes.plot([time for time, _ in held], [data[value] for _, data in held], ".", color="#d1495b", markersize=2)
    right.axhline(0, color="#d1495b", linewidth=1, linestyle="--")
    left.set(title="Progress of six projects, held up where it is red", ylabel="%", ylim=(0, 102))
    right.set(title="Days to their deadlines")
    figure.legend(fontsize=8, frameon=False, loc="lower center", ncols=3, bbox_to_anchor=(0.5, -0.07))
    for axes in (left, right):
        dated(axes)
    return figure


def main(given: list[str] | None = None) -> int:
    """Exit code 1 when there is nothing to draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path, help="what regstream generate has written")
    parser.add_argument("--into", type=pathlib.Path, default=HERE, help="the folder for the pictures")
    chosen = parser.parse_args(given)
    span = Span()
    try:
        with chosen.file.open("rb") as file:
            for name, time, data in read(file, chosen.file.stat().st_size):
                span.take(name, time, data)
    except OSError as error:
        print(f"{chosen.file}: {error.strerror}", file=sys.stderr)
        return 1
    if not (span.payments and span.budgets and span.findings and span.projects):
        print(f"{chosen.file}: not all of {', '.join(WANTED)} are in it", file=sys.stderr)
        return 1
    for draw in (rates, budgets, findings, projects):
        path = chosen.into / f"{draw.__name__}.png"
        figure = draw(span)
        figure.savefig(path)
        plt.close(figure)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
