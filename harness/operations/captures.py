"""Hands captured requests (F9) to people, and deletes them. Reading content is audited."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from harness.frame.errors import InputError
from harness.frame.people.access import Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.operations.records import Captures
from harness.routing.capture import (
    CapturedRequest,
    CaptureSample,
    find_near_duplicates,
    user_text,
)
from harness.routing.context import Context
from harness.routing.reliability.failover import user_hashes

NEAR_DUPLICATE_SIMILARITY: Final = 0.9
SAMPLE_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class CaptureSummary:
    id: str
    at: datetime
    expires_at: datetime
    route: str
    endpoint: str
    stream: bool
    arm: str
    target: str
    data_class: str
    messages: int  # messages, tools: how many it has of them
    tools: int
    redactions: Mapping[str, int]
    seen: int
    body_bytes: int
    too_large: bool  # over the route's copy_max_bytes: only that it came is stored


@dataclass(frozen=True)
class CaptureExport:
    lines: Sequence[Mapping[str, Any]]  # one JSON object each, oldest first
    near: Mapping[str, str]  # left out → what it resembles
    sample: CaptureSample  # that it was drawn from


def read_capture(ctx: Context, actor: Actor, id_: str) -> CapturedRequest:
    """Reads a captured request with its content; the audit log notes it. Needs an approver.
    Raises NotAllowed, NotFound.
    """
    actor.require(Role.APPROVER)
    with ctx.store.write() as tx:
        capture = Captures(tx).get(id_)
        subject = f"captures of {capture.route}"
        AuditLog(tx).append(actor, "capture.read", subject, {"captures": [id_]})
    return capture


def export_captures(
    ctx: Context,
    actor: Actor,
    *,
    route: str | None = None,
    since: timedelta | None = None,
    near: float = NEAR_DUPLICATE_SIMILARITY,
) -> CaptureExport:
    """Exports captured requests for labelling, without near-duplicates. near: similarity from
    which on, 0 excluded to 1. Raises NotAllowed below an approver, InputError.
    """
    actor.require(Role.APPROVER)
    if not 0 < near <= 1:
        raise InputError(f"a similarity is above 0, at most 1, not {near}")
    after = ctx.clock.now() - since if since is not None else None
    with ctx.store.read() as tx:
        found = [*reversed(Captures(tx).list(route=route, since=after))]
    sample = CaptureSample.from_sizes(
        [(request.body_bytes, request.too_large, request.seen) for request in found]
    )
    found = [request for request in found if not request.too_large]
    like = find_near_duplicates(
        {request.id: user_text(request.content) for request in found}, threshold=near
    )
    kept = [request for request in found if request.id not in like]
    with ctx.store.write() as tx:
        details = {"count": len(kept), "near_duplicates": len(like)}
        subject = f"captures of {route or 'all routes'}"
        AuditLog(tx).append(actor, "capture.export", subject, details)
    drawn = {"drawn": sample.requests, "too_large": sample.too_large}
    lines = [build_export_line(request, drawn) for request in kept]
    return CaptureExport(lines, like, sample)


def load_sample(ctx: Context, route: str | None) -> CaptureSample:
    """Loads the sizes of the requests that were drawn in the last SAMPLE_DAYS."""
    since = ctx.clock.now() - timedelta(days=SAMPLE_DAYS)
    with ctx.store.read() as tx:
        return CaptureSample.from_sizes(Captures(tx).sizes(route=route, since=since))


def build_export_line(
    captured: CapturedRequest, sample: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Any]:
    """A JSON object to be labelled: `label` is what the scorer of the suite compares with.
    sample: how many requests were drawn with it, and how many of them were not kept.
    """
    content = captured.content
    told = {name: content[name] for name in content if name != "answer"}
    return {
        "id": captured.id,
        **told,
        "answer": content.get("answer"),
        "model": captured.target,
        "tags": [f"route:{captured.route}", f"endpoint:{captured.endpoint}"]
        + (["tools"] if content.get("tools") else []),
        "label": None,
        "label_author": "",
        "labelled_at": "",
        "provenance": {
            "route": captured.route,
            "request": captured.request,
            "at": captured.at.isoformat(),
            "arm": captured.arm,
            "revision": captured.revision,
            "data_class": captured.data_class,
            "share_bps": captured.share_bps,
            "rules_sha256": captured.rules,
            "redactions": dict(captured.redactions),
            "seen": captured.seen,
            **({"sample": dict(sample)} if sample else {}),
        },
    }


def label_lines(
    lines: Iterable[Mapping[str, Any]],
    labels: Mapping[str, str],
    author: str,
    now: datetime,
) -> Sequence[Mapping[str, Any]]:
    """Fills labels into an export's lines. labels: by a line's id; an empty one is left out."""
    by = {"label_author": author, "labelled_at": now.isoformat()}
    return [
        {**line, "label": label, **by}
        if (label := labels.get(line["id"], "").strip())
        else line
        for line in lines
    ]


def purge_captures(
    ctx: Context,
    actor: Actor,
    *,
    secret: bytes,
    id_: str | None = None,
    route: str | None = None,
    user: str | None = None,
    everything: bool = False,
) -> int:
    """Delete what fits all that is given; how many. user: the id as the client sent it.

    Raises NotAllowed below an admin, InputError when nothing says what.
    """
    actor.require(Role.ADMIN)
    if not (id_ or route or user or everything):
        raise InputError("say what to delete: a capture, a route, a user, or everything")
    users = user_hashes(user, secret) if user else ()
    with ctx.store.write() as tx:
        gone = Captures(tx).purge(id_=id_, route=route, users=users)
        # Not the user's id: the log is kept for ever.
        details = {"count": gone, "capture": id_, "by_user": bool(user)}
        subject = f"captures of {route or 'all routes'}"
        AuditLog(tx).append(actor, "capture.purge", subject, details)
    ctx.store.drop_deleted()
    return gone


def summarize_capture(request: CapturedRequest) -> CaptureSummary:
    names = set(CaptureSummary.__dataclass_fields__) - {"messages", "tools"}
    return CaptureSummary(
        **{name: getattr(request, name) for name in names},
        messages=len(request.content.get("messages", ())),
        tools=len(request.content.get("tools", ())),
    )
