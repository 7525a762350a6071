"""Builds a capture without its content, and tells whether a client forbids copies.

`capture`, `shadow_pairs`, `judge`, `tracing` and the kept histories obey `is_copy_refused`.
"""

from datetime import datetime
from typing import Final

from harness.frame.people.access import OptOut
from harness.routing.capture import CapturedRequest, capture_expiry
from harness.routing.reliability.failover import hash_callers, hash_user
from router.frame.asgi import header
from router.protocols.caller_names import body_callers
from router.request.client_directives import caller_keys, conversation_keys
from router.request.request_state import RoutedRequest

CAPTURE_OPT_OUT: Final = b"x-swapproof-capture"
OFF: Final = b"off"
OK: Final = "ok"  # an outcome
_USER_PREFIXES: Final = ("user:", "safety_identifier:", "header:")
_CONVERSATION_PREFIXES: Final = ("conversation:",)


def build_capture_head(
    observed: RoutedRequest, now: datetime, secret: bytes
) -> CapturedRequest:
    """Builds a capture of a request without id, content, target and outcome."""
    settings = observed.route.route.settings
    caller, conversation = _hash_names(observed, secret)
    return CapturedRequest(
        id="",
        at=now,
        expires_at=capture_expiry(now, settings.capture_keep_days),
        route=observed.route.route.name,
        request=observed.request_id,
        endpoint=observed.request.endpoint.value,
        stream=observed.request.stream,
        arm=observed.arm.value,
        target="",
        revision=observed.revision,
        data_class=settings.data_class,
        user_hash=hash_callers(caller_keys(observed.request, observed.sticky_key), secret),
        share_bps=settings.capture_bps,
        rules="",
        redactions={},
        content={},
        caller=caller,
        conversation=conversation,
    )


def _hash_names(observed: RoutedRequest, secret: bytes) -> tuple[str, str]:
    """Returns keyed hashes of the request's user and conversation; empty without a name.

    A client key does not name a user: one application may send all requests with it.
    """
    keys = [*body_callers(observed.request.members.found), observed.sticky_key]
    user = next((key for key in keys if key.startswith(_USER_PREFIXES)), "")
    opening = next(conversation_keys(observed.request), "")
    conversation = next(
        (key for key in keys if key.startswith(_CONVERSATION_PREFIXES)), opening
    )
    return (
        hash_user(f"caller:{user}", secret) if user else "",
        hash_user(f"conversation:{user}:{conversation}", secret) if conversation else "",
    )


def is_copy_refused(observed: RoutedRequest) -> bool:
    """Returns whether the key, the client's header or `store: false` forbids a copy."""
    return (
        OptOut.CAPTURE in observed.opt_outs
        or header(observed.scope, CAPTURE_OPT_OUT) == OFF
        or observed.request.value("store") is False
    )
