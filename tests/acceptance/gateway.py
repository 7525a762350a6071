"""What the stories about failures have in common: simulated providers under several names, each
route with models of its own, so that no story sees the faults of another one.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx

from tests.acceptance.installation import Document, Installation
from tests.acceptance.providers import Simulator

PROVIDERS: Final = ("main", "backup", "spare")
# Pauses that a story waits out; a request that is tried again does so at once.
BREAKER: Final = {
    "open_s": 1.0,
    "open_max_s": 2.0,
    "trickle_s": 0.5,
    "probe_successes": 2,
}
RETRY: Final = {"base_s": 0.01, "cap_s": 0.05}


def models(name: str) -> tuple[str, str, str]:
    """PROVIDER/MODEL of the route's incumbent and of its two fallbacks."""
    first, second, third = (f"{provider}/{name}-{provider}" for provider in PROVIDERS)
    return first, second, third


def chain(name: str, **more: Any) -> Document:
    """A route with one model at each provider."""
    first, *others = models(name)
    return {
        "incumbent": first,
        "fallbacks": others,
        **more,
    }


def profiles(routes: Mapping[str, Any], *others: str) -> Document:
    """Simulated models for all routes, and others by name."""
    named = {model.partition("/")[2] for route in routes for model in models(route)}
    return {model: {"skill": 0.7} for model in sorted(named | set(others))}


def model(target: str) -> str:
    return target.partition("/")[2]


def served(answer: httpx.Response) -> str:
    """PROVIDER/MODEL that answered."""
    assert answer.status_code == httpx.codes.OK, answer.text
    return str(answer.headers["x-swapproof-target"])


def hits(sim: Simulator, target: str) -> int:
    """How many requests for the model the simulator has taken."""
    return int(sim.stats()["models"].get(model(target), {}).get("requests", 0))


def metric(
    place: Installation,
    name: str,
    **labels: str,
) -> float:
    """The sum of a metric's samples with these labels, of the router."""
    answer = place.router("GET", "/metrics")
    assert answer.status_code == httpx.codes.OK, answer.text
    return sum(value for value in samples(answer.text, name, labels))


def samples(
    text: str,
    name: str,
    labels: Mapping[str, str],
) -> Iterator[float]:
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found is None:
            continue
        told = dict(re.findall(r'(\w+)="([^"]*)"', found[1] or ""))
        if labels.items() <= told.items():
            yield float(found[2])


def alerts(
    place: Installation,
    kind: str,
    *,
    open_: bool = True,
) -> list[Document]:
    listed = place.api("GET", f"/alerts?open={'true' if open_ else 'false'}&limit=1000").json()
    return [alert for alert in listed["items"] if alert["kind"] == kind]
