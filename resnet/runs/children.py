"""The workers that this process has started; a bare table, for a run's status reads it and a start writes it."""

import subprocess
import threading
from pathlib import Path

_workers: dict[tuple[Path, float], subprocess.Popen] = {}  # by run, and the time of the status it was started with
_lock = threading.Lock()  # the app's sessions are threads


def add(run: Path, started: float, worker: subprocess.Popen) -> None:
    """Note a run's worker and the `updated` of the status that it was started with."""
    with _lock:
        _workers[run, started] = worker


def ended(run: Path) -> dict[float, bool]:
    """Whether the run's workers have ended, by the time they were started; empty for those of other processes.

    Asks all workers for their exit status, which leaves no zombie, and forgets what has ended. But the last one of a
    run that ended with an error stays until the next: the status may still say that it is starting.
    """
    with _lock:
        last = dict(_workers.keys())
        codes = {key: worker.poll() for key, worker in _workers.items()}
        for (path, started), code in codes.items():
            if code == 0 or (code is not None and (last[path] != started or not path.exists())):
                del _workers[path, started]
        return {started: codes[path, started] is not None for path, started in _workers if path == run}
