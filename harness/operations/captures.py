"""Shows, exports and deletes captured requests. The audit log records each reading.

Deletes a user's content from all tables (`delete_user`), and deletes idle sessions
(`purge_idle`). Does not delete proof, such as verdicts and the audit log, because proof
contains no users' content.

Routers capture and redact (`router.observers.capture`); the rules of a sample are in
`harness.routing.capture`. No function here sends content away: an export is a local file.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from harness.agents import agents
from harness.agents.records import (
    AgentGrants,
    Agents,
    Sessions,
    SwitchRequests,
)
from harness.frame.errors import InputError, NotFound
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.plain_data import escape_surrogates
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.operations.context import Context
from harness.operations.records import Captures
from harness.routing.agent import AgentGrant, SessionState
from harness.routing.capture import (
    PROVIDER_STATE,
    CapturedRequest,
    CaptureSample,
    draw_per_caller,
    user_text,
)
from harness.routing.records.failovers import Failovers
from harness.routing.records.kept_pieces import KeptPieces
from harness.routing.reliability.failover import hash_user, user_hashes
from harness.routing.similar_texts import find_near_duplicates

NEAR_DUPLICATE_SIMILARITY: Final = 0.9
SAMPLE_DAYS: Final = 30
DRAWN_BY: Final = "hash of the request's id, before the first attempt; at most 2 of a caller"


@dataclass(frozen=True, slots=True)
class CaptureSummary:
    """A captured request without its content, for lists.

    `seen` counts equal requests, `redactions` counts them by rule, and `body_bytes` is the size
    of request and answer before redaction. `shadow`: whose pair it is; None for a sampled
    request.
    """

    id: str
    at: datetime
    expires_at: datetime
    route: str
    endpoint: str
    stream: bool
    arm: str
    target: str
    data_class: str
    messages: int  # number of messages
    tools: int  # number of tools
    redactions: Mapping[str, int]
    seen: int
    body_bytes: int
    too_large: bool  # larger than the route's copy_max_bytes, so the content is not stored
    shadow: str | None


@dataclass(frozen=True)
class CaptureExport:
    """The lines of an export, and the requests that it omits."""

    lines: Sequence[Mapping[str, Any]]  # one JSON object each, oldest first
    # Maps the id of an omitted near-duplicate to the id of the exported request.
    near_duplicates: Mapping[str, str]
    sample: CaptureSample  # sizes of all sampled requests
    # Number of omitted requests of callers with more than MOST_OF_A_CALLER requests.
    of_frequent_callers: int = 0


def read_capture(
    ctx: Context,
    actor: Actor,
    id_: str,
) -> CapturedRequest:
    """Reads a captured request with its content, and records that in the audit log. Needs an
    approver. Raises NotAllowed, NotFound.
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
    """Exports captured requests for labelling, without near-duplicates, and at most
    MOST_OF_A_CALLER requests of a caller. Needs an approver. Raises NotAllowed, InputError.

    Args:
        near: the least similarity of near-duplicates, above 0, at most 1.
    """
    actor.require(Role.APPROVER)
    if not 0 < near <= 1:
        raise InputError(f"near: a similarity is above 0 and at most 1, not {near}")
    earliest = ctx.clock.now() - since if since is not None else None
    with ctx.store.read() as tx:
        requests = [*reversed(Captures(tx).list(route=route, since=earliest))]
    sample = CaptureSample.from_sizes(
        [(request.body_bytes, request.too_large, request.seen) for request in requests]
    )
    requests = [request for request in requests if not request.too_large]
    near_duplicates = find_near_duplicates(
        {request.id: user_text(request.content) for request in requests},
        threshold=near,
    )
    callers = {
        request.id: request.caller for request in requests if request.id not in near_duplicates
    }
    drawn_ids = draw_per_caller(callers)
    exported = [request for request in requests if request.id in drawn_ids]
    with ctx.store.write() as tx:
        details = {"count": len(exported), "near_duplicates": len(near_duplicates)}
        subject = f"captures of {route or 'all routes'}"
        AuditLog(tx).append(actor, "capture.export", subject, details)
    counts = {
        "drawn": sample.requests,
        "too_large": sample.too_large,
        "written": len(exported),
        "exported_at": ctx.clock.now().isoformat(),
    }
    lines = [build_export_line(request, counts) for request in exported]
    return CaptureExport(lines, near_duplicates, sample, len(callers) - len(exported))


