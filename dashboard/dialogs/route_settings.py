"""The fields for a route's settings, which the dialogs of the Routes page share: what decides
about its swaps, and under "Advanced" whom it may ask, its time limits, its streams and the
routes that answer for it. `merge` applies what was changed and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Final, TypeVar

import streamlit as st

from dashboard.data import queries
from dashboard.text import html
from dashboard.text.html import escape
from harness.control.context import Context
from harness.control.routing import routes
from harness.domain.errors import Conflict
from harness.domain.evals.suite_plan import SuiteRole
from harness.domain.privacy.capture import MAX_KEEP_DAYS, MAX_PER_DAY
from harness.domain.routing.keep_warm import MAX_KEEP_WARM_BPS
from harness.domain.routing.overrides import Overrides, RequestKind
from harness.domain.routing.table import (
    OnBadEvent,
    OnContentPolicy,
    OnEmptyAnswer,
    Route,
    RouteSettings,
    RouteSuite,
    Stakes,
    StreamCommit,
)

Option = TypeVar("Option")

NEW: Final = RouteSettings()
ROLE_WORDS: Final[Mapping[SuiteRole, str]] = {
    SuiteRole.PRIMARY: "Suites that decide the claim",
    SuiteRole.REQUIRED: "Suites that must pass within the allowed loss (optional)",
    SuiteRole.GUARD: "Suites that reject what is shown worse (optional)",
}
KIND_WORDS: Final[Mapping[RequestKind, str]] = {
    RequestKind.VISION: "Requests with a picture",
    RequestKind.VIDEO: "Requests with a video",
    RequestKind.IMAGE: "Requests for a picture",
    RequestKind.EMBEDDING: "Embeddings",
    RequestKind.SUBAGENT: "Requests of a subagent",
}
COMMIT_WORDS: Final[Mapping[StreamCommit, str]] = {
    StreamCommit.FIRST_TOKEN: "as soon as its first word is there",
    StreamCommit.WHOLE: "when it is complete",
}
BAD_EVENT_WORDS: Final[Mapping[OnBadEvent, str]] = {
    OnBadEvent.FAIL: "the request fails",
    OnBadEvent.SKIP: "the stream goes on without it",
}
EMPTY_ANSWER_WORDS: Final[Mapping[OnEmptyAnswer, str]] = {
    OnEmptyAnswer.FAIL: "the next target is asked",
    OnEmptyAnswer.ACCEPT: "silence is an answer",
}
CONTENT_POLICY_WORDS: Final[Mapping[OnContentPolicy, str]] = {
    OnContentPolicy.FAIL: "the request fails",
    OnContentPolicy.FALLBACK: "the next fallback is asked",
}
LONGEST_S: Final = float(routes.LONGEST_TIMEOUT_S)


def merge(now: RouteSettings, before: RouteSettings, wanted: RouteSettings) -> RouteSettings:
    """Changes only what was changed in the dialog: somebody else may have changed the rest.

    Raises Conflict where somebody else changed the same setting since the dialog was opened.
    """
    names = [field.name for field in fields(RouteSettings) if field.name != "capable"]
    changed = {
        name: getattr(wanted, name)
        for name in names
        if getattr(wanted, name) != getattr(before, name)
    }
    for name, value in changed.items():
        if getattr(now, name) not in (getattr(before, name), value):
            raise Conflict(
                f"somebody else changed {name} after this dialog was opened: close it, open it "
                "again and look at what holds now"
            )
    return replace(now, **changed)


def preview(route: Route, wanted: RouteSettings) -> str:
    """Renders what a change would change, as HTML; empty for nothing."""
    changes = routes.describe_settings_change(route, wanted)
    if not changes:
        return ""
    rows = [
        (
            escape(name),
            f"<del>{escape(was or 'none')}</del>",
            f"<ins>{escape(is_ or 'none')}</ins>",
        )
        for name, (was, is_) in changes.items()
    ]
    note = "Routers follow within 2 s."
    return html.section("What changes", note) + html.table(("Setting", "Now", "Then"), rows)


def ask(ctx: Context, before: RouteSettings, key: str) -> RouteSettings:
    """Asks for all settings. key: the route's name, or a word for a new one."""
    suites = _ask_suites(ctx, before.suites, key)
    # Of a new route the usual ones will do: the dialog stays short on a phone.
    more = st.expander("Policy, stakes, time, capture") if before is NEW else st.container()
    with more:
        usual = _ask_usual(ctx, before, key)
    with st.expander("Advanced: data class, other routes, time limits, streams, keep warm"):
        return replace(_ask_advanced(ctx, usual, key, new=before is NEW), suites=suites)


