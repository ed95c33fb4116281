"""Starts export_worker.py and talks to it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


class Worker:
    """`ask(kind, source, ...)` writes the source to a file of its own and gives the worker's reply."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder, self.asked = process, folder, 0

    def ask(self, kind: str, source: bytes, **values: Any) -> dict[str, Any]:
        self.asked += 1
        path = self.folder / f"net_{self.asked}.py"
        path.write_bytes(source)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"kind": kind, "source": str(path), **values}) + "\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline() or '{"error": "the worker is gone"}')
        assert "error" not in reply, f"{reply['error']}\n{source.decode()}"
        return reply


@contextmanager
def worker(folder: Path) -> Iterator[Worker]:
    """Isolated from PYTHONPATH, the user's site and the working folder: only installed packages can be imported.

    It has as many threads as this process, for sums of other parts differ in their last bits.
    """
    script = Path(__file__).with_name("export_worker.py")
    values = {"KERAS_BACKEND": "torch", "KERAS_HOME": str(folder), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-I", str(script)],
        cwd=folder,
        env=os.environ | values,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Worker(process, folder)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
