"""Reads a route's canary once a second for all who look at it: a long one has thousands of
blocks. What was decided of it is read for everybody anew, so that an abort, a rollback or a
hold shows at the next refresh. Who may read it is asked before, for each visitor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import streamlit as st

from dashboard.data import queries
from dashboard.data.queries import CanaryView
from harness.control.canary import holds
from harness.control.context import Context
from harness.control.shadow.stage import find_stage_of_route
from harness.domain.canary.rollout import Rollout

MOST_KEPT: Final = 64
LASTS_S: Final = 2


@dataclass(frozen=True)
class Decided:
    """What was decided of a route's canary, which no visitor may see late."""

    tables: str  # the etag of what routers serve from
    rollout: Rollout | None  # the route's newest
    held: Sequence[str]
    paused: str


def load(ctx: Context, route: str) -> CanaryView:
    """Loads what the page of a route's canary shows: its figures as of this second, what was
    decided of it and a shadow as they are. Raises NotFound.
    """
    second = int(ctx.clock.now().timestamp())
    found = _read_once(ctx, route, repr(_read_decided(ctx, route)), second)
    return replace(found, shadow=find_stage_of_route(ctx, route))


def _read_decided(ctx: Context, route: str) -> Decided:
    with ctx.store.read() as tx:
        newest = next(iter(tx.rollouts.list(route=route, limit=1)), None)
        held = holds.list_hold_reasons(tx, newest) if newest else ()
        paused = holds.find_pause_reason(tx, newest) if newest else ""
    return Decided(ctx.store.etag(), newest, held, paused)


@st.cache_resource(
    max_entries=MOST_KEPT,
    ttl=LASTS_S,
    show_spinner=False,
    # Of one database alone: its installation may be opened anew with another.
    hash_funcs={Context: lambda ctx: id(ctx.store)},
)
def _read_once(ctx: Context, route: str, decided: str, second: int) -> CanaryView:  # noqa: ARG001 - the key
    return queries.canary(ctx, route)
