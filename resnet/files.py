"""Files that a reader finds whole, whatever happens to the writer."""

import errno
import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from platformdirs import PlatformDirs

ROOT = Path(__file__).parent.parent  # of the program: assets/ is below it, and `python -m resnet` runs here
FOLDERS = PlatformDirs("resnet-explorer", appauthor=False)  # the user's, where the system wants them
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def digest(settings: Mapping[str, object]) -> str:
    """SHA-256 of settings that JSON can hold, in hexadecimal: a name for what depends on all of them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def replace_file(path: Path, content: str | bytes | memoryview) -> None:
    """Write so that a reader, also one after a power cut, sees the old or the new content, never a part."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        sync_file(part)
        _replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Have the file's content on the disk, not only on its way there."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _replace(part: Path, path: Path, patience_s: float = 2) -> None:
    """os.replace; Windows refuses it as long as somebody reads the old file."""
    end = time.monotonic() + patience_s
    while True:
        try:
            return os.replace(part, path)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
        time.sleep(0.02)
