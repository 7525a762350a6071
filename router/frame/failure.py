"""Failures of an attempt at a provider, and the provider's error details.

The classes of failures and the router's reactions are in `harness.frame.failures`. This
module has the exception that carries a class, and reads the error bodies of many providers.
`router.protocols.provider_failures` chooses a class; `router.request.refusals` makes a reply.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

from harness.frame.errors import UpstreamError
from harness.frame.failures import FAILURE_RULES, FailureClass, name_failure
from router.frame.replies import error_body

REFERENCE: Final = "`item_reference`"
_EARLIER: Final = "`previous_response_id`"
# Items of a conversation that OpenAI compacts: the order to do it, and the sealed summary.
COMPACTION_ORDER: Final = "`compaction_trigger`"
COMPACTION: Final = "`compaction`"
# Advice for a client that stores its conversation at a provider.
SEND_WHOLE: Final = (
    "send the whole history as `input`, with `store: false` "
    "(Vercel's SDK: providerOptions.openai.store)"
)
_NATIVE_TARGET: Final = "add a target to the route that speaks Responses itself"
SEND_ALL: Final = (
    f"{SEND_WHOLE}, or let Swapproof keep the route's answers: `swapproof route settings ROUTE "
    "--responses-state 24h` (`responses_state`)"
)


class Untranslatable(Exception):
    """A part of the request has no counterpart in the target's protocol.

    param: the field; None if it is unknown.
    """

    code = "not_supported_by_target"

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class MalformedRequest(Untranslatable):
    """The request is valid in no protocol; OpenAI refuses it, too. param: a path."""

    code = "invalid_value"

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"`{param}` {why}", param)


class ForeignReference(Untranslatable):
    """The request refers to an item that only another provider stores."""


def is_unable(error: Untranslatable) -> bool:
    """Returns whether another target may take the request that a target cannot translate."""
    return not isinstance(error, MalformedRequest | ForeignReference)


def no_chat_error(part: str, param: str) -> Untranslatable:
    """Builds the error for a part as the client wrote it, in the field `param`."""
    return Untranslatable(f"the protocol of the route's target does not support {part}", param)


def reference_error() -> Untranslatable:
    """Builds the error for a reference to an item that only another provider stores."""
    reason = f"{REFERENCE} refers to an item that another provider stores"
    return ForeignReference(f"{reason}; {SEND_ALL}", "input")


def untranslatable_error(part: str) -> Untranslatable:
    """Builds the error for a part: a field in backquotes, or the name of a tool."""
    if part == REFERENCE:
        return reference_error()
    if part == _EARLIER:
        reason = f"{part} refers to an answer that another provider stores"
        return Untranslatable(f"{reason}; {SEND_ALL}", part.strip("`"))
    if part == COMPACTION_ORDER:
        reason = f"{part} asks the provider to compact the conversation, and only Responses can"
        return Untranslatable(f"{reason}; {_NATIVE_TARGET}, or begin a new session", "input")
    if part == COMPACTION:
        reason = f"{part} has earlier turns that only the provider that wrote it can read"
        return Untranslatable(f"{reason}; send these turns, or {_NATIVE_TARGET}", "input")
    return no_chat_error(part, part.strip("`") if part.startswith("`") else "tools")


# The longest message of a provider in lists of attempts, alerts and reports, in characters.
MAX_MESSAGE: Final = 300
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{1,63}")
# `tools[12]`, `messages.1.content.0`, `temperature`.
_PLACE: Final = re.compile(r"[a-zA-Z_]{1,40}(?:[\w.\[\]]{0,80}(?:\d\]|\.\d{1,6}(?!\w)))?")
# Anthropic's messages begin with the place of the error.
_AT_BEGINNING: Final = re.compile(r"[a-z_]+(?:\.\w+)*(?=: )")
_TITLE: Final = re.compile(rb"<title>([^<]{1,200})</title>", re.IGNORECASE)


class ProviderWords(NamedTuple):
    """A provider's error details, without the request, which the exception keeps in memory.

    cause: as `UpstreamFailed.cause`. sentence: the provider's message in one line.
    """

    failure: FailureClass
    cause: str
    sentence: str


class UpstreamFailed(UpstreamError):
    """An attempt without a usable answer.

    detail: without secrets and content.
    status, body, content_type, headers: of the reply; None or empty without one.
    reach: the class's default, unless the refusal says otherwise.
    stale: the provider closed a reused connection without a response, probably as idle.
    local: the router sent no request to the provider.
    unable: the target has no form for the request, in its protocol or its answers. Another
        target may take it.
    names_foreign_item: the router refused a reference to an item that another provider stores.
    """

    def __init__(
        self,
        failure: FailureClass,
        detail: str,
        *,
        status: int | None = None,
        body: bytes = b"",
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
        stale: bool = False,
    ) -> None:
        super().__init__(f"{failure.value}: {detail}")
        self.failure = failure
        self.reach = FAILURE_RULES[failure].reach
        self.detail = detail
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers: Mapping[str, str] = headers or {}
        self.stale = stale
        self.local = False
        self.unable = False
        self.names_foreign_item = False

    @property
    def provider_code(self) -> str:
        """The provider's error code, an identifier; empty without one."""
        return read_code(error_object(self.body) or {})

    @property
    def place(self) -> str:
        """The faulty part of the request, if the provider names it, such as `tools[12]`."""
        return read_place(error_object(self.body) or {})

    @property
    def cause(self) -> str:
        """The cause, such as `400 invalid_value at tools[12]`; empty without a code."""
        if not self.body or not (code := self.provider_code):
            return ""
        status = f"{self.status} " if self.status else ""
        return f"{status}{code}" + (f" at {place}" if (place := self.place) else "")

    @property
    def named(self) -> str:
        """The class and its cause, as counts of failures name them."""
        return name_failure(self.failure, self.cause)

    @property
    def sentence(self) -> str:
        """The provider's message, in one line; `keep_sentence` cuts it for storage."""
        return _join_lines((error_object(self.body) or {}).get("message"))

    @property
    def provider_words(self) -> ProviderWords:
        """The details that a worker keeps for alerts after the request has ended."""
        return ProviderWords(self.failure, self.cause, self.sentence)

    @property
    def message(self) -> str:
        """The provider's message with code and parameter, or an HTML page's title."""
        return read_message(self.body)

    def kept(self) -> Self:
        """Returns this exception without its traceback, for callers that store it.

        The traceback's frames refer to the request and to this exception: a reference cycle.
        """
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


