"""Damaged files of each kind; the module named here reads any number of them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytest.importorskip("resource", reason="the memory of a process is asked of Unix")


@pytest.mark.parametrize(("kind", "count"), [("photos", 400), ("npz", 100), ("weights", 100)])
def test_damaged_files_give_an_answer_or_a_sentence(kind: str, count: int) -> None:
    command = [sys.executable, "-m", "tests.support.fuzz", f"--{kind}", str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kind}: " in done.stdout
