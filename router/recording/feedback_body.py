"""Reads and checks the body of `POST /v1/feedback`: a request's id with a thumb, a score or a
label. A thumb down or a score below 0.5 is a bad verdict, a label alone is none. Also names
what may become of feedback (`FeedbackOutcome`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from harness.domain.errors import InputError
from router.frame.body import FieldError
from router.frame.json_spans import parse_object

MAX_BODY_BYTES: Final = 16 * 1024
MAX_LABEL: Final = 64
# A score below it is as bad as a thumb down.
GOOD_FROM: Final = 0.5
FIELDS: Final = ("request_id", "thumb", "score", "label")


class FeedbackVerdict(StrEnum):
    GOOD = "good"
    BAD = "bad"
    NONE = "none"  # a label alone


class FeedbackOutcome(StrEnum):
    COUNTED = "counted"
    LATE = "late"  # its block is in the database already
    NOT_SCORED = "not_scored"  # no canary, or not of those that count for one


class FeedbackBody(NamedTuple):
    request_id: str
    verdict: FeedbackVerdict
    label: str  # a word of the caller's own; empty for none

    @property
    def worker(self) -> str:
        """Names the worker that served the request; empty for what is no id of ours."""
        return self.request_id.removeprefix("req_").rpartition("-")[0]


def read_feedback(body: bytes) -> FeedbackBody:
    """Reads a feedback's body. Raises InputError, with the field's name where there is one."""
    members = parse_object(body)
    for name in members.values:
        if name not in FIELDS:
            raise FieldError(name, f"unknown field; known: {', '.join(FIELDS)}")
    request_id, label = members.get("request_id"), members.get("label")
    if not isinstance(request_id, str) or not request_id:
        raise FieldError("request_id", "must be the answer's x-swapgate-request-id")
    if label is not None and not (
        isinstance(label, str) and 0 < len(label) <= MAX_LABEL and label.isprintable()
    ):
        raise FieldError("label", f"must be 1 to {MAX_LABEL} printable characters")
    given = {name: members.get(name) for name in ("thumb", "score")}
    if label is None and all(value is None for value in given.values()):
        raise InputError("needs a thumb, a score or a label")
    return FeedbackBody(request_id, _verdict(given), str(label or ""))


def _verdict(given: Mapping[str, object]) -> FeedbackVerdict:
    thumb, score = given["thumb"], given["score"]
    if thumb not in (None, "up", "down"):
        raise FieldError("thumb", 'must be "up" or "down"')
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not 0.0 <= score <= 1.0
    ):
        raise FieldError("score", "must be a number from 0 to 1")
    if thumb == "down" or (isinstance(score, int | float) and score < GOOD_FROM):
        return FeedbackVerdict.BAD
    return FeedbackVerdict.NONE if thumb is None and score is None else FeedbackVerdict.GOOD