def _ask_usual(ctx: Context, before: RouteSettings, key: str) -> RouteSettings:
    policies = sorted(ctx.policies)
    left, right = st.columns(2)
    with left:
        policy = st.selectbox(
            "Policy", policies, index=_index(policies, before.policy), key=f"policy-{key}"
        )
        stakes = st.selectbox(
            "Stakes", list(Stakes), index=list(Stakes).index(before.stakes),
            format_func=lambda s: s.value, key=f"stakes-{key}",
            help="high: only fallbacks marked good enough may answer.",
        )  # fmt: skip
    with right:
        timeout = st.number_input(
            "A request's whole budget, seconds", min_value=1.0,
            value=float(before.total_timeout_s),
            key=f"timeout-{key}",
        )  # fmt: skip
        share = st.number_input(
            "Requests to capture, redacted, %", 0.0, 100.0, before.capture_bps / 100, 0.5,
            key=f"capture-{key}", help=f"At most {before.capture_per_day} a day are kept.",
        )  # fmt: skip
    description = st.text_input("What it is for", before.description, key=f"about-{key}")
    return replace(
        before,
        policy=policy or before.policy,
        stakes=stakes or before.stakes,
        total_timeout_s=timeout,
        capture_bps=round(share * 100),
        description=(description or "").strip(),
    )


def _ask_advanced(ctx: Context, before: RouteSettings, key: str, *, new: bool) -> RouteSettings:
    """Asks for what few routes change."""
    left, right = st.columns(2)
    with left:
        data_class = _ask_data_class(ctx, before.data_class, key)
        first_token = _ask_limit(
            "A stream's first output within, seconds", before.first_token_timeout_s,
            f"first-token-{key}", "The model's, else the router's",
        )  # fmt: skip
        commit = _choose(
            "A stream reaches the client", COMMIT_WORDS, before.commit, f"commit-{key}"
        )
        warm = st.number_input(
            "Share that keeps each other model warm, %", 0.0, MAX_KEEP_WARM_BPS / 100,
            before.keep_warm_bps / 100, 0.5, key=f"warm-{key}",
            help="So many of its requests go to each healthy fallback, so that it is known to "
            "work before it is needed.",
        )  # fmt: skip
        per_day = st.number_input(
            "Captured requests kept per day, at most", 1, MAX_PER_DAY, before.capture_per_day,
            key=f"capture-day-{key}",
        )  # fmt: skip
    with right:
        task = st.text_input(
            "Task", before.task, key=f"task-{key}", placeholder="None", live=True,
            help="Requests with the header x-swapgate-task and this name come here.",
        )  # fmt: skip
        first_byte = _ask_limit(
            "A plain answer begins within, seconds", before.first_byte_timeout_s,
            f"first-byte-{key}", "The model's, the router's, or measured",
        )  # fmt: skip
        bad_event = _choose(
            "When a stream has what cannot be read", BAD_EVENT_WORDS, before.on_bad_event,
            f"bad-event-{key}",
        )  # fmt: skip
        empty = _choose(
            "When an answer says nothing", EMPTY_ANSWER_WORDS, before.on_empty_answer,
            f"empty-answer-{key}",
        )  # fmt: skip
        refused = _choose(
            "When a provider's content filter refuses", CONTENT_POLICY_WORDS,
            before.on_content_policy, f"content-policy-{key}",
        )  # fmt: skip
        days = st.number_input(
            "Days that captured requests are kept", 0.001, MAX_KEEP_DAYS,
            before.capture_keep_days, 1.0, format="%g", key=f"capture-days-{key}",
        )  # fmt: skip
    side_effects = st.checkbox(
        "Its tools act on the world: no request goes to another model for practice",
        before.side_effects, key=f"side-effects-{key}",
    )  # fmt: skip
    return replace(
        before,
        data_class=data_class,
        task=(task or "").strip(),
        first_token_timeout_s=first_token,
        first_byte_timeout_s=first_byte,
        commit=commit,
        on_bad_event=bad_event,
        on_empty_answer=empty,
        on_content_policy=refused,
        keep_warm_bps=round(warm * 100),
        capture_per_day=per_day,
        capture_keep_days=days,
        side_effects=side_effects,
        overrides=_ask_overrides(ctx, before.overrides, key, new=new),
    )


