"""The simple operations on client keys, on people and their sessions, and on users of the
clients. Also the lists of other subjects for people, which omit rows without a valid signature.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from harness.frame.configuration.setting import plain_settings
from harness.frame.formatting import format_bytes, format_spent_usd
from harness.frame.operation import (
    FinishedOperation,
    Listing,
    Operation,
    OperationGroup,
    Parameter,
    by_row,
)
from harness.frame.pagination import Page
from harness.frame.people.access import ApiKey, OptOut, Role
from harness.frame.people.limits import KeyLimits
from harness.operations import captures, dashboard_sessions, keys, queries
from harness.operations.captures import CaptureSummary
from harness.operations.dashboard_sessions import SignedInSession
from harness.operations.keys import KeySummary, PersonView
from harness.routing.agent import AgentGrant
from harness.routing.evidence import BreakGlass


def describe_limits(limits: KeyLimits | None) -> str:
    """Describes the limits of a key; empty without limits."""
    if limits is None:
        return ""
    values = (
        (declared, getattr(limits, declared.name))
        for declared in plain_settings(KeyLimits)
        if declared.optional
    )
    return ", ".join(
        f"{declared.format(value)} {declared.caption}"
        for declared, value in values
        if value is not None
    )


def describe_kind(key: ApiKey) -> str:
    return key.role.name.lower() if key.role else "client"


def _format_spent(key: KeySummary, usd: float) -> str:
    if key.role is not None:
        return ""
    return format_spent_usd(usd, key.spent.unpriced, key.spent.bounded)


def _key_cells(row: KeySummary) -> dict[str, object]:
    return {
        "ID": row.id,
        "NAME": row.name,
        "PRINCIPAL": row.principal_name,
        "KIND": describe_kind(row),
        "ENDS IN": row.hint,
        "ROUTES": ", ".join(sorted(row.routes)) or "all",
        "LIMITS": describe_limits(row.limits),
        "OPTED OUT OF": ", ".join(sorted(row.opt_outs)),
        "TODAY": _format_spent(row, row.spent.day_usd),
        "THIS MONTH": _format_spent(row, row.spent.month_usd),
        "CREATED": row.created_at,
        "REVOKED": row.revoked_at,
    }


KEYS: Final = OperationGroup(
    command="key",
    words="Keys that Swapproof issues to clients and people.",
    operations=(
        Operation(
            use_case=queries.list_keys,
            role=Role.VIEWER,
            words="List the keys, oldest first, without their text.",
            command="list",
            example="swapproof key list",
            endpoint="GET /keys",
            listing=Listing(
                by_row(_key_cells),
                empty="no keys yet: `swapproof key create NAME` creates one",
            ),
        ),
        Operation(
            use_case=keys.set_opt_outs,
            role=Role.ADMIN,
            words="Set the opt-outs of a client key.",
            endpoint="PUT /keys/{key}/opt-outs",
            name="opt_out_key",
            body="OptOutsBody",
            body_text="All opt-outs of a client key, which replace the current ones.",
            parameters={"opt_outs": Parameter(kind=set[OptOut])},
        ),
        Operation(
            use_case=keys.revoke_key,
            role=Role.ADMIN,
            words="Revoke a key; routers stop accepting it within two seconds.",
            command="revoke ID",
            example="swapproof key revoke key_7dd29fc2a5260856",
            endpoint="DELETE /keys/{key}",
            status=204,
            document=lambda revoked: {"revoked": revoked.inputs["key"]},
            done=lambda revoked: (
                f"revoked {revoked.inputs['key']}"
                if revoked.result
                else f"{revoked.inputs['key']} was already revoked"
            ),
        ),
    ),
)


def _build_person_cells(view: PersonView) -> dict[str, object]:
    return {
        "NAME": view.name,
        "KIND": view.kind.value,
        "SIGNS IN AT": view.issuer or "",
        "IS": view.person,
        "DECLARED BY": view.declared_by,
        "REASON": view.reason,
        "SINCE": view.created_at,
    }


def _build_session_cells(view: SignedInSession) -> dict[str, object]:
    return {
        "SESSION": view.id,
        "NAME": view.name,
        "BY": view.by,
        "SINCE": view.opened_at,
        "UNTIL": view.expires_at,
    }


# The API's endpoint for both declarations is written by hand.
PEOPLE: Final = OperationGroup(
    command="person",
    words="People: which principals are one person, and who is signed in.",
    operations=(
        Operation(
            use_case=keys.list_people,
            role=Role.VIEWER,
            words="List the principals, which act with a key, by single sign-on, or on this "
            "machine.\n\n"
            "With a key below the admin role, the list has only the key holder's principals.",
            command="list",
            example="swapproof person list",
            endpoint="GET /people",
            listing=Listing(by_row(_build_person_cells), empty="no principals yet"),
        ),
        Operation(
            use_case=keys.link_people,
            role=Role.ADMIN,
            words="Declare that NAME is the same person as PERSON.\n\n"
            "From then on, neither can approve a proposal of the other.",
            command="link NAME PERSON",
            example='swapproof person link dave-laptop dave --reason "one person"',
            done=lambda linked: (
                f"{linked.inputs['principal']} and {linked.inputs['person']} are one person"
            ),
        ),
        Operation(
            use_case=keys.separate_people,
            role=Role.ADMIN,
            words="Declare that NAME is a separate person, with no other principal here.\n\n"
            "A single sign-on user and a key holder can approve each other's proposals only "
            "after this declaration, or a `link` to another person. A third person must make "
            "the declaration.",
            command="separate NAME",
            example='swapproof person separate dave-laptop --reason "another Dave"',
            done=lambda declared: f"{declared.inputs['principal']} is a separate person",
        ),
        Operation(
            use_case=dashboard_sessions.list_open,
            role=Role.VIEWER,
            words="List the open sessions of the dashboard, newest first.\n\n"
            "With a key below the admin role, the list has only the key holder's sessions.",
            command="sessions",
            example="swapproof person sessions",
            endpoint="GET /dashboard-sessions",
            name="list_dashboard_sessions",
            listing=Listing(by_row(_build_session_cells), empty="no one is signed in"),
        ),
        Operation(
            use_case=dashboard_sessions.end_session,
            role=Role.PROPOSER,
            words="End a person's session in the dashboard, at once.",
            command="sign-out SESSION",
            example='swapproof person sign-out ds_e2a47790c5b8d613 --reason "a lost laptop"',
            endpoint="POST /dashboard-sessions/{session}/end",
            name="end_dashboard_session",
            done=lambda ended: f"{ended.result.name} is signed out of {ended.result.id}",
        ),
    ),
)


def _build_capture_cells(summary: CaptureSummary) -> dict[str, object]:
    return {
        "CAPTURE": summary.id,
        "AT": summary.at,
        "ROUTE": summary.route,
        "TARGET": summary.target,
        "MESSAGES": summary.messages,
        "TOOLS": summary.tools,
        "REDACTED": ", ".join(f"{name} {n}" for name, n in summary.redactions.items()),
        "SEEN": summary.seen,
        "SHADOW": summary.shadow,
        "SIZE": format_bytes(summary.body_bytes),
        "KEPT": "no: over the limit" if summary.too_large else None,
        "EXPIRES": summary.expires_at,
    }


def _describe_sample(outcome: FinishedOperation[Any]) -> str:
    text = captures.load_sample(outcome.ctx, outcome.inputs["route"]).text
    return f"in the last {captures.SAMPLE_DAYS} days: {text}" if text else ""


CAPTURES: Final = OperationGroup(
    command="capture",
    words="Captured requests: redacted requests from production, for labelling.",
    operations=(
        Operation(
            use_case=queries.list_captures,
            role=Role.VIEWER,
            words="List captured requests, newest first, without their content.",
            command="list",
            example="swapproof capture list --route support",
            endpoint="GET /captures",
            body="RouteQuery",
            parameters={"route": Parameter(meaning="Only this route.", metavar="ROUTE")},
            listing=Listing(
                by_row(_build_capture_cells),
                empty="nothing is captured: `swapproof route settings ROUTE --capture 1%` "
                "starts it",
                note=_describe_sample,
            ),
        ),
        Operation(
            use_case=captures.read_capture,
            role=Role.APPROVER,
            words="Show a captured request with its content.",
            endpoint="GET /captures/{capture}",
            name="show_capture",
        ),
        Operation(
            use_case=captures.purge_captures,
            role=Role.ADMIN,
            words="Delete the captured requests that match all given options, for good.",
            command="purge",
            example="swapproof capture purge --user user-7",
            endpoint="DELETE /captures",
            body="PurgeQuery",
            body_text="Selects captured requests to delete, by at least one field.",
            status=204,
            parameters={
                "id_": Parameter(
                    meaning="Only this captured request.",
                    flags=("--id",),
                    metavar="CAPTURE",
                    api_name="capture",
                ),
                "route": Parameter(meaning="Only this route.", metavar="ROUTE"),
                "user": Parameter(
                    meaning="Only this user, by the id that the client sent.",
                    metavar="ID",
                ),
                "everything": Parameter(
                    meaning="All captured requests.",
                    flags=("--all",),
                    api_name="all",
                ),
            },
            document=lambda purged: {"deleted": purged.result},
            done=lambda purged: f"deleted {purged.result}",
        ),
    ),
)
USERS: Final = OperationGroup(
    command="user",
    words="Users of the clients: delete a user's data.",
    operations=(
        Operation(
            use_case=captures.delete_user,
            role=Role.ADMIN,
            words="Delete USER's sessions, captured requests, kept histories and failover "
            "hashes, for good.\n\n"
            "USER is the id that clients sent. The audit log keeps the reason, but not the id.",
            command="delete USER",
            example='swapproof user delete user-7 --reason "ticket 12"',
            # The user's id is in the body, because logs contain paths.
            endpoint="POST /user-deletions",
            body="UserDeletionBody",
            body_text="A user whose content Swapproof deletes.",
            parameters={"user": Parameter(meaning="The id that clients sent.")},
            done=lambda deleted: (
                f"deleted {deleted.result.sessions} sessions, {deleted.result.captures} "
                f"captured requests and {deleted.result.kept_pieces} pieces of kept "
                f"histories; blanked {deleted.result.failovers} fail-overs"
            ),
            advice=lambda deleted: "not reached: " + "; ".join(deleted.result.not_reached),
        ),
    ),
)


def _list_grant_cells(
    outcome: FinishedOperation[Page[AgentGrant]],
) -> Iterable[dict[str, object]]:
    return (_grant_cells(grant, outcome.began_at) for grant in outcome.result)


def _grant_cells(grant: AgentGrant, now: datetime) -> dict[str, object]:
    in_force = "in force" if now < grant.expires_at else "expired"
    return {
        "ID": grant.id,
        "AGENT": grant.agent,
        "SESSION": grant.session or "all",
        "MODEL": grant.target_name,
        "KIND": grant.kind.value,
        "BY": grant.granted_by,
        "UNTIL": grant.expires_at,
        "STATE": in_force if grant.revoked_at is None else "revoked",
    }


GRANT_LISTS: Final = OperationGroup(
    command="agent",
    words="Agents: their switch requests and grants.",
    operations=(
        Operation(
            use_case=queries.list_agent_grants,
            role=Role.VIEWER,
            words="List the consents to agents' models with a name PROVIDER:MODEL.",
            command="grants",
            example="swapproof agent grants",
            endpoint="GET /agent-grants",
            body="GrantQuery",
            body_text="Filters and pages a list of grants.",
            parameters={"agent": Parameter(meaning="Only this agent's.", metavar="ID")},
            listing=Listing(_list_grant_cells, empty="there are no grants"),
        ),
    ),
)


def _list_glass_cells(
    outcome: FinishedOperation[Page[BreakGlass]],
) -> Iterable[dict[str, object]]:
    targets_by_id = outcome.ctx.store.lists.targets_of(
        {record.target for record in outcome.result}
    )
    for record in outcome.result:
        target = targets_by_id.get(record.target)
        yield {
            "ID": record.id,
            "ROUTE": record.route,
            "STATE": record.ended_because or record.state,
            "TARGET": target.name if target else record.target,
            "UNTIL": record.expires_at,
            "BY": " and ".join(filter(None, (record.proposer, record.confirmer))),
            "REASON": record.reason,
        }


BREAK_GLASS_LISTS: Final = OperationGroup(
    command="route break-glass",
    words="Serve a route without proof: needs two people, a reason and an expiry.",
    operations=(
        Operation(
            use_case=queries.list_break_glasses,
            role=Role.VIEWER,
            words="List all break-glasses, newest first.",
            command="list",
            example="swapproof route break-glass list",
            endpoint="GET /break-glass",
            listing=Listing(
                _list_glass_cells,
                empty="no break-glass has been proposed yet",
            ),
        ),
    ),
)
