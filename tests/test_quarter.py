"""The pictures of docs/quarter.md are drawn from what the shipped bank makes."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from tests import process
from tests.support import ROOT

SCRIPT = ROOT / "docs" / "quarter" / "draw.py"
PICTURES = {"rates.png", "budgets.png", "findings.png", "projects.png"}


def drawn(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_a_day_is_drawn(tmp_path: pathlib.Path) -> None:
    files = process.copy_files(tmp_path)
    out = tmp_path / "day.jsonl"
    span = ("--from", "2026-01-29", "--duration", "1d", "--out", out)
    done = process.run("generate", *span, cwd=files, REGSTREAM_ENV="production", seconds=120)
    assert done.returncode == 0, done.stderr
    made = drawn(out, "--into", tmp_path)
    assert made.returncode == 0, made.stderr
    assert {path.name for path in tmp_path.glob("*.png")} == PICTURES
    for name in PICTURES:
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 15_000


def test_a_file_without_the_bank_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"subject":"OTHER","data":{}}\n')
    made = drawn(tmp_path / "other.jsonl", "--into", tmp_path)
    assert made.returncode == 1 and "not all of TRANSACTION_STREAM" in made.stderr
    missing = drawn(tmp_path / "missing.jsonl")
    assert missing.returncode == 1 and "No such file" in missing.stderr


def test_the_page_shows_what_the_script_draws() -> None:
    page = (ROOT / "docs" / "quarter.md").read_text()
    assert all(f"(quarter/{name})" in page and (ROOT / "docs" / "quarter" / name).is_file() for name in PICTURES)
