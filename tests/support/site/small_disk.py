"""A file system of a few MiB for one test, which it can fill to the last byte."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, *, size: str = "16m") -> Iterator[Path]:
    """Mounted below `folder`; skips the test where nothing may be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    mount = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={size}",
        "tmpfs",
        str(disk),
    ]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)  # noqa: S603
        problem = done.stderr.strip()
    except FileNotFoundError:
        problem = "no mount here"
    if problem:
        pytest.skip(f"a small disk takes the right to mount one: {problem}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S603, S607


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is left on it within the block."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as out, suppress(OSError):
        while out.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        filler.unlink()
