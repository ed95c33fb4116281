"""Whose turn it is: tickets, and how many jobs may train at once on a device."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from resnet.files import replace_file
from resnet.runs.jobs import ACTIVE
from resnet.runs.store import Run, all_runs, runs_folder


def next_ticket() -> int:
    """1, 2, 3, ... for all programs on the runs folder; no clock can turn the order round."""
    folder = runs_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".ticket.lock"):
        try:
            last = int((folder / ".ticket").read_text())
        except (OSError, ValueError):
            last = max((run.status().ticket for run in all_runs()), default=0)
        replace_file(folder / ".ticket", str(last + 1))
    return last + 1


def jobs_per_device() -> int:
    """How many races or single runs may train at once on a device: $RESNET_JOBS, or 1."""
    named = os.environ.get("RESNET_JOBS", "")
    return max(1, int(named)) if named.isdecimal() else 1


class Line:
    """The races and single runs that wait for a device of this machine or use it, as seen by one of them."""

    def __init__(self, run: Run, device: str) -> None:
        self.device, self.ticket = device, run.status().ticket
        self._not_ahead: dict[Path, tuple[int, ...]] = {}  # the status files that said so, as they were then

    def place(self) -> int:
        """0 when it is the run's turn, 1 when it is the next, and so on.

        Asked twice a second among any number of runs, so a file is read again only where it was replaced or said that
        its run is ahead, which it may have ceased to be.
        """
        ahead = set()
        for path in runs_folder().glob("*/status.json") if self.ticket else []:
            with suppress(FileNotFoundError):  # deleted at this moment
                file = path.stat()
                state = file.st_ino, file.st_mtime_ns, file.st_size
                if self._not_ahead.get(path) == state:
                    continue
                if (job := self._ahead(Run(path.parent))) is not None:
                    ahead.add(job)
                else:
                    self._not_ahead[path] = state
        return max(0, len(ahead) - jobs_per_device() + 1)

    def _ahead(self, run: Run) -> int | str | None:
        """The job that the run belongs to where it comes first: its race's ticket, or its id outside the queue."""
        status = run.status()
        here = status.host == socket.gethostname() and status.device in (self.device, "")  # "" while it is starting
        return (status.ticket or run.id) if status.state in ACTIVE and here and status.ticket < self.ticket else None
