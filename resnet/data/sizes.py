"""How large pictures may be: what nets take, and what this machine's memory holds."""

import os

from resnet.errors import Refused

MIN_SIZE, MAX_SIZE = 8, 1024  # pixels, as in NetSpec


def memory_limit() -> int:
    """Bytes that pictures may take: half of the machine's memory, or 4 GiB where it cannot be asked."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30


def check_memory(count: int, channels: int, size: int) -> None:
    """Refused where `count` pictures of `size` pixels would not fit."""
    check_bytes(count * channels * size * size, f"{count:,} pictures at {size} x {size} pixels")


def check_bytes(needed: int, what: str) -> None:
    """Refused where `what`, which takes `needed` bytes, would not fit."""
    if needed > (limit := memory_limit()):
        rule = f"Pictures may take {limit / 2**30:.1f} GiB of this machine's memory."
        raise Refused(rule, f"{what} ({needed / 2**30:.1f} GiB)", "fewer pictures or a smaller size")


def check_size(size: int) -> None:
    """Refused where no net takes pictures of `size` pixels."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise Refused(f"Pictures must be {MIN_SIZE} to {MAX_SIZE:,} pixels wide and high.", size, "another size")
