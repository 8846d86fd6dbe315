"""A real Prometheus on loopback, with our rules and no patience, that scrapes real daemons."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from ruamel.yaml import YAML

from tests import needs, process
from tests.support import ROOT

RULES = ROOT / "monitoring" / "alerts.yml"
CURE = "they need Prometheus: apt-get install prometheus"
missing: dict[str, str] = {}
"""The tests that did not run, and why."""


def need(test: str) -> None:
    """Skip the test, or in CI let it fail, where there is no Prometheus."""
    absent = [one for one in ("prometheus", "promtool") if shutil.which(one) is None]
    reason = f"there is no {absent[0]} on this machine" if absent else None
    needs.unless(reason, test, missing, reason or "")


def load(path: pathlib.Path) -> Any:
    """What a file of Prometheus' holds."""
    return YAML(typ="safe", pure=True).load(path)


def alerts() -> list[dict[str, Any]]:
    """All rules, as they are written."""
    return list(load(RULES)["groups"][0]["rules"])


def promtool(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )


class Prometheus:
    """A server that watches ``targets``: names of instances, and where they listen."""

    def __init__(self, folder: pathlib.Path, targets: Mapping[str, int]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # The same rules, that fire at the first look
        text = re.sub(r"^( +for:) .*$", r"\1 0s", RULES.read_text(), flags=re.MULTILINE)
        (folder / "alerts.yml").write_text(text)
        jobs = [{"targets": [f"127.0.0.1:{where}"], "labels": {"instance": name}} for name, where in targets.items()]
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = {"global": every, "rule_files": ["alerts.yml"]}
        config["scrape_configs"] = [{"job_name": "regstream", "static_configs": jobs}]  # type: ignore[assignment]
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=process.SECONDS)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "Prometheus ended"
        try:
            return self.http.get("/query", params={"query": "1"}).status_code == 200
        except httpx.TransportError:
            return False

    def firing(self) -> dict[str, set[str]]:
        """The instances for which each alert fires, by its name."""
        found: dict[str, set[str]] = {}
        for one in self.http.get("/alerts").json()["data"]["alerts"]:
            found.setdefault(one["labels"]["alertname"], set()).add(one["labels"]["instance"])
        return found

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What an expression gives now. Raises AssertionError for one that is none."""
        answer = self.http.get("/query", params={"query": query})
        assert answer.status_code == 200, f"{query}: {answer.text}"
        return list(answer.json()["data"]["result"])

    def close(self) -> None:
        self.http.close()
        self._process.terminate()
        self._process.wait(process.SECONDS)
        self._log.close()


@contextlib.contextmanager
def watching(folder: pathlib.Path, targets: Mapping[str, int]) -> Iterator[Prometheus]:
    """A Prometheus that answers."""
    one = Prometheus(folder, targets)
    try:
        process.eventually(one._answers, what="Prometheus answers")
        yield one
    finally:
        one.close()
