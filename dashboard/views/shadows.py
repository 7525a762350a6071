"""The Shadows page answers: would a candidate harm callers? They never get its answers.

A shadow mirrors requests to a second model and compares the answers by checks, and by a judge
if it has one. `harness.canary` counts and decides; the page shows the counts and the verdict,
but no evidence of the judge before the verdict. It starts and stops shadows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import (
    Field,
    Fields,
    Form,
    ask_fields,
    dialog,
    open_deferred,
    show_openers,
)
from dashboard.labels import Label, Tone
from dashboard.markup import escape, faint, noted, rich, strong
from dashboard.operation_dialogs import operation_openers
from dashboard.resource_page import REFRESH_INTERVAL, Cards, ResourceList
from harness.app.shadow_judge import choose_judge
from harness.canary import shadows
from harness.canary.shadow_operations import SHADOWS
from harness.canary.shadows import (
    DEFAULT_DURATION,
    LEFT_OUT,
    NOT_STORED,
    CheckEvidence,
    ShadowStatus,
)
from harness.frame.pagination import Page, PageRequest
from harness.frame.people.access import Role
from harness.operations.context import Context
from harness.operations.queries import list_shadows
from harness.routing.shadow import (
    MAX_AT_ONCE,
    MAX_PER_DAY,
    ShadowLimits,
)

MOST_ROWS: Final = 50
# The page marks harm from this share of the rollback level on, as for a canary.
VISIBLE_HARM = 0.5
MIRRORING: Final = Label("◐", "mirroring", Tone.BETTER)
WORSE: Final = Label("✕", "worse than the incumbent", Tone.WORSE)
PASSED: Final = Label("✓", "passed", Tone.BETTER)
FAILED: Final = Label("✕", "failed", Tone.WORSE)
NO_PAIR: Final = (
    "No pair of answers yet. A pair arises when both models have answered a mirrored request."
)
BY_HAND: Final = "none: an approver started it"


@dataclass(frozen=True, slots=True)
class ShadowsView:
    """The data of the section."""

    running: Sequence[ShadowStatus]
    ended: Page[ShadowStatus]  # the newest first
    routes: Sequence[str]
    now: datetime


def load(ctx: Context, routes: Sequence[str]) -> ShadowsView:
    """Loads the running shadows, and the newest ended ones."""
    running = shadows.list_running(ctx)
    ids = {status.shadow.id for status in running}
    page = list_shadows(ctx, PageRequest(MOST_ROWS))
    ended = [status for status in page if status.shadow.id not in ids]
    return ShadowsView(running, replace(page, items=ended), routes, ctx.clock.now())


def show() -> None:
    """Shows the running and ended shadows, and the buttons."""
    with page_frame.loading("the shadows"):
        routes = page_frame.route_names(page_frame.context())
    page_frame.show_done_message()
    open_deferred()
    if shadows.list_running(page_frame.context()):
        # styles.css selects this key, to prevent fading during refreshes.
        with st.container(key="live-shadows"):
            live(routes)
    else:
        draw(load(page_frame.context(), routes))
    page_frame.copy_as_cli(["shadow", "status"])


@st.fragment(run_every=REFRESH_INTERVAL)
def live(routes: Sequence[str]) -> None:
    """Refreshes the section while a shadow runs."""
    with current_user.live_part("The figures"):
        draw(load(page_frame.context(), routes))


def draw(view: ShadowsView) -> None:
    st.html(_render_heading(view.running))
    show_openers([start.opener(view.routes)], deferred=True)
    if not (view.running or view.ended):
        page_frame.show_empty(
            "A shadow also sends a share of a route's requests to a second model and "
            "compares the answers. This command starts a shadow:",
            "swapproof shadow start ROUTE PROVIDER/MODEL --reason WHY",
        )
    RUNNING.show(view)
    ENDED.show(view)


def _build_check_row(check: CheckEvidence) -> markup.Row:
    """Builds a check's row: the pairs that pass it on both sides, on one side or on no side."""
    tone = Tone.WORSE if check.share_of_level >= VISIBLE_HARM else Tone.NEUTRAL
    share = escape(labels.percent(check.share_of_level, 0))
    return {
        "Check": escape(check.check.replace("_", " ")),
        "Both pass": f"{check.both:,}",
        "Incumbent only": f"{check.incumbent_only:,}",
        "Candidate only": f"{check.candidate_only:,}",
        "Neither": f"{check.neither:,}",
        "Evidence of harm": f'<span class="{tone}">{share} of the level</span>',
    }


