"""Make docs/dashboard.png anew: the live page of a daemon that has run for two minutes, in the middle of a crisis.

    .venv/bin/python -m scripts.screenshot [FILE]

It needs Chromium (apt-get install chromium) and takes two and a half minutes.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tempfile

import httpx
from playwright import sync_api

ROOT = pathlib.Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZE: sync_api.ViewportSize = {"width": 1440, "height": 1000}
HISTORY = 105_000
SCENARIOS = {"MARKET_VOLATILITY": 8_000, "BUDGET_CRISIS": 9_000}
"""What is started, and how many milliseconds pass before the next thing is done."""


def take(url: str, path: pathlib.Path) -> None:
    """Write the picture of the page at ``url`` to ``path``."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(url)
        page.wait_for_selector("body[data-link=live] article.tile")
        page.wait_for_timeout(HISTORY)
        page.locator("#alerts-all").click()
        for scenario, milliseconds in SCENARIOS.items():
            httpx.post(f"{url}/api/streaming/simulate", json={"scenario": scenario}).raise_for_status()
            page.wait_for_timeout(milliseconds)
        page.screenshot(path=path)
        browser.close()


def main() -> None:
    path = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "dashboard.png")
    with tempfile.TemporaryDirectory() as folder:
        files = {"--streams": "streams.yaml", "--scenarios": "scenarios", "--templates": "templates"}
        command = [sys.executable, "-m", "regstream", "run", "--port", "0"]
        command += [part for option, name in files.items() for part in (option, str(ROOT / name))]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as daemon:
            try:
                assert daemon.stdout is not None
                take(daemon.stdout.readline().split()[3], path)
            finally:
                daemon.terminate()
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
