"""`NetworkHost` is a network namespace of this machine with a link of its own to it, which a
test or a benchmark may cut. Takes root, Linux and `ip`; `require_namespaces` skips without.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import pytest

PREFIX_BITS: Final = 30  # this machine, the host, and nobody else


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - `ip` of this machine


@dataclass(frozen=True)
class NetworkHost:
    """number: from 0 to 63, one for each host of this process."""

    number: int

    @property
    def namespace(self) -> str:
        return f"swapgate{self.number}-{os.getpid()}"

    @property
    def link(self) -> str:
        return f"sg{self.number}-{os.getpid()}"

    @property
    def gateway(self) -> str:
        """This machine's address, as the host has it."""
        return self._address(1)

    @property
    def address(self) -> str:
        return self._address(2)

    def _address(self, last: int) -> str:
        # Others who do the same on this machine have another process id.
        return (
            f"10.{216 + os.getpid() // 256 % 32}.{os.getpid() % 256}.{4 * self.number + last}"
        )

    def connect(self) -> None:
        inside = ("ip", "-n", self.namespace)
        run("ip", "netns", "add", self.namespace)
        peer = ("type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        run("ip", "link", "add", self.link, *peer)
        run("ip", "addr", "add", f"{self.gateway}/{PREFIX_BITS}", "dev", self.link)
        run("ip", "link", "set", self.link, "up")
        run(*inside, "addr", "add", f"{self.address}/{PREFIX_BITS}", "dev", "eth0")
        for device in ("eth0", "lo"):
            run(*inside, "link", "set", device, "up")
        run(*inside, "route", "add", "default", "via", self.gateway)

    def disconnect(self) -> None:
        """Takes the namespace and its link away; its processes have ended."""
        # A namespace is taken away some time later, and the link with it: so that goes first.
        for words in (("link", "del", self.link), ("netns", "del", self.namespace)):
            with suppress(subprocess.CalledProcessError):
                run("ip", *words)

    def command(self, words: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *words]

    def cut(self) -> None:
        """Packets between the host and this machine vanish without a word."""
        run("ip", "link", "set", self.link, "down")

    def mend(self) -> None:
        run("ip", "link", "set", self.link, "up")


@contextmanager
def network_hosts(count: int) -> Iterator[list[NetworkHost]]:
    """Hosts that reach this machine, each by a link of its own."""
    hosts = [NetworkHost(number) for number in range(count)]
    with ExitStack() as stack:
        for host in hosts:
            stack.callback(host.disconnect)
            host.connect()
        yield hosts


def require_namespaces() -> None:
    """Skips the test where no namespaces can be made."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("network namespaces take Linux and root")
    if shutil.which("ip") is None:
        pytest.skip("`ip` is not here (Debian: apt-get install iproute2)")
    try:
        with network_hosts(1):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no namespaces: {error.stderr.decode().strip()}")
