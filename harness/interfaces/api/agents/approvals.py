"""Serves the pages of approval links. GET shows the question; POST decides with a management
key of an approver. The pages use no cookies, so another page cannot decide for a person, and
no script, because they show an agent's words.
"""

from collections.abc import Mapping
from contextlib import suppress
from html import escape
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from harness.agents import switches
from harness.agents.caller import APPROVAL_PATH, ApprovalLinks
from harness.agents.records import Agents, SwitchRequests
from harness.agents.switch_request import (
    ModelSwitchRequest,
    SwitchState,
    switch_lines,
    switch_question,
)
from harness.app.installation import Installation
from harness.frame.errors import (
    ConfigError,
    InputError,
    NotAllowed,
    NotFound,
    SwapproofError,
)
from harness.interfaces.api.agents.access import (
    FailedKeys,
    find_status,
    pass_on,
)
from harness.operations import keys

MAX_FORM_BYTES: Final = 16_384
FORM: Final = "application/x-www-form-urlencoded"
_DECISIONS: Final = {
    "approve": switches.approve_switch,
    "reject": switches.reject_switch,
}
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # A referrer would reveal the link.
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
}
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Swapproof: {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}}
dt{{font-weight:600}}dd{{margin:0 0 .6rem;white-space:pre-wrap;overflow-wrap:anywhere}}
label{{display:block;margin:.8rem 0}}input{{width:100%;font:inherit}}
button{{font:inherit;padding:.4rem 1.2rem;margin-right:1rem}}</style></head>
<body><h1>{title}</h1>{content}</body></html>
"""
_FORM: Final = """<form method="post" autocomplete="off">
<label>Your management key (approver or admin)
<input name="key" type="password" required autocomplete="off"></label>
<label>Your reason <input name="reason" maxlength="1000"></label>
<button name="decision" value="approve">Approve</button>
<button name="decision" value="reject">Reject</button></form>
"""


class ApprovalPages:
    """Answers requests below `/agents/approvals/`, and passes other requests on."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        installation: Installation,
        failed: FailedKeys,
    ) -> None:
        self._app = app
        self._installation = installation
        self._failed = failed
        self._ctx = installation.context
        self._secret = installation.secret

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(APPROVAL_PATH):
            await self._app(scope, receive, send)
            return
        try:
            answer = await self._answer(Request(scope, receive))
        except SwapproofError as error:
            answer = _show_refusal(error)
        if answer.status_code == HTTPStatus.UNAUTHORIZED and (
            wait_s := self._failed.count(scope)
        ):
            text = f"Too many wrong keys came from your address. Try again in {wait_s} s."
            answer = _build_page("Not decided", text, 429)
            answer.headers["retry-after"] = str(wait_s)
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        token = request.url.path.removeprefix(APPROVAL_PATH)
        switch, agent = await run_in_threadpool(self._find_switch, token)
        if request.method in ("GET", "HEAD"):
            return self._show(switch, agent)
        if request.method != "POST":
            return _build_page("Not allowed", "Open the link in a browser.", 405)
        body = await _read_body(request)
        if self._installation.signs_as is None:
            return await run_in_threadpool(pass_on, self._installation, request, body)
        kind = request.headers.get("content-type", "")
        return await run_in_threadpool(self._decide, switch, _read_form(kind, body))

    def _find_switch(self, token: str) -> tuple[ModelSwitchRequest, str]:
        """Returns the link's request, and its agent's name. Raises NotFound."""
        links = ApprovalLinks("", self._secret)
        with self._ctx.store.read() as tx, suppress(NotFound):
            switch = SwitchRequests(tx).get(token.partition(".")[0])
            if links.is_of(token, switch):
                return switch, Agents(tx).get(switch.agent).name
        raise NotFound("this is not a valid approval link of this installation")

    def _show(self, switch: ModelSwitchRequest, agent: str) -> Response:
        now = self._ctx.clock.now()
        state = switch.state_at(now)
        if state is not SwitchState.PENDING:
            by = f" by {switch.decided_by}" if switch.decided_by else ""
            text = f"The switch request {switch.id} is {state.value}{by}."
            return _build_page("Decided", text, HTTPStatus.GONE)
        rows = "".join(
            f"<dt>{escape(title)}</dt><dd>{escape(value)}</dd>"
            for title, value in switch_lines(switch, now)
        )
        question = switch_question(switch, agent)
        return _build_page(question, "", HTTPStatus.OK, f"<dl>{rows}</dl>{_FORM}")

    def _decide(self, switch: ModelSwitchRequest, fields: Mapping[str, str]) -> Response:
        decide = _DECISIONS.get(fields.get("decision", ""))
        if decide is None:
            raise InputError("decision: send `approve` or `reject`")
        key = fields.get("key", "")
        try:
            actor = keys.authenticate(self._ctx.store, key, secret=self._secret)
        except NotAllowed as error:
            return _build_page("Not decided", str(error), HTTPStatus.UNAUTHORIZED)
        decided_switch = decide(
            self._ctx,
            actor,
            switch.id,
            fields.get("reason", ""),
            fingerprint=switch.hash,
        )
        state = decided_switch.state.value
        text = f"{actor.name}: the switch request {switch.id} is {state}."
        return _build_page("Decided", text, HTTPStatus.OK)


def _read_form(kind: str, body: bytes) -> Mapping[str, str]:
    if kind.partition(";")[0].strip().lower() != FORM:
        raise InputError(f"send the decision as a form: {FORM}")
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=10)
    except ValueError:
        raise InputError(f"the body is not a valid form: send it as {FORM}") from None
    if any(len(values) > 1 for values in fields.values()):
        raise InputError("the form has a field twice: send each field once")
    return {name: values[0] for name, values in fields.items()}


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            raise InputError(f"the form has more than {MAX_FORM_BYTES} bytes")
    return bytes(body)


def _show_refusal(error: SwapproofError) -> Response:
    status = find_status(error)
    if status is None:
        raise error
    hint = ""
    if isinstance(error, ConfigError):
        hint = " Decide with `swapproof agent approve` or `reject`, or on the dashboard."
    return _build_page("Not decided", f"{error}.{hint}", status)


def _build_page(
    title: str,
    text: str,
    status: int,
    content: str = "",
) -> Response:
    paragraph = f"<p>{escape(text)}</p>" if text else ""
    page = _PAGE.format(title=escape(title), content=paragraph + content)
    return Response(page, status, _HEADERS, media_type="text/html; charset=utf-8")
