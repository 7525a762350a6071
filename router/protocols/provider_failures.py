"""Classifies a provider's failure by status and error body, for all providers.

The first row of `REFUSALS` that fits status and body gives the class and how far the failure
reaches. If no row fits, `BY_STATUS` gives both by the status alone. How the router reacts to a
class, and its usual reach, are in `harness.frame.failures`. Messages of one provider belong
into `provider_refusals` or `provider_limits`, not here.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from harness.frame.failures import FailureClass, Reach
from router.frame.failure import UpstreamFailed, error_object, read_reasons
from router.protocols.answers import (
    BROKEN_CALL,
    describe_failed_ending,
    ending_failure,
    parse_json,
)
from router.protocols.provider_limits import LIMITS
from router.protocols.provider_refusals import (
    CAUSES,
    CLIENT_STATUSES,
    GOOD_STATUSES,
    Piece,
    RefusalRow,
)

_F = FailureClass
REFUSALS: Final = (*CAUSES, *LIMITS)


class Refusal(NamedTuple):
    """The class of a refusal. reach: None for the class's default."""

    failure: FailureClass
    reach: Reach | None = None


# Classes if no row fits. A 404 with a message: an object in the request does not exist.
BY_STATUS: Final[Mapping[int, Refusal]] = {
    401: Refusal(_F.OUR_KEY),
    402: Refusal(_F.QUOTA),
    # Most often, the key may not use this model.
    403: Refusal(_F.QUOTA, Reach.KEY_AND_MODEL),
    404: Refusal(_F.FOREIGN_STATE),
    405: Refusal(_F.ENDPOINT_MISSING),
    408: Refusal(_F.TIMEOUT),
    410: Refusal(_F.MODEL_UNKNOWN),  # a retired model
    424: Refusal(_F.ABORTED),  # TGI and Bedrock: the model failed
    429: Refusal(_F.RATE_LIMITED),
    498: Refusal(_F.OVERLOADED),  # Groq
    499: Refusal(_F.ABORTED),  # Cohere
    501: Refusal(_F.ENDPOINT_MISSING),
    503: Refusal(_F.OVERLOADED),
    529: Refusal(_F.OVERLOADED),
}
# Classes without an error body: a proxy or the provider's web server answered.
WITHOUT_WORDS: Final[Mapping[int, FailureClass]] = {
    401: _F.BLOCKED,
    403: _F.BLOCKED,
    404: _F.ENDPOINT_MISSING,
    406: _F.BLOCKED,
    410: _F.MODEL_UNKNOWN,
}
# The statuses that tell a client to try again later. The client gets the provider's status if
# it is listed, else the first listed one.
LATER_STATUSES: Final[Mapping[FailureClass, tuple[int, ...]]] = {
    _F.RATE_LIMITED: (429,),
    _F.OVERLOADED: (503, 529),
}
# Classes of an error in an answer with status 200: Anthropic's types, OpenAI's codes and types.
IN_ANSWER: Final[Mapping[str, FailureClass]] = {
    "insufficient_quota": _F.QUOTA,
    "model_not_found": _F.MODEL_UNKNOWN,
    "context_length_exceeded": _F.CONTEXT_WINDOW,
    "content_policy_violation": _F.CONTENT_POLICY,
    "content_filter": _F.CONTENT_POLICY,
    "authentication_error": _F.OUR_KEY,
    "billing_error": _F.QUOTA,
    "not_found_error": _F.MODEL_UNKNOWN,
    "rate_limit_error": _F.RATE_LIMITED,
    "rate_limit_exceeded": _F.RATE_LIMITED,
    "overloaded_error": _F.OVERLOADED,
    "api_error": _F.SERVER,
    "server_error": _F.SERVER,
    "timeout_error": _F.TIMEOUT,
    "invalid_prompt": _F.CONTENT_POLICY,
    "bio_policy": _F.CONTENT_POLICY,
    "cyber_policy": _F.CONTENT_POLICY,
    "image_content_policy_violation": _F.CONTENT_POLICY,
    **dict.fromkeys(
        (
            "empty_image_file",
            "failed_to_download_image",
            "image_file_not_found",
            "image_file_too_large",
            "image_parse_error",
            "image_too_large",
            "image_too_small",
            "invalid_base64_image",
            "invalid_image",
            "invalid_image_format",
            "invalid_image_mode",
            "invalid_image_url",
            "unsupported_image_media_type",
        ),
        _F.BAD_REQUEST,
    ),
}
# Statuses for error types in such an answer; other errors have the status as their code.
_STATUS_BY_TYPE: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "permission_error": 403,
    "request_too_large": 413,
}
_STATUS_CODE: Final = re.compile("[45][0-9]{2}")
# For these statuses, the message may name another cause than the status (`REFUSALS`).
_ROW_STATUSES: Final = frozenset(
    status for row in REFUSALS if row.statuses is not CLIENT_STATUSES for status in row.statuses
)


def error_codes(error: Mapping[str, object]) -> set[str]:
    """Returns the values of all members that may have an error's code."""
    codes = {str(error.get(name)) for name in ("code", "type", "status", "error_code")}
    return codes.union(read_reasons(error))


