"""Arguments, the acts in turn, the table, and the exit code."""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import random
import sys
import tempfile
import time
from typing import Any

from scripts import kafka
from scripts.chaos import acts, daemon, setting

OUT = pathlib.Path(__file__).with_name("last.json")


def main() -> int:
    """0 when everything holds, 1 when something does not, 2 when it cannot be tried."""
    arguments = _parser().parse_args()
    if reason := kafka.available():
        print(f"Kafka cannot be run here: {reason}", file=sys.stderr)
        return 2
    seed = random.randrange(10_000) if arguments.seed is None else arguments.seed
    chosen = setting.SHORT if arguments.short else setting.LONG
    report = {"seed": seed, "rate": setting.RATE, "short": arguments.short, "acts": []}
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        base = arguments.keep or pathlib.Path(temporary)
        for number, act in enumerate(chosen):
            if arguments.act is None or arguments.act == number + 1:
                report["acts"].append(_play(act, seed, base / f"{time.time():.0f}"))
    report["holds"] = all(not act["faults"] for act in report["acts"])
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(_table(report))
    return 0 if report["holds"] else 1


def _play(act: setting.Act, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    try:
        return asyncio.run(_bounded(act, seed, folder))
    except (daemon.Failed, kafka.KafkaError, TimeoutError) as error:
        return {"act": act.name, "faults": {"not played to its end": {"count": 1, "first": [repr(error)]}}}


async def _bounded(act: setting.Act, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    async with asyncio.timeout(2 * act.seconds + 240):
        return await acts.play(act, seed, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chaos", description="kill Kafka and the daemon, and see what is lost")
    parser.add_argument("--short", action="store_true", help="about a minute instead of ten")
    parser.add_argument("--seed", type=int, help="the same one makes the same plan of injuries")
    parser.add_argument("--act", type=int, choices=(1, 2), help="only one broker (1), or only three (2)")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="where the report goes, as JSON")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for what Kafka and the daemon leave, to look into")
    return parser


def _table(report: dict[str, Any]) -> str:
    lines = [f"chaos, seed {report['seed']}, {report['rate']:.0f} events/s"]
    for act in report["acts"]:
        lines.append(f"\n{act['act']}")
        for name, value in act.items():
            if name == "clients":
                for who, figures in value.items():
                    lines += [f"  {who + ', ' + what:<55} {figure:>9}" for what, figure in figures.items()]
            elif name not in ("act", "faults"):
                shown = " ".join(value) if isinstance(value, list) else value
                lines.append(f"  {name:<55} {shown:>9}")
        for name, fault in act["faults"].items():
            lines += [f"  FAULT {name}: {fault['count']}", *(f"    {one}" for one in fault["first"])]
    return "\n".join([*lines, "", "everything holds" if report["holds"] else "something does NOT hold"])


if __name__ == "__main__":
    sys.exit(main())
