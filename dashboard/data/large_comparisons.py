"""Keeps the last large comparisons in memory, so that a filter or another page of their samples
does not read a hundred thousand answers anew. What a person decides on is read each time: the
proposal's version is part of the key.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import pandas as pd
import streamlit as st

from dashboard.data import frames, queries
from dashboard.data.queries import ComparisonView
from harness.control.context import Context
from harness.control.proposals.comparison import is_large
from harness.control.proposals.submission import get_proposal

MOST_KEPT: Final = 2
# Whether a verdict is still valid is told that much later.
LASTS_S: Final = 60


def load(ctx: Context, proposal: str) -> ComparisonView:
    """Loads what the page of a comparison shows, from memory where it is large and has ended.
    Raises NotFound.
    """
    found = get_proposal(ctx, proposal)
    if not is_large(found, queries.MOST_TEXTS) or (found.open and found.verdict is None):
        return queries.comparison(ctx, proposal)
    return replace(_kept(ctx, proposal, found.version), now=ctx.clock.now())


@contextmanager
def without_collections() -> Iterator[None]:
    """Pauses the garbage collector while a great many objects are made: it would look through
    all of them again and again, for a quarter of the time, and find nothing.
    """
    pauses = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if pauses:
            gc.enable()


def list_samples(view: ComparisonView) -> pd.DataFrame:
    """Lists the samples of a comparison whose texts were not read."""
    proposal = view.comparison.proposal
    return _kept_samples(view, proposal.id, proposal.version)


@st.cache_resource(max_entries=MOST_KEPT, ttl=LASTS_S, show_spinner=False)
def _kept(_ctx: Context, proposal: str, version: int) -> ComparisonView:  # noqa: ARG001 - the key
    with without_collections():
        return queries.comparison(_ctx, proposal)


@st.cache_resource(max_entries=MOST_KEPT, ttl=LASTS_S, show_spinner=False)
def _kept_samples(_view: ComparisonView, proposal: str, version: int) -> pd.DataFrame:  # noqa: ARG001 - the key
    with without_collections():
        return frames.sample_index(_view.comparison)