def load_sample(ctx: Context, route: str | None) -> CaptureSample:
    """Loads the sizes of the requests sampled in the last SAMPLE_DAYS days."""
    since = ctx.clock.now() - timedelta(days=SAMPLE_DAYS)
    with ctx.store.read() as tx:
        return CaptureSample.from_sizes(Captures(tx).sizes(route=route, since=since))


def write_export(
    file: Path,
    lines: Iterable[Mapping[str, Any]],
    *,
    advice: str,
) -> None:
    """Writes requests to label: one JSON object per line, in a file that only its owner can
    read.

    Args:
        advice: the advice in the error for an existing file.

    Raises InputError; never overwrites a file.
    """
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    try:
        with file.open("x", encoding="utf-8") as new:
            file.chmod(0o600)
            new.write(escape_surrogates(text))
    except FileExistsError:
        raise InputError(f"{file} already exists, and could hold labels: {advice}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from None


def build_export_line(
    captured: CapturedRequest,
    sample: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, Any]:
    """Builds a JSON object for labelling. The suite's scorer compares answers with `label`.

    Args:
        sample: the time of the export, the number of sampled requests, and the number of too
            large requests.
    """
    content = captured.content
    omitted = ("answer", PROVIDER_STATE)
    question = {name: content[name] for name in content if name not in omitted}
    return {
        "id": captured.id,
        **question,
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
            "outcome": captured.outcome,
            "drawn_by": DRAWN_BY,
            "caller": captured.caller,
            "conversation": captured.conversation,
            **({"sample": dict(sample)} if sample else {}),
        },
    }


