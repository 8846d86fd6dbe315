"""Arguments, the run, the table, and the exit code."""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import random
import sys
import tempfile
from typing import Any

from scripts.chaos import setting
from scripts.soak import play

OUT = pathlib.Path(__file__).with_name("last.json")
LONG, SHORT = 600.0, 20.0


def main(given: list[str] | None = None) -> int:
    """0 when everything holds, 1 when something does not."""
    arguments = _parser().parse_args(given)
    seed = random.randrange(10_000) if arguments.seed is None else arguments.seed
    seconds = arguments.seconds or (SHORT if arguments.short else LONG)
    report: dict[str, Any] = {"seed": seed, "seconds": seconds, "rate": setting.RATE}
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report |= _played(seconds, seed, pathlib.Path(folder))
    report["holds"] = not report["faults"]
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(_table(report))
    return 0 if report["holds"] else 1


def _played(seconds: float, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    async def bounded() -> dict[str, Any]:
        async with asyncio.timeout(2 * seconds + 180):
            return await play.play(seconds, seed, folder)

    try:
        return asyncio.run(bounded())
    except* Exception as group:
        first = [repr(error) for error in group.exceptions]
    return {"faults": {"not played to its end": {"count": len(first), "first": first}}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="soak", description="clients that come and go, and what they were shown")
    parser.add_argument("--short", action="store_true", help=f"{SHORT:.0f} seconds instead of {LONG:.0f}")
    parser.add_argument("--seconds", type=float, help="how long there is load")
    parser.add_argument("--seed", type=int, help="the same one makes the same plan of coming and going")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="where the report goes, as JSON")
    return parser


def _table(report: dict[str, Any]) -> str:
    lines = [f"soak, seed {report['seed']}, {report['rate']:.0f} events/s for {report['seconds']:g} s"]
    for name, value in report.items():
        if name not in ("seed", "rate", "seconds", "faults", "holds"):
            lines.append(f"  {name:<40} {_shown(value)}")
    for name, fault in report["faults"].items():
        lines += [f"  FAULT {name}: {fault['count']}", *(f"    {one}" for one in fault["first"])]
    return "\n".join([*lines, "", "everything holds" if report["holds"] else "something does NOT hold"])


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else f"{value:,}"


if __name__ == "__main__":
    sys.exit(main())
