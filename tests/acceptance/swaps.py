"""What several stories have in common: a route before simulated models, and a swap of it."""

from collections.abc import Mapping
from typing import Any, Final

import httpx

from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.providers import Simulator

ENDED: Final = ("promoted", "rolled_back", "rejected", "cancelled")

# A policy whose whole canary takes some thousand requests.
SHORT: Final[Document] = {
    "promotion": "automatic",
    "gate": {
        "claim": "superior",
        "alpha": 0.05,
        "n_max": 200,
        "infra_patience_s": 600,
    },
    "canary": {
        "block_size": 50,
        "p0": 0.05,
        "window_s": 1,
        "bake_s": 0,
        "steps": [
            {"weight_bps": 100, "min_exposures": 8},
            {
                "weight_bps": 5000,
                "min_exposures": 150,
                "certify": True,
            },
        ],
    },
}
# The same, but it stays at its first step.
LASTING: Final[Document] = {
    **SHORT,
    "canary": {
        **SHORT["canary"],
        "steps": [
            {"weight_bps": 100, "min_exposures": 1_000_000},
            {
                "weight_bps": 5000,
                "min_exposures": 150,
                "certify": True,
            },
        ],
    },
}
APPROVED: Final[Document] = {**SHORT, "promotion": "approved"}
POLICIES: Final = {
    "short": SHORT,
    "lasting": LASTING,
    "asking": APPROVED,
}


def before_simulator(sim: Simulator, **routes: Mapping[str, Any]) -> Document:
    """The configuration of routes whose models the simulator serves.

    Args:
        routes: by name, what is said of each besides the incumbent `sim/sim-base` and its
            suite.
    """
    plain = {
        "incumbent": "sim/sim-base",
        "suites": ["tickets"],
        "policy": "short",
        "total_timeout_s": 15,
    }
    return {
        "providers": {"sim": sim.settings()},
        "policies": POLICIES,
        "control": {"reconcile_interval_s": 0.5},
        "router": {"flush_interval_s": 0.3},
        "routes": {name: plain | dict(settings) for name, settings in routes.items()},
    }


def propose(
    place: Installation,
    route: str,
    candidate: str,
    *,
    token: str | None = None,
    **more: object,
) -> str:
    """The id of a new proposal."""
    body = {
        "route": route,
        "candidate": candidate,
        "reason": "a story",
        **more,
    }
    answer = place.api("POST", "/proposals", body, token=token)
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return str(answer.json()["id"])


def proposal(place: Installation, number: str) -> Document:
    return dict(place.api("GET", f"/proposals/{number}").json())


def phase(place: Installation, number: str) -> str:
    """Empty where the control plane says none."""
    return str(proposal(place, number).get("phase", ""))


def await_phase(
    place: Installation,
    number: str,
    *wanted: str,
) -> str:
    """Wait until the proposal is in one of these phases; fails if it ended in another."""

    def reached() -> str:
        found = phase(place, number)
        assert found in wanted or found not in ENDED, proposal(place, number)
        return found if found in wanted else ""

    return eventually(reached, f"{number} is not {wanted}")


def served_revision(place: Installation) -> int:
    """The revision of the routing table that the router answers with."""
    answer = place.chat("support")
    assert answer.status_code == httpx.codes.OK, answer.text
    return int(answer.headers["x-swapproof-revision"])


def await_up(place: Installation, *parts: str) -> None:
    for part in parts:
        place.serve(part)


def history(place: Installation, route: str) -> list[str]:
    """The kinds of the route's versions, the oldest first."""
    found = place.api("GET", f"/routes/{route}/history").json()["items"]
    return [version["kind"] for version in reversed(found)]
