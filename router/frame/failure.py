"""An upstream failure is an attempt at a provider without a usable answer."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

from harness.frame.errors import UpstreamError
from harness.frame.failures import FailureClass, name_failure
from router.frame.replies import error_body

REFERENCE: Final = "`item_reference`"
# What a client does that has a conversation kept at its provider.
SEND_ALL: Final = (
    "send the whole history as `input`, with `store: false` "
    "(Vercel's SDK: providerOptions.openai.store)"
)


class Untranslatable(Exception):
    """Signals what has no counterpart there. param: the field, None where it is unknown."""

    code = "not_supported_by_target"

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class MalformedRequest(Untranslatable):
    """The request is valid in no protocol: OpenAI refuses it too. param: as a path."""

    code = "invalid_value"

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"`{param}` {why}", param)


def no_chat_error(what: str, param: str) -> Untranslatable:
    """Builds the error. what: as the client wrote it. param: the field that it is in."""
    return Untranslatable(f"{what} cannot be said in the protocol of the route's target", param)


def reference_error() -> Untranslatable:
    return Untranslatable(f"{REFERENCE} names what another provider keeps: {SEND_ALL}", "input")


def untranslatable_error(held: str) -> Untranslatable:
    """Builds the error. held: a field in backquotes, else a tool."""
    if held == REFERENCE:
        return reference_error()
    return no_chat_error(held, held.strip("`") if held.startswith("`") else "tools")


# Of a provider's sentence, in lists of attempts, alerts and reports.
MAX_SAID: Final = 300
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{1,63}")
# `tools[12]`, `messages.1.content.0`, `temperature`.
_PLACE: Final = re.compile(r"[a-zA-Z_]{1,40}(?:[\w.\[\]]{0,80}(?:\d\]|\.\d{1,6}(?!\w)))?")
# Anthropic's place of an error: its sentence begins with it.
_AT_BEGINNING: Final = re.compile(r"[a-z_]+(?:\.\w+)*(?=: )")
_TITLE: Final = re.compile(rb"<title>([^<]{1,200})</title>", re.IGNORECASE)


class ProviderWords(NamedTuple):
    """Holds what a provider said of a failure, without the request that its exception keeps."""

    failure: FailureClass
    cause: str
    sentence: str


class UpstreamFailed(UpstreamError):
    """An attempt without a usable answer. detail: without secrets and content. stale: a
    connection that had served before ended without a word, most likely closed as idle. local:
    the provider was not asked.
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
        self.detail = detail
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers: Mapping[str, str] = headers or {}
        self.stale = stale
        self.local = False

    @property
    def provider_code(self) -> str:
        """The provider's code of its refusal, in fixed words; empty for none."""
        return read_code(error_object(self.body) or {})

    @property
    def place(self) -> str:
        """Where in the request the provider finds fault: `tools[12]`; empty for nowhere."""
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
        return name_failure(self.failure, self.cause)

    @property
    def sentence(self) -> str:
        """The provider's own sentence, in one line; `keep_sentence` cuts it for storing."""
        return _one_line((error_object(self.body) or {}).get("message"))

    @property
    def provider_words(self) -> ProviderWords:
        return ProviderWords(self.failure, self.cause, self.sentence)

    @property
    def message(self) -> str:
        """The provider's sentence with code and parameter, or a page's title."""
        return read_message(self.body)

    def kept(self) -> Self:
        """Itself, for whoever keeps what was caught, without the frames that it came through.

        Their variables hold the whole request, and this failure: a cycle for each attempt.
        """
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


def read_message(body: bytes) -> str:
    """Returns what an error body says, in one line of at most MAX_SAID characters."""
    error = error_object(body)
    if error is None:
        title = _TITLE.search(body)
        return title[1].decode("utf-8", "replace").strip() if title else ""
    named = [str(error[name]) for name in ("code", "param") if error.get(name)]
    beside = f" ({', '.join(named)})" if named else ""
    message = _one_line(error.get("message") or error.get("type"))
    return message[: MAX_SAID - len(beside)] + beside if message else ""


def read_code(error: Mapping[str, object]) -> str:
    """Returns the code, else the status in words, else the type; empty for free words."""
    named = (str(error.get(name) or "") for name in ("code", "status", "type"))
    return next((name for name in named if _CODE.fullmatch(name)), "")


def read_place(error: Mapping[str, object]) -> str:
    """Returns the place up to its last number: a client's own names stand behind it."""
    named = error.get("param") or _field_of(error)
    if not isinstance(named, str):
        said = _AT_BEGINNING.match(str(error.get("message") or ""))
        named = said[0] if said else ""
    found = _PLACE.match(named)
    return found[0] if found else ""


def _one_line(text: object) -> str:
    return " ".join(str(text or "").split())


def _field_of(error: Mapping[str, object]) -> object:
    match error.get("details"):
        case [*_, {"fieldViolations": [{"field": str(field)}, *_]}] | [
            {"fieldViolations": [{"field": str(field)}, *_]},
            *_,
        ]:
            return field
        case _:
            return None


def error_object(body: bytes) -> Mapping[str, object] | None:
    """The error object of a provider's answer: OpenAI's and Anthropic's `error`, the object
    alone of older versions of vLLM, FastAPI's `detail` with the path as `param` (Mistral's in
    a `message`), Ollama's `error` as text, Google's list of one, Cloudflare's `errors`, a
    gateway's `message`. None for what is not a provider's error, such as a firewall's page.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match found:
        case [dict(first)] | {"errors": [dict(first), *_]}:
            return _inner_error(first)
        case _:
            return _inner_error(found)


def _inner_error(found: Any) -> Mapping[str, object] | None:
    match found:
        case {"error": {"metadata": {"raw": str(raw)}}} if raw[:1] == "{":
            # OpenRouter's, of the provider behind it.
            return error_object(raw.encode())
        case {"error": dict(error)}:
            return dict(error)
        case {"error": str(said)} | {"detail": str(said)}:
            return {**found, "message": said}
        case {"detail": [dict(first), *_]} | {"message": {"detail": [dict(first), *_]}}:
            place = first.get("loc")
            steps = [str(step) for step in place] if isinstance(place, list) else []
            param = ".".join(steps[1:] if steps[:1] == ["body"] else steps) or None
            message = f"{param}: {first.get('msg')}"
            return {"message": message, "type": first.get("type"), "param": param}
        case {"message": str()}:
            return dict(found)
        case _:
            return None


def refused_request(why: Untranslatable) -> UpstreamFailed:
    words = f"{why.message}; leave it out, or ask another route"
    body = error_body(words, "invalid_request_error", why.code, param=why.param)
    failed = UpstreamFailed(FailureClass.BAD_REQUEST, why.message, status=422, body=body)
    failed.local = True
    return failed
