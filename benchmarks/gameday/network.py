"""Hosts of the game day as network namespaces on two bridges: `front` carries requests, `back`
the database's traffic. Made within a network namespace of the run alone, so that nothing of it
outlives the run.
"""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# The addresses of docs/how-to/several-routers.md are on the first of them.
PREFIXES: Final = {"front": "10.0.0", "back": "10.0.1"}
OPERATOR: Final = 254  # the bridges' own address: the script is there


def run(*words: str) -> None:
    subprocess.run(words, check=True)  # noqa: S603 - system tools, as root


@dataclass
class Network:
    """numbers: by host the last part of its addresses."""

    numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = Path("/run/netns")
        names.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", str(names))
        run("ip", "link", "set", "lo", "up")
        for bridge, prefix in PREFIXES.items():
            run("ip", "link", "add", bridge, "type", "bridge")
            run("ip", "address", "add", f"{prefix}.{OPERATOR}/24", "dev", bridge)
            run("ip", "link", "set", bridge, "up")

    def add(self, host: str, number: int) -> None:
        """A host with an address on each bridge."""
        self.numbers[host] = number
        run("ip", "netns", "add", host)
        run("ip", "-n", host, "link", "set", "lo", "up")
        for bridge, prefix in PREFIXES.items():
            ours = f"{bridge}-{number}"
            run(
                *("ip", "link", "add", ours, "type", "veth"),
                *("peer", "name", bridge, "netns", host),
            )
            run("ip", "link", "set", ours, "master", bridge, "up")
            given = f"{prefix}.{number}/24"
            run("ip", "-n", host, "address", "add", given, "dev", bridge)
            run("ip", "-n", host, "link", "set", bridge, "up")

    def address(self, host: str, bridge: str = "front") -> str:
        return f"{PREFIXES[bridge]}.{self.numbers[host]}"

    def command(self, host: str, *words: str) -> list[str]:
        """The command, to be run on that host."""
        return ["ip", "netns", "exec", host, *words]

    def cut(self, host: str, bridge: str) -> None:
        """Packets between the host and the bridge vanish without a word."""
        run("ip", "link", "set", f"{bridge}-{self.numbers[host]}", "down")

    def mend(self, host: str, bridge: str) -> None:
        run("ip", "link", "set", f"{bridge}-{self.numbers[host]}", "up")

    def thin(self, host: str, bridge: str) -> None:
        """Hardly anything gets through to the host; what waits is dropped, as on a bad line."""
        run(
            *("tc", "qdisc", "add", "dev", f"{bridge}-{self.numbers[host]}", "root"),
            *("tbf", "rate", "16kbit", "burst", "1600", "limit", "4000"),
        )

    def widen(self, host: str, bridge: str) -> None:
        run("tc", "qdisc", "del", "dev", f"{bridge}-{self.numbers[host]}", "root")
