"""Endpoint that deletes what a user said and got."""

from fastapi import APIRouter

from harness.api.frame.endpoint import CallerParam, endpoint
from harness.api.frame.request_fields import UserDeletionBody
from harness.control.privacy import user_deletion
from harness.control.privacy.user_deletion import UserDeletion

router = APIRouter()


@endpoint(router, "POST", "/user-deletions")
def delete_user(who: CallerParam, body: UserDeletionBody) -> UserDeletion:
    """Deletes a user's sessions, captured requests and marks. Needs an admin. The user's id is
    in the body, since logs hold paths; the audit log keeps the reason alone.
    """
    return user_deletion.delete_user(
        who.ctx, who.actor, body.user, body.reason, secret=who.secret
    )
