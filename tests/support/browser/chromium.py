"""Finds a Chromium that starts: named, on PATH, Playwright's, of npm or of Debian."""

import base64
import fcntl
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import brotli
import platformdirs

NAMES: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
NPM_PACKAGE: Final = "@sparticuz/chromium@147.0.0"
NPM_SHA512: Final = (
    "4ZKeAQQa8up2mt675qSitztLdbQrlf8BKdC5naeap+5Mv1OV1OlJdPoU+EJC/p5sQUJUQmN4r+q5+EhaaOUHpQ=="
)
# The package's own names the folders of the machines that it was made for.
FONTS_CONF: Final = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">fonts</dir></fontconfig>
"""
CACHE: Final = platformdirs.user_cache_path("swapproof") / "browser"
VERSION_TIMEOUT_S: Final = 120
INSTALL_TIMEOUT_S: Final = 900


class NoBrowserError(Exception):
    """No Chromium here, and none could be fetched. Its text is one line."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """A program that starts here; `environment` is what it needs besides ours."""

    executable: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def starts(self) -> bool:
        # Ubuntu's chromium-browser without its snap exists, and only prints advice.
        try:
            done = subprocess.run(  # noqa: S603 - a browser that this file found
                [self.executable, "--version"],
                env={**os.environ, **self.environment},
                capture_output=True,
                check=False,
                timeout=VERSION_TIMEOUT_S,
            )
        except OSError:
            return False
        return done.returncode == 0


def find(playwrights_own: Callable[[], Path]) -> Chromium:
    """The first Chromium that starts. Raises NoBrowserError."""
    named = os.environ.get("SWAPPROOF_BROWSER")
    if named is not None:
        if Chromium(Path(named)).starts():
            return Chromium(Path(named))
        raise NoBrowserError(f"SWAPPROOF_BROWSER is {named!r}, which is no browser that starts")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for candidate in _candidates(playwrights_own):
            if candidate.starts():
                return candidate
    raise NoBrowserError(
        "no Chromium: set SWAPPROOF_BROWSER to one, or install chromium, or npm to fetch it"
    )


def _candidates(playwrights_own: Callable[[], Path]) -> Iterator[Chromium]:
    yield from _on_path()
    yield Chromium(playwrights_own())
    yield from _from_npm()
    yield from _from_debian()


def _on_path() -> Iterator[Chromium]:
    for path in filter(None, map(shutil.which, NAMES)):
        yield Chromium(Path(path))


def _from_npm() -> Iterator[Chromium]:
    folder = CACHE / NPM_PACKAGE.rpartition("@")[2]
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return
    if not folder.exists():
        with TemporaryDirectory(dir=CACHE) as scratch:
            package = _packed_by_npm(Path(scratch))
            if package is None:
                return
            _unpack(package, Path(scratch) / "unpacked")
            (Path(scratch) / "unpacked").rename(folder)
    # A bare machine lacks the fonts and libraries that the package brings along.
    fonts = {} if Path("/etc/fonts").exists() else {"FONTCONFIG_PATH": str(folder)}
    libraries = {"LD_LIBRARY_PATH": str(folder / "lib")}
    yield Chromium(folder / "chromium", fonts)
    yield Chromium(folder / "chromium", fonts | libraries)


def _packed_by_npm(folder: Path) -> bytes | None:
    """The package's bytes as pinned above; None without npm or network."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    done = subprocess.run(  # noqa: S603 - npm from PATH, a fixed package
        [npm, "pack", "--silent", "--pack-destination", folder, NPM_PACKAGE],
        capture_output=True,
        check=False,
        cwd=folder,
        timeout=INSTALL_TIMEOUT_S,
    )
    if done.returncode != 0:
        return None
    (file,) = folder.glob("*.tgz")
    content = file.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != NPM_SHA512:
        raise NoBrowserError(f"{NPM_PACKAGE} came with another checksum than the pinned one")
    return content


def _unpack(package: bytes, folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(package)) as outer:
        for name in ("al2023.tar", "fonts.tar", "swiftshader.tar"):
            with tarfile.open(fileobj=io.BytesIO(_part(outer, name))) as inner:
                # Python 3.11.2, Debian's, has no filters. The package's checksum is pinned.
                inner.extraction_filter = getattr(tarfile, "data_filter", None)
                inner.extractall(folder)  # noqa: S202
        executable = folder / "chromium"
        executable.write_bytes(_part(outer, "chromium"))
    (folder / "fonts.conf").write_text(FONTS_CONF)
    executable.chmod(0o755)


def _part(package: tarfile.TarFile, name: str) -> bytes:
    member = package.extractfile(f"package/bin/{name}.br")
    if member is None:
        raise NoBrowserError(f"{NPM_PACKAGE} has no {name}")
    return bytes(brotli.decompress(member.read()))


def _from_debian() -> Iterator[Chromium]:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    for arguments in (
        ["update"],
        ["install", "-y", "--no-install-recommends", "chromium"],
    ):
        subprocess.run(  # noqa: S603 - apt-get from PATH, fixed arguments
            [apt, *arguments],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            check=False,
            timeout=INSTALL_TIMEOUT_S,
        )
    yield from _on_path()
