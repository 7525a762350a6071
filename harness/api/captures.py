"""Endpoints for captured requests: list them, read one with its content, delete some.

Endpoint that deletes what a user said and got.
"""

from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.frame.endpoint import CallerParam, endpoint
from harness.api.frame.request_fields import CaptureQuery, PurgeQuery, UserDeletionBody
from harness.control.operations import queries
from harness.control.privacy import captures, user_deletion
from harness.control.privacy.captures import CaptureSummary
from harness.control.privacy.user_deletion import UserDeletion
from harness.domain.pagination import Page
from harness.domain.privacy.capture import CapturedRequest

router = APIRouter()


@endpoint(router, "GET", "/captures")
def list_captures(
    who: CallerParam, piece: Annotated[CaptureQuery, Query()]
) -> Page[CaptureSummary]:
    """Lists the captured requests, newest first, without their content."""
    return queries.list_captures(who.ctx, piece.page, route=piece.route)


@endpoint(router, "GET", "/captures/{capture}")
def show_capture(who: CallerParam, capture: str) -> CapturedRequest:
    """Shows a captured request with its content. Needs an approver; the audit log notes it."""
    return captures.read_capture(who.ctx, who.actor, capture)


@endpoint(router, "DELETE", "/captures", status=204)
def purge_captures(who: CallerParam, piece: Annotated[PurgeQuery, Query()]) -> None:
    """Deletes the captured requests that match every given filter. Needs an admin."""
    captures.purge_captures(
        who.ctx,
        who.actor,
        secret=who.secret,
        id_=piece.capture,
        route=piece.route,
        user=piece.user,
        everything=piece.all,
    )


@endpoint(router, "POST", "/user-deletions")
def delete_user(who: CallerParam, body: UserDeletionBody) -> UserDeletion:
    """Deletes a user's sessions, captured requests and marks. Needs an admin. The user's id is
    in the body, since logs hold paths; the audit log keeps the reason alone.
    """
    return user_deletion.delete_user(
        who.ctx, who.actor, body.user, body.reason, secret=who.secret
    )
