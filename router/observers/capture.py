"""Copies a sample of requests and answers, to become eval cases.

This module does not read, redact or write them; the parent's `capture_writer` redacts them.
`is_copy_refused` decides whether a client forbids copies. `judge`, `tracing` and
`shadow_pairs` obey it, too.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from harness.frame.people.access import OptOut
from harness.frame.ports import Clock
from harness.providers.models.capabilities import Endpoint
from harness.routing.capture import (
    CapturedRequest,
    capture_expiry,
    is_sampled,
)
from harness.routing.reliability.failover import hash_callers, hash_user
from router.frame.asgi import header
from router.protocols.caller_names import body_callers
from router.recording.internal_errors import RouterPart
from router.recording.port import CaptureDraft, Recording
from router.request.client_directives import caller_keys, conversation_keys
from router.request.request_observers import RequestObserver
from router.request.request_state import AnswerCopy, RoutedRequest
from router.request.routed_response import RoutedResponse
from router.snapshot.compiled import CompiledRoute

CAPTURE_OPT_OUT: Final = b"x-swapgate-capture"
OFF: Final = b"off"
OK: Final = "ok"  # an outcome
ANSWER_TOO_LARGE: Final = "answer_too_large"
_USER_PREFIXES: Final = ("user:", "safety_identifier:", "header:")
_CONVERSATION_PREFIXES: Final = ("conversation:",)


class CaptureSampler(RequestObserver):
    """Samples a route's requests. secret: the key for hashes of users.

    Draws by the request's id before the first attempt, so that failed, refused and cancelled
    requests become captures, too. A sample of good answers alone would favour the model that
    gave them. A capture omits the contents of a request that is too large, and an answer that
    is too large.
    """

    part = RouterPart.CAPTURE

    def __init__(
        self,
        secret: bytes,
        clock: Clock,
        recorder: Recording,
    ) -> None:
        self._secret = secret
        self._clock = clock
        self._recorder = recorder
        self._copies: dict[str, AnswerCopy] = {}  # by request id

    def watches(self, route: CompiledRoute) -> bool:
        return route.route.settings.capture_bps > 0

    def before_attempt(self, observed: RoutedRequest) -> None:
        share_bps = observed.route.route.settings.capture_bps
        if not share_bps or observed.request.endpoint is Endpoint.EMBEDDINGS:
            return
        if is_sampled(observed.request_id, share_bps) and self._may_keep(observed):
            copy = AnswerCopy(observed.route.route.settings.copy_max_bytes)
            self._copies[observed.request_id] = copy
            observed.copies = (*observed.copies, copy)

    def _may_keep(self, observed: RoutedRequest) -> bool:
        if is_copy_refused(observed):
            self._recorder.counters["captures_refused"] += 1
            return False
        return True

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        copy = self._copies.pop(observed.request_id, None)
        target = response.progress.upstream
        result = response.progress.result
        if copy is None:
            return
        settings = observed.route.route.settings
        body = observed.request.text
        has_answer = response.outcome == OK
        answer = copy.whole(result) if has_answer else ""
        outcome = response.outcome if has_answer else response.error or response.outcome
        is_too_large = len(body) > settings.copy_max_bytes
        if is_too_large or answer is None:
            self._recorder.counters["captures_too_large"] += 1
        head = replace(
            build_capture_head(observed, self._clock.now(), self._secret),
            target=target.name if target else "",
            body_bytes=len(body) + (settings.copy_max_bytes if answer is None else len(answer)),
            too_large=is_too_large,
            outcome=ANSWER_TOO_LARGE if answer is None else outcome,
        )
        texts = ("", "") if is_too_large else (body, answer or "")
        self._recorder.capture(CaptureDraft(head, settings.capture_per_day, *texts))


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
