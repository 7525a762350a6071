"""Answers the OpenFeature Remote Evaluation Protocol: a route is a flag, an arm its
variant.

One evaluated flag is an exposure of the canary, and feedback its outcome. A bulk evaluation
is not an exposure. The arm comes from `ModelEndpoint.assign`, as for a request with the
same sticky header. This module asks no target. Source:
https://github.com/open-feature/protocol/blob/main/service/openapi.yaml
"""

import json
from hashlib import blake2b
from typing import Final, NamedTuple

from harness.frame.errors import InputError
from harness.providers.models.capabilities import Endpoint
from harness.routing.table import KeyGrant
from router.access.front_door import FLAGS_PATH, is_route_allowed
from router.frame.asgi import Scope, header
from router.frame.body import read_request
from router.frame.json_spans import parse_object
from router.frame.replies import JSON, Reply
from router.observers.canary_guard import CanaryGuards
from router.observers.feedback import FeedbackIntake
from router.recording.port import Recording
from router.request.model_endpoint import Assignment, ModelEndpoint
from router.snapshot.compiled import (
    CompiledRoute,
    CompiledSnapshot,
    RouteNames,
)

FLAG_PREFIX: Final = f"{FLAGS_PATH}/"
MAX_CONTEXT_BYTES: Final = 64 * 1024
LONGEST_KEY: Final = 1024  # characters of a targeting key
# Stands for the caller's later request, which the router does not know yet.
_REQUEST: Final = read_request(b'{"model": "flag", "messages": []}', Endpoint.CHAT)


class FlagFault(Exception):
    """A flag that cannot be evaluated.

    code: the protocol's error code.
    status: the HTTP status of a reply about this flag alone.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    def to_plain(self, flag: str) -> dict[str, object]:
        """Returns the fault as the protocol writes it, for one flag of a bulk evaluation."""
        return {
            "key": flag,
            "errorCode": self.code,
            "errorDetails": str(self),
        }


class FlagCaller(NamedTuple):
    """The request for flags, the grant of its key, and the revision that answers it."""

    scope: Scope
    grant: KeyGrant
    serving: CompiledSnapshot
    request_id: str


class FlagEvaluation:
    """Evaluates routes as flags in one worker."""

    def __init__(
        self,
        calls: ModelEndpoint,
        recorder: Recording,
        feedback: FeedbackIntake,
        guards: CanaryGuards,
        names: RouteNames,
    ) -> None:
        self._calls = calls
        self._recorder = recorder
        self._feedback = feedback
        self._guards = guards
        self._names = names

    def answer(self, body: bytes, caller: FlagCaller) -> Reply:
        """Answers for one flag, or for all routes that the key may use if the path has no
        flag.
        """
        flag: str = caller.scope["path"][len(FLAG_PREFIX) :]
        try:
            targeting_key = _read_targeting_key(body)
            if not flag:
                return self._evaluate_all(targeting_key, caller)
            route = self._find(flag, caller)
            evaluation = self._evaluate(flag, route, targeting_key, caller, exposed=True)
        except FlagFault as fault:
            return _build_reply(fault.to_plain(flag), fault.status)
        return _build_reply(evaluation)

    def _find(self, flag: str, caller: FlagCaller) -> CompiledRoute:
        route = caller.serving.routes.get(flag) or self._names.find(flag, caller.serving)
        if route is None or not is_route_allowed(caller.grant, route.route.name):
            message = (
                f"this key may not use a route {flag[:200]!r}; GET /v1/models lists its routes"
            )
            raise FlagFault("FLAG_NOT_FOUND", message, 404)
        return route

    def _evaluate_all(self, targeting_key: str, caller: FlagCaller) -> Reply:
        """Evaluates all routes. A flag that cannot be evaluated does not fail the others.

        Replies 304 if nothing has changed since the client's `if-none-match`.
        """
        flags: list[dict[str, object]] = []
        for name, route in sorted(caller.serving.routes.items()):
            if not is_route_allowed(caller.grant, name):
                continue
            try:
                flags.append(self._evaluate(name, route, targeting_key, caller, exposed=False))
            except FlagFault as fault:
                flags.append(fault.to_plain(name))
        body = json.dumps({"flags": flags}).encode()
        etag = f'"{blake2b(body, digest_size=16).hexdigest()}"'.encode()
        headers = ((b"etag", etag), (b"cache-control", b"private, no-cache"))
        if etag in (header(caller.scope, b"if-none-match") or b""):
            return Reply(304, headers, b"")
        return Reply(200, (JSON, *headers), body)

    def _evaluate(
        self,
        flag: str,
        route: CompiledRoute,
        targeting_key: str,
        caller: FlagCaller,
        *,
        exposed: bool,
    ) -> dict[str, object]:
        """Returns the flag's value, the model of the first target of the caller's plan.

        Args:
            exposed: whether this evaluation counts in the canary's statistics.

        Raises FlagFault.
        """
        canary = route.route.canary
        if canary is not None and not targeting_key:
            message = "send `context.targetingKey`: the route has a canary, which is sticky"
            raise FlagFault("TARGETING_KEY_MISSING", message)
        sticky = targeting_key.encode(errors="replace")
        assignment = self._calls.assign(
            caller.scope,
            sticky,
            route,
            _REQUEST,
            caller.grant,
            caller.request_id,
        )
        _, arm, plan, _, _ = assignment
        if not plan.targets:
            message = (
                f"no target of route {flag!r} can answer now; `swapproof status` shows why"
            )
            raise FlagFault("GENERAL", message, 503)
        upstream = route.upstreams[plan.targets[0]]
        metadata: dict[str, object] = {
            "target": upstream.name,
            "revision": caller.serving.snapshot.table.revision,
        }
        if canary is not None:
            metadata["rollout"] = canary.rollout
        if exposed:
            # OpenFeature's hooks report `contextId` as `feature_flag.context.id`.
            metadata |= dict.fromkeys(("request_id", "contextId"), caller.request_id)
            self._expose(
                route,
                assignment,
                caller,
                (caller.grant.id, flag, targeting_key),
            )
        return {
            "key": flag,
            "value": upstream.target.model,
            "variant": arm.value,
            "reason": "STATIC" if canary is None else "SPLIT",
            "metadata": metadata,
        }

    def _expose(
        self,
        route: CompiledRoute,
        assignment: Assignment,
        caller: FlagCaller,
        subject: tuple[str, str, str],
    ) -> None:
        key, arm, _, trial, uncounted = assignment
        ticket = None
        experiment = route.experiment
        if uncounted and experiment is not None:
            self._calls.note_uncounted(experiment, arm, uncounted, key)
        if trial is not None and not self._guards.stopped(trial):
            ticket = self._recorder.admit(trial, arm, key, client=caller.grant.id)
        name = route.route.name
        self._feedback.remember_exposure(caller.request_id, name, arm, ticket, subject)


def _read_targeting_key(body: bytes) -> str:
    try:
        context = parse_object(body).get("context") if body else None
    except InputError as error:
        raise FlagFault("PARSE_ERROR", f"the request body: {error}") from None
    if context is None:
        return ""
    if not isinstance(context, dict):
        raise FlagFault("INVALID_CONTEXT", "`context` must be an object")
    key = context.get("targetingKey", "")
    if not isinstance(key, str) or len(key) > LONGEST_KEY:
        message = f"`context.targetingKey` must be a text of at most {LONGEST_KEY} characters"
        raise FlagFault("INVALID_CONTEXT", message)
    return key


def _build_reply(plain: dict[str, object], status: int = 200) -> Reply:
    return Reply(status, (JSON,), json.dumps(plain).encode())
