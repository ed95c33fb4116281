"""Files between the server and its workers: uploaded weights and exports, too large to stay in memory."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from resnet.files import replace_file
from resnet.limits import FILE_BYTES


def put(folder: Path, content: bytes | memoryview) -> Path:
    """The content as a file, named by its SHA-256; the oldest files go where all take more than FILE_BYTES."""
    path = folder / hashlib.sha256(content).hexdigest()
    if path.exists():
        path.touch()
    else:
        replace_file(path, content)
    total = 0
    for _, size, file in sorted(_files(folder), reverse=True):
        total += size
        if total > FILE_BYTES and file != path:
            file.unlink(missing_ok=True)
    return path


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each was last asked for, its bytes, its path; another process may remove one meanwhile."""
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            yield file.stat().st_mtime, file.stat().st_size, file