def refusal_row(error: Mapping[str, object], status: int) -> RefusalRow | None:
    """Returns the first row that fits an error; None without one.

    Args:
        error: the result of `error_object`.
    """
    codes = error_codes(error)
    message = str(error.get("message") or "")
    for row in REFUSALS:
        if status not in row.statuses or (row.only_type and error.get("type") != row.only_type):
            continue
        if codes & row.codes or (row.words is not None and row.words.search(message)):
            return row
    return None


def find_refusal(status: int, body: bytes) -> Refusal:
    """Returns the class and the reach of a reply with an error status.

    Args:
        body: may be empty or not JSON.
    """
    refusal = None
    if status in CLIENT_STATUSES or status in _ROW_STATUSES:
        refusal = _refusal_by_body(status, error_object(body))
    refusal = refusal or BY_STATUS.get(status)
    if refusal is not None:
        return refusal
    if status in CLIENT_STATUSES:
        return Refusal(_F.BAD_REQUEST)
    return Refusal(_F.SERVER if status >= 500 else _F.MALFORMED)


def _refusal_by_body(status: int, error: Mapping[str, object] | None) -> Refusal | None:
    """Returns the refusal that an error body shows; None if only the status shows it."""
    if error is None:
        failure = WITHOUT_WORDS.get(status)
        return Refusal(failure) if failure else None
    if status == 403 and _is_flagged(error):
        # OpenRouter's moderation flagged the client's input; our key is fine.
        return Refusal(_F.CONTENT_POLICY)
    row = refusal_row(error, status)
    if row is not None:
        return Refusal(row.failure, row.reach)
    if status == 403 and error.keys() == {"message"}:
        return Refusal(_F.BLOCKED)  # without a code or type, a firewall may have sent the JSON
    return None


def classify_status(status: int, body: bytes) -> FailureClass:
    """Returns the class of a reply with an error status.

    Args:
        body: may be empty or not JSON.
    """
    return find_refusal(status, body).failure


def classify_error(error: object) -> FailureClass:
    """Returns the class of an error inside an answer of status 200.

    Args:
        error: an object or a text.
    """
    return _refusal_in_answer(error).failure


def _refusal_in_answer(error: object) -> Refusal:
    if isinstance(error, str):
        error = {"message": error}  # TGI, Ollama
    if not isinstance(error, Mapping):
        return Refusal(_F.MALFORMED)
    body = json.dumps({"error": error}).encode()
    error_fields = error_object(body) or error
    row = refusal_row(error_fields, 400) or refusal_row(error_fields, 429)
    # A server that has begun an answer has read the request: a half character is its own.
    if row is not None and row.loses is not Piece.HALF_CHARACTER:
        return Refusal(row.failure, row.reach)
    for name in ("code", "type"):
        failure = IN_ANSWER.get(str(error.get(name)))
        if failure is not None:
            return Refusal(failure)
    code = str(error.get("code"))
    status = (
        int(code)
        if _STATUS_CODE.fullmatch(code)
        else _STATUS_BY_TYPE.get(str(error.get("type")))
    )
    return find_refusal(status, body) if status else Refusal(_F.MALFORMED)


def classify_reply(status: int, body: bytes) -> FailureClass | None:
    """Returns the class of a provider's whole reply; None for an answer without an error.

    Args:
        body: may be empty or not JSON if the status is an error.

    An answer that is not a JSON object is malformed.
    """
    if status not in GOOD_STATUSES:
        return classify_status(status, body)
    answer = parse_json(body.decode("utf-8", "replace"))
    if not isinstance(answer, Mapping):
        return _F.MALFORMED
    error = answer.get("error")
    return classify_error(error) if error else None


def refusal_failure(
    status: int,
    body: bytes,
    content_type: str,
    headers: Mapping[str, str] | None = None,
) -> UpstreamFailed:
    """Builds the failure for an error reply.

    Args:
        headers: names in lower case.
    """
    failure, reach = find_refusal(status, body)
    failed = UpstreamFailed(
        failure,
        f"status {status}",
        status=status,
        body=body,
        content_type=content_type,
        headers=headers,
    )
    failed.reach = reach or failed.reach
    return failed


def later_status(failed: UpstreamFailed) -> int:
    """Returns the client's status for a temporary failure: a repetition may succeed."""
    statuses = LATER_STATUSES[failed.failure]
    return failed.status if failed.status in statuses else statuses[0]


def error_in_answer(error: object) -> UpstreamFailed:
    """Builds the failure for an error inside an answer of status 200."""
    failure, reach = _refusal_in_answer(error)
    body = json.dumps({"error": error}).encode()
    failed = UpstreamFailed(failure, "status 200 with an error", body=body)
    failed.reach = reach or failed.reach
    return failed


def check_ending(
    reason: object,
    *,
    has_output: bool,
    silence: bool,
) -> None:
    """Checks a finish reason. Raises UpstreamFailed if the client cannot use the answer."""
    failure = ending_failure(reason, has_output=has_output, silence=silence)
    if failure is not None:
        raise UpstreamFailed(failure, describe_failed_ending(failure, reason))


def _is_flagged(error: Mapping[str, object]) -> bool:
    details = error.get("metadata")
    return isinstance(details, Mapping) and "flagged_input" in details


def check_arguments(texts: Iterable[object]) -> None:
    """Checks complete calls. Raises UpstreamFailed for text that is not a JSON object."""
    for text in texts:
        if isinstance(text, str) and text and not isinstance(parse_json(text), Mapping):
            raise UpstreamFailed(FailureClass.MALFORMED, BROKEN_CALL)