def read_message(body: bytes) -> str:
    """Returns an error body's message, in one line of at most MAX_MESSAGE characters."""
    error = error_object(body)
    if error is None:
        title = _TITLE.search(body)
        return title[1].decode("utf-8", "replace").strip() if title else ""
    details = [str(error[name]) for name in ("code", "param") if error.get(name)]
    suffix = f" ({', '.join(details)})" if details else ""
    message = _join_lines(error.get("message") or error.get("type"))
    return message[: MAX_MESSAGE - len(suffix)] + suffix if message else ""


def read_code(error: Mapping[str, object]) -> str:
    """Returns the first identifier among code, status and type; empty without one."""
    candidates = (str(error.get(name) or "") for name in ("code", "status", "type"))
    return next((name for name in candidates if _CODE.fullmatch(name)), "")


def read_place(error: Mapping[str, object]) -> str:
    """Returns the place up to its last index, because the client's own names may follow."""
    place = error.get("param") or _read_google_field(error)
    if not isinstance(place, str):
        beginning = _AT_BEGINNING.match(str(error.get("message") or ""))
        place = beginning[0] if beginning else ""
    match = _PLACE.match(place)
    return match[0] if match else ""


def read_reasons(error: Mapping[str, object]) -> list[str]:
    """Returns the reasons in the details of Google's errors, such as `API_KEY_INVALID`."""
    lists = (error.get(name) for name in ("details", "errors"))
    details = (detail for entries in lists if isinstance(entries, list) for detail in entries)
    reasons = (detail.get("reason") for detail in details if isinstance(detail, dict))
    return [str(reason) for reason in reasons if reason]


def _join_lines(text: object) -> str:
    return " ".join(str(text or "").split())


def _read_google_field(error: Mapping[str, object]) -> object:
    match error.get("details"):
        case [*_, {"fieldViolations": [{"field": str(field)}, *_]}] | [
            {"fieldViolations": [{"field": str(field)}, *_]},
            *_,
        ]:
            return field
        case _:
            return None


def error_object(body: bytes) -> Mapping[str, object] | None:
    """Returns the error object of a provider's answer; None for other bodies, such as a
    firewall's page.

    It reads the shapes of OpenAI and Anthropic (`error`), older vLLM (the bare object), FastAPI
    (`detail`; its path becomes `param`), Mistral (`detail` in a `message`), Ollama (`error` as
    text), Google (a list), Cloudflare (`errors`) and gateways (`message`).
    """
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match parsed:
        case [dict(first)] | {"errors": [dict(first), *_]}:
            return _unwrap_error(first)
        case _:
            return _unwrap_error(parsed)


def _unwrap_error(parsed: Any) -> Mapping[str, object] | None:
    match parsed:
        case (
            {"error": {"metadata": {"raw": str(raw)}}}
            | {"error": {"message": str(raw)}}
            | {"message": str(raw)}
        ) if raw[:1] == "{" and (inner := error_object(raw.encode())):
            # A gateway wraps the error of its own provider.
            return inner
        case {"error": dict(error)}:
            return dict(error)
        case {"error": str(message)} | {"detail": str(message)}:
            return {**parsed, "message": message}
        case {"detail": [dict(first), *_]} | {"message": {"detail": [dict(first), *_]}}:
            place = first.get("loc")
            steps = [str(step) for step in place] if isinstance(place, list) else []
            param = ".".join(steps[1:] if steps[:1] == ["body"] else steps) or None
            message = f"{param}: {first.get('msg')}"
            return {
                "message": message,
                "type": first.get("type"),
                "param": param,
            }
        case {"message": str()}:
            return dict(parsed)
        case _:
            return None


def refused_request(error: Untranslatable) -> UpstreamFailed:
    """Builds the router's own failure, a 422, for a request that it cannot translate."""
    message = f"{error.message}; leave it out, or ask another route"
    body = error_body(message, "invalid_request_error", error.code, param=error.param)
    failure = UpstreamFailed(
        FailureClass.BAD_REQUEST,
        error.message,
        status=422,
        body=body,
    )
    failure.local = True
    failure.unable = is_unable(error)
    failure.names_foreign_item = isinstance(error, ForeignReference)
    return failure