def _render_heading(running: Sequence[ShadowStatus]) -> str:
    """Answers whether a shadow runs, and whether a candidate is worse than its incumbent."""
    harmed = [status.shadow.candidate.name for status in running if status.harm]
    words = "No shadow runs"
    if harmed:
        verb = "is" if len(harmed) == 1 else "are"
        words = f"{strong(', '.join(harmed))} {verb} worse than the incumbent in shadow"
    elif running:
        verb = "runs" if len(running) == 1 else "run"
        count = strong(labels.plural(len(running), "shadow"))
        words = f"{count} {verb}: no caller gets a candidate's answers"
    return markup.title(words)


def _render_card(view: ShadowsView, status: ShadowStatus) -> Sequence[str]:
    """Renders a running shadow: its state, its facts, and the pairs by check."""
    shadow = status.shadow
    heading = (
        f"<h2>{escape(shadow.candidate.name)}, shadow of {escape(shadow.route)}</h2>"
        f"<p>{markup.state(WORSE if status.harm else MIRRORING)} "
        f"{faint(labels.left(shadow.expires_at, view.now))}</p>"
    )
    rows = map(_build_check_row, status.checks)
    pairs = markup.table(rows, stacked=True) or markup.note(status.hidden or NO_PAIR)
    return [markup.block(heading), markup.facts(_list_facts(status)), pairs]


def _list_facts(status: ShadowStatus) -> Sequence[tuple[str, str]]:
    """Lists a running shadow's limits and figures, and the requests that it did not mirror."""
    shadow = status.shadow
    proposal = (
        markup.link("compare", escape(shadow.proposal), id=shadow.proposal)
        if shadow.proposal
        else BY_HAND
    )
    rows = [
        (
            "Mirrors",
            escape(f"{labels.weight(shadow.limits.share_bps)} of the callers"),
        ),
        ("Until", rich(labels.date_time(shadow.expires_at))),
        ("Proposal", proposal),
        ("Started by", escape(f"{shadow.started_by}: {shadow.reason}")),
    ]
    rows += [
        (f"{name[0].upper()}{name[1:]}", escape(figure))
        for name, figure in shadows.list_figures(status)
    ]
    rows += [
        (f"{number:,} not mirrored", escape(LEFT_OUT[name]))
        for name, number in status.left_out.items()
    ]
    rows += [
        (f"{number:,} not stored", escape(NOT_STORED[name]))
        for name, number in status.not_stored.items()
    ]
    return rows


def _build_ended_row(_: ShadowsView, status: ShadowStatus) -> markup.Row:
    """Builds the row of an ended shadow."""
    shadow = status.shadow
    at = labels.date_time(status.shadow.ended_at or shadow.expires_at)
    return {
        "Route": strong(shadow.route),
        "Candidate": escape(shadow.candidate.name),
        "State": noted(escape(status.state), at),
        "Mirrored": f"{status.mirrored:,}",
        "Pairs": f"{status.pairs:,}",
        "Verdict": _render_verdict(status),
        "Cost": escape(labels.usd(status.cost_usd + status.judge_usd)),
        "By": escape(shadow.started_by),
        "Why": escape(shadow.reason),
    }


def _render_verdict(status: ShadowStatus) -> str:
    """Renders the verdict of an ended shadow, with the next step."""
    verdict = status.verdict
    if verdict is None:
        return faint("no judge")
    if status.hidden:
        return faint(status.hidden)
    if verdict.evidence is None:
        return noted(faint("none"), verdict.words) if verdict.words else faint("none")
    label = PASSED if verdict.outcome == "passed" else FAILED
    shown = noted(markup.state(label), verdict.next_step)
    if proposal := status.shadow.proposal:
        shown += f" {markup.link('compare', escape(proposal), id=proposal)}"
    return shown


