"""The three witnesses, compared."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.chaos import client, harm, topics

SHOWN = 5
DOUBLES = 0.001
BEFORE, BEHIND = 5.0, 15.0
Key = tuple[str, str]


def judge(
    found: topics.Topics,
    clients: Sequence[client.Client],
    heard: Mapping[Key, int],
    final: Mapping[str, Any],
    injuries: Sequence[harm.Injury],
) -> dict[str, Any]:
    """The report of one act: figures, and under ``faults`` what does not hold, by name with examples.

    ``final`` is what the daemon says at the end: ``status``, ``health`` and ``exit``.
    """
    faults: dict[str, list[str]] = {
        "missing on the topics": _holes(found.seen, heard, clients),
        "out of order on the topics": found.inverted,
        "key in two partitions": found.strayed,
        "twice on the topics without a doubt": _undoubted(found.twice, injuries),
        "counters differ": _counters(found.seen, final),
    }
    for one in clients:
        faults[f"shown twice to the {one.name} client"] = one.twice
        faults[f"not shown to the {one.name} client"] = one.gaps + _behind(one, final)
        faults[f"not recovered for the {one.name} client"] = one.untold
    if len(found.twice) > DOUBLES * found.records:
        faults["too many twice on the topics"] = [f"{len(found.twice)} of {found.records}"]
    return {**_figures(found, clients, heard, injuries), "faults": _told(faults)}


def _told(faults: Mapping[str, list[str]]) -> dict[str, Any]:
    return {name: {"count": len(all_), "first": all_[:SHOWN]} for name, all_ in faults.items() if all_}


def _figures(
    found: topics.Topics, clients: Sequence[client.Client], heard: Mapping[Key, int], injuries: Sequence[harm.Injury]
) -> dict[str, Any]:
    kinds = [one.kind for one in injuries]
    return {
        "events": sum(map(len, found.seen.values())),
        "records": found.records,
        "doubles": len(found.twice),
        "epochs": len({epoch for _, epoch in {*found.seen, *heard}}),
        "broker kills": kinds.count("broker"),
        "daemon kills": kinds.count("daemon"),
        "clients": {
            one.name: {
                "shown": one.frames,
                "connections": one.connections,
                "replayed": one.replayed,
                "twice": len(one.twice),
                "gaps": len(one.gaps),
                "not recovered": len(one.untold),
                "not recovered while Kafka was away": one.excused,
            }
            for one in clients
        },
    }


def _holes(seen: Mapping[Key, set[int]], heard: Mapping[Key, int], clients: Sequence[client.Client]) -> list[str]:
    """What was given a position and is not there; every numbering begins with 1."""
    tops = dict(heard)
    for key, numbers in [*seen.items(), *(pair for one in clients for pair in one.seen.items())]:
        tops[key] = max(tops.get(key, 0), max(numbers, default=0))
    return [
        f"{stream}/{epoch}/{seq}"
        for (stream, epoch), top in tops.items()
        for seq in sorted(set(range(1, top + 1)) - seen.get((stream, epoch), set()))
    ]


def _undoubted(twice: Sequence[tuple[str, str]], injuries: Sequence[harm.Injury]) -> list[str]:
    """Doubles that no injury explains: a send is in doubt only when something dies."""
    return [
        f"{name} of {time}"
        for name, time in twice
        if not any(
            one.since - BEFORE <= datetime.datetime.fromisoformat(time).timestamp() <= one.until + BEHIND
            for one in injuries
        )
    ]


def _counters(seen: Mapping[Key, set[int]], final: Mapping[str, Any]) -> list[str]:
    status, health = final["status"], final["health"]
    wrong = [
        f"{one['name']}: the daemon is at {one['epoch']}/{one['seq']}, the topic at {top}"
        for one in status["streams"]
        if (top := max(seen.get((one["name"], one["epoch"]), {0}))) != one["seq"]
    ]
    made = sum(one["events"] for one in status["streams"])
    produced, sent = status["kafka"]["messagesProduced"], status["dataStreamer"]["totalMessagesSent"]
    if produced != sent or made > sent:
        wrong.append(f"streams made {made}, sent {sent}, the broker was given {produced}")
    told = health["kafka"]
    if status["kafka"]["errors"] or told["state"] != "live" or told["skipped"] or told["dropped"]:
        wrong.append(f"{status['kafka']}, {told}")
    if final["exit"] != 0:
        wrong.append(f"the daemon ended with {final['exit']}")
    return wrong


def up_to_date(one: client.Client, status: Mapping[str, Any]) -> bool:
    """Whether a client was shown everything that the daemon says it made."""
    return not _behind(one, {"status": status})


def _behind(one: client.Client, final: Mapping[str, Any]) -> list[str]:
    return [
        f"{stream['name']}: is at {stream['epoch']}/{stream['seq']}, was shown {last}"
        for stream in final["status"]["streams"]
        if (last := one.last.get(stream["name"])) != (stream["epoch"], stream["seq"])
    ]
