"""The two providers as processes, their faults and what they counted, over HTTP."""

import json
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from benchmarks.faults.catalogue import Place
from benchmarks.faults.provider import CALLS
from benchmarks.faults.routes import PRIMARY, SPARE, Route
from benchmarks.router.processes import free_port, start, wait_for

FALLBACK: Final = "spare"
LETTERS: Final = {Place.PRIMARY.value: PRIMARY, FALLBACK: SPARE}
START_S: Final = 60.0


class Upstreams(NamedTuple):
    """ports: by name. pids: whose CPU time is the benchmark's."""

    ports: Mapping[str, int]
    pids: tuple[int, ...]

    @classmethod
    def started(cls, folder: Path, stack: ExitStack) -> Self:
        """Ended when `stack` is. Raises DidNotStart."""
        ports, pids = {}, []
        for name, letter in LETTERS.items():
            ports[name] = port = free_port()
            module = [sys.executable, "-m", "benchmarks.faults.provider"]
            command = [*module, letter, str(port)]
            process = start(command, stack, log=folder / f"{name}.log")
            wait_for(port, process, START_S)
            pids.append(process.pid)
        return cls(ports, tuple(pids))

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def break_(self, routes: Iterable[Route]) -> None:
        """Set each route's fault, once and for all: every route has its own models."""
        for route in routes:
            if route.variant.fault is None:
                continue
            self._put(Place.PRIMARY.value, route.primary, route.variant.fault)
            if route.variant.both:
                self._put(FALLBACK, route.spare, route.variant.fault)

    def _put(self, name: str, model: str, fault: Mapping[str, Any]) -> None:
        request = urllib.request.Request(  # noqa: S310 - http, to ourselves
            f"{self.url(name)}/sim/faults/{model}",
            data=json.dumps(fault).encode(),
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - as above
            pass

    def calls(self) -> Counter[str]:
        """By the number of the request. Calls that reached nobody are not in it."""
        found: Counter[str] = Counter()
        for name in self.ports:
            found.update(self._call_record(name)["calls"])
        return found

    def left(self) -> set[str]:
        """The numbers of the requests that somebody hung up on."""
        return {number for name in self.ports for number in self._call_record(name)["left"]}

    def _call_record(self, name: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url(name) + CALLS, timeout=30) as answer:  # noqa: S310
            told: dict[str, Any] = json.load(answer)
        return told
