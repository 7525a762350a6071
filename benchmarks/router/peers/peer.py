"""One contender: how it is started, and what a request to it looks like."""

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

CACHE = Path(platformdirs.user_cache_dir("swapgate")) / "bench"
PLAIN, STREAMED = "plain", "streamed"
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Site:
    """Where a contender runs. folder: its own. upstreams: port by PLAIN and STREAMED."""

    folder: Path
    port: int
    upstreams: Mapping[str, int]


@dataclass(frozen=True)
class Ask:
    """What is sent. model: in the body."""

    path: str = PATH
    model: str = PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """command: of the process, after writing its files into the site's folder.

    ask: by site and kind (PLAIN, STREAMED). install: makes it ready if it is not, or raises
    NotHere. announces: it picks its own port and prints it. slow: a dozen requests a second.
    """

    name: str
    command: Callable[[Site], Sequence[str]]
    ask: Callable[[Site, str], Ask]
    install: Callable[[], None] = lambda: None
    env: Mapping[str, str] = field(default_factory=dict)
    start_s: float = 30.0
    announces: bool = False
    slow: bool = False


class NotHere(Exception):
    """It cannot be installed here; the text says why."""


def by_model(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(model=kind)


def wheel(name: str, requirement: str) -> Callable[[], None]:
    """Into a virtual environment of its own below CACHE."""

    def install() -> None:
        folder = CACHE / name
        if (folder / "done").exists():
            return
        run(["uv", "venv", "-q", "--clear", "--python", "3.11", str(folder)])
        python = str(folder / "bin/python")
        run(["uv", "pip", "install", "-q", "--python", python, requirement])
        (folder / "done").touch()

    return install


def needs(tool: str) -> Callable[[], None]:
    """Of the system: Debian's packages are not ours to install."""

    def install() -> None:
        if shutil.which(tool) is None:
            raise NotHere(f"{tool} is not on PATH (apt-get install {tool})")

    return install


def run(command: Sequence[str], timeout_s: float = 600) -> None:
    """Raises NotHere with the last line of what it said."""
    try:
        subprocess.run(  # noqa: S603 - our own command
            command, check=True, capture_output=True, text=True, timeout=timeout_s
        )
    except FileNotFoundError:
        raise NotHere(f"{command[0]} is not on PATH") from None
    except subprocess.TimeoutExpired:
        raise NotHere(f"{command[0]} took longer than {timeout_s:.0f} s") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "no word").strip().splitlines()
        raise NotHere(f"{command[0]} failed: {said[-1][:200]}") from None
