"""Files between the server and its workers: uploaded weights and exports, too large to stay in memory."""

import hashlib
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
    kept = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
    size = 0
    for file in kept:
        size += file.stat().st_size
        if size > FILE_BYTES and file != path:
            file.unlink(missing_ok=True)
    return path