DURATIONS: Final[Mapping[str, timedelta]] = {
    "2 hours": timedelta(hours=2),
    "1 day": timedelta(days=1),
    "7 days": timedelta(days=7),
    "30 days": timedelta(days=30),
}
LIMIT_FIELDS: Final[Sequence[Fields]] = (
    {
        "share_bps": Field("Share of the callers, in %", 0.01, 100.0),
        "usd_per_day": Field("US dollars a day (empty: no limit)", 0.01),
    },
    {
        "requests_per_day": Field("Requests a day", 1, MAX_PER_DAY),
        "at_once": Field("At once, in each worker", 1, MAX_AT_ONCE),
    },
)
PRIVACY_NOTE: Final = (
    "The candidate's provider receives these callers' requests. No caller gets the candidate's "
    "answers. On a route that keeps captures, each caller's first pair of answers is kept as "
    "long as a capture."
)
JUDGE_NOTE: Final = (
    "{judge} receives the kept pairs. The shadow ends at its verdict, which opens no canary."
)
NO_JUDGE_NOTE: Final = "Without a judge, the shadow gives no verdict, only the six checks."
ROLE_NOTE: Final = (
    "A proposer needs an open proposal of this candidate; an approver needs none."
)


@dialog(
    "Start a shadow",
    Role.PROPOSER,
    "shadow",
    "filter_none",
    label="Start a shadow …",
    width="medium",
)
def start(form: Form, routes: Sequence[str]) -> None:
    """Asks for a shadow: route, candidate, limits and time."""
    ctx = page_frame.context()
    route = form.choose("route", "Route", routes)
    candidates = page_frame.candidates(ctx, route) if route else ()
    candidate = form.choose_or_type(f"candidate-{route}", "Candidate", candidates)
    form.need(route and candidate, "Choose route and candidate first.")
    judge = form.choose_or_type(f"judge-{route}", "Judge (empty: no verdict)", candidates)
    anyway = form.text("anyway", "Why a judge of a compared maker") if judge else ""
    limits = ShadowLimits(**ask_fields(LIMIT_FIELDS, ShadowLimits(), form.key))
    duration = form.pick("lasts", "How long", DURATIONS, DEFAULT_DURATION)
    share = labels.weight(limits.share_bps)
    if route and candidate:
        form.say(
            f"Within 2 s, the router mirrors {escape(share)} of the callers of "
            f"{strong(route)} to {strong(candidate)}. All of them still get the answers of "
            f"{strong(page_frame.incumbent_name(ctx, route))}.",
            PRIVACY_NOTE,
            JUDGE_NOTE.format(judge=strong(judge)) if judge else NO_JUDGE_NOTE,
            note=ROLE_NOTE,
        )
    mirrored_text = f"{share} of the callers of route {route} are mirrored to {candidate}."
    form.submit(
        "Start it",
        f"started a shadow: {mirrored_text}",
        shadows.start_shadow,
        route or "",
        candidate,
        limits,
        reason=form.reason(),
        lasts=duration,
        judge=choose_judge(judge, anyway=anyway) if judge else None,
    )


# The dialogs open outside of the part that refreshes itself.
RUNNING: Final = ResourceList[ShadowsView, ShadowStatus](
    rows=lambda view: view.running,
    cards=Cards(
        key=lambda status: f"shadow-{status.shadow.id}",
        parts=_render_card,
        actions=lambda _, status: operation_openers(SHADOWS, status.shadow),
    ),
    live=True,
)
ENDED: Final = ResourceList[ShadowsView, ShadowStatus](
    rows=lambda view: view.ended,
    cells=_build_ended_row,
    heading="Ended",
    note="Newest first.",
    what="shadows",
    lists_all="swapproof shadow status",
)


if __name__ == "__main__":
    page_frame.show_page("The shadows", show)