def label_lines(
    lines: Iterable[Mapping[str, Any]],
    labels: Mapping[str, str],
    author: str,
    now: datetime,
) -> Sequence[Mapping[str, Any]]:
    """Writes labels into an export's lines.

    Args:
        labels: maps a line's id to its label. An empty label leaves the line as it is.
    """
    authorship = {"label_author": author, "labelled_at": now.isoformat()}
    return [
        {
            **line,
            "label": label,
            **authorship,
        }
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
    """Deletes the captures that match all filters. Needs an admin. Raises NotAllowed,
    InputError without a filter.

    Args:
        user: the id that clients sent.
    """
    actor.require(Role.ADMIN)
    if not (id_ or route or user or everything):
        raise InputError("name what to delete: a capture, a route, a user, or everything")
    users = user_hashes(user, secret) if user else ()
    with ctx.store.write() as tx:
        deleted = _purge(tx, id_=id_, route=route, users=users)
        # Omits the user's id, because the log is kept for ever.
        details = {
            "count": deleted,
            "capture": id_,
            "by_user": bool(user),
        }
        subject = f"captures of {route or 'all routes'}"
        AuditLog(tx).append(actor, "capture.purge", subject, details)
    ctx.store.drop_deleted()
    return deleted


def _purge(tx: Transaction, **filters: Any) -> int:
    """Deletes captures, and counts deleted pairs of shadows. Returns the number of captures.

    Args:
        filters: those of `Captures.purge`.
    """
    from harness.operations.deleted_pairs import count_deleted  # noqa: PLC0415 - imports numpy

    deleted = Captures(tx).purge(**filters)
    count_deleted(tx, deleted)
    return len(deleted)


def summarize_capture(request: CapturedRequest) -> CaptureSummary:
    """Describes a captured request without its content."""
    names = set(CaptureSummary.__dataclass_fields__) - {"messages", "tools"}
    return CaptureSummary(
        **{name: getattr(request, name) for name in names},
        messages=len(request.content.get("messages", ())),
        tools=len(request.content.get("tools", ())),
    )


# Advice about copies that a deletion in Swapproof cannot reach.
REMAINING_COPIES: Final = (
    "earlier backups contain the user's content until you delete them",
    "exports, reports and suites made of captures are your own files: search them by hand",
    "collectors, alert sinks and providers must delete the copies that they received",
)


@dataclass(frozen=True, slots=True)
class UserDeletion:
    """The result of deleting a user's content, with advice about copies elsewhere."""

    sessions: int  # deleted with their messages, including sub-tasks' sessions
    captures: int
    failovers: int  # failovers whose user hash was blanked
    kept_pieces: int  # deleted pieces of Responses conversations, and their names
    not_reached: Sequence[str]  # the sentences of REMAINING_COPIES


def delete_user(
    ctx: Context,
    actor: Actor,
    user: str,
    reason: str,
    *,
    secret: bytes,
) -> UserDeletion:
    """Deletes a user's requests and answers, by the id that clients sent. The audit log records
    the reason and the counts, but not the id. Needs an admin. Raises NotAllowed, InputError
    without a user or a reason.
    """
    actor.require(Role.ADMIN)
    if not user.strip():
        raise InputError("name the user whose content to delete")
    if not reason.strip():
        raise InputError("give a reason: the audit log keeps it, but not the user's id")
    if user in reason:
        raise InputError(
            "the reason contains the user's id, but the audit log is kept for ever: give "
            "another reason, such as the number of the request"
        )
    with ctx.store.write() as tx:
        ids = Sessions(tx).of_user(user)
        # Agents send the session's id as the user, so captures must be found before the
        # session is deleted.
        session_hashes = (hash_user(f"header:{session}", secret) for session in ids)
        hashes = [*user_hashes(user, secret), *session_hashes]
        captures = _purge(tx, users=hashes)
        failovers = Failovers(tx).blank_users(hashes)
        kept_pieces = KeptPieces(tx).purge(hashes)
        sessions = purge_sessions(ctx, tx, ids)
        deletion = UserDeletion(sessions, captures, failovers, kept_pieces, REMAINING_COPIES)
        names = ("sessions", "captures", "failovers", "kept_pieces")
        counts = {name: getattr(deletion, name) for name in names}
        # Omits the user's id, because the log is kept for ever.
        AuditLog(tx).append(actor, "user.delete", "a user", {**counts, "reason": reason})
    ctx.store.drop_deleted()
    return deletion


PURGE_REASON: Final = "its transcript was deleted"
_SESSIONS_AT_ONCE: Final = 100


def purge_idle(ctx: Context, max_idle: timedelta) -> int:
    """Deletes the sessions that were idle for `max_idle`, and the rows of agents that were
    deleted before that. Returns the number of sessions.
    """
    now = ctx.clock.now()
    count = 0
    while True:
        with ctx.store.write() as tx:
            idle_ids = Sessions(tx).idle_since(now - max_idle, limit=_SESSIONS_AT_ONCE)
            count += purge_sessions(ctx, tx, idle_ids)
            if not idle_ids:
                Agents(tx).forget(now - max_idle)
                break
    if count:
        ctx.store.drop_deleted()
    return count


def purge_sessions(
    ctx: Context,
    tx: Transaction,
    ids: Sequence[str],
) -> int:
    """Deletes sessions, and returns their number.

    Args:
        ids: children before their parents.
    """
    for session in ids:
        agents.close_in_transaction(ctx, tx, session, PURGE_REASON)
        SwitchRequests(tx).blank(session)
        Sessions(tx).delete(session)
    return len(ids)


def revoke_stale_grants(ctx: Context) -> int:
    """Revokes grants that have expired or ended, so that routers need not load them."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        grants = AgentGrants(tx).not_revoked()
        stale = [grant for grant in grants if now >= grant.expires_at or _has_ended(tx, grant)]
    if stale:
        with ctx.store.write() as tx:
            for grant in stale:
                AgentGrants(tx).revoke(grant.id, now)
            details = {
                "grants": [grant.id for grant in stale],
                "reason": "ended",
            }
            AuditLog(tx).append(SYSTEM, "agent.grant_end", "grants of agents", details)
    return len(stale)


def _has_ended(tx: Transaction, grant: AgentGrant) -> bool:
    """Tells whether the grant's agent or session is gone or closed."""
    try:
        if Agents(tx).get(grant.agent).deleted_at is not None:
            return True
        session = Sessions(tx).get(grant.session) if grant.session else None
    except NotFound:
        return True
    return session is not None and session.state is SessionState.CLOSED
