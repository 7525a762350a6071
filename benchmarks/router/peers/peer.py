"""One contender: how it is started, and what a request to it looks like."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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

    ask: by site and kind (PLAIN, STREAMED).
    """

    name: str
    command: Callable[[Site], Sequence[str]]
    ask: Callable[[Site, str], Ask]
    env: Mapping[str, str] = field(default_factory=dict)
    start_s: float = 30.0