def _ask_data_class(ctx: Context, before: str, key: str) -> str:
    """Asks for one of the classes in the file, which alone says who may see each."""
    classes = list(dict.fromkeys(("", *sorted(ctx.data_classes), before)))
    return st.selectbox(
        "Data class", classes, index=classes.index(before), key=f"data-class-{key}",
        format_func=lambda name: name or "none: every provider may see it",
        disabled=len(classes) == 1,
        help="data_classes in swapgate.yaml names the classes, and the providers that may see "
        "each.",
    )  # fmt: skip


def _ask_limit(label: str, before: float | None, key: str, otherwise: str) -> float | None:
    """Asks for a time limit; an empty field is what holds without one."""
    known = None if before is None else float(before)
    return st.number_input(label, 0.001, LONGEST_S, known, 1.0, format="%g", key=key,
                           placeholder=otherwise)  # fmt: skip


def _choose(label: str, words: Mapping[Option, str], before: Option, key: str) -> Option:
    options = list(words)
    chosen = st.selectbox(label, options, index=options.index(before), key=key,
                          format_func=words.__getitem__)  # fmt: skip
    return before if chosen is None else chosen


def _ask_overrides(ctx: Context, before: Overrides, key: str, *, new: bool) -> Overrides:
    """Asks which other routes answer the kinds of requests that this one does not."""
    others = [name for name in queries.route_names(ctx) if new or name != key]
    st.html(html.note("Another route can answer some kinds of requests in this one's name."))
    columns = st.columns(2)
    wanted: dict[RequestKind, str] = {}
    for place, (kind, words) in enumerate(KIND_WORDS.items()):
        known = before.get(kind)
        names = list(dict.fromkeys((*others, *([known] if known else []))))
        with columns[place % 2]:
            chosen = st.selectbox(
                words, names, index=names.index(known) if known else None,
                placeholder="This route", key=f"override-{kind.value}-{key}",
            )  # fmt: skip
        if chosen:
            wanted[kind] = chosen
    return wanted


def _ask_suites(ctx: Context, before: Sequence[RouteSuite], key: str) -> tuple[RouteSuite, ...]:
    """Asks which suites decide, in which role; a suite that stays keeps its weight."""
    known = {suite.suite: suite for suite in before}
    names = sorted({*ctx.suites.names(), *known})
    chosen: list[RouteSuite] = []
    for role, words in ROLE_WORDS.items():
        taken = {suite.suite for suite in chosen}
        picked = st.multiselect(
            words,
            [name for name in names if name not in taken],
            [
                suite.suite
                for suite in before
                if suite.role is role and suite.suite not in taken
            ],
            key=f"suites-{role.value}-{key}",
            placeholder="None",
        )
        for name in picked:
            old = known.get(name)
            keep = old is not None and old.role is role
            chosen.append(old if old is not None and keep else RouteSuite(name, role))
    return tuple(chosen)


def _index(names: Sequence[str], wanted: str) -> int:
    return names.index(wanted) if wanted in names else 0
