from datetime import date

import pytest

from harness.frame.failures import FailureClass
from harness.providers.calls.probe import ProbeReply
from harness.providers.models.model_ends import ModelEnd
from harness.providers.registry.target_life import KnownFacts, LifeState, judge_life
from router.protocols.provider_failures import classify_reply

pytestmark = pytest.mark.req("F4", "F11")

ALIVE, GONE, UNSURE = LifeState
NOTHING = KnownFacts()
ANSWER = ProbeReply(200, 0.1, first_s=0.2)
LIMITED = ProbeReply(
    429,
    0.1,
    error="429: slow down",
    failure=FailureClass.RATE_LIMITED,
)
SILENT = ProbeReply(None, 5.0, error="it does not answer: timed out")
ENDED = KnownFacts(ended=ModelEnd(date(2026, 1, 2), "the model catalogue"))
UNLISTED = KnownFacts(unlisted=date(2026, 1, 2))
REPORTED = KnownFacts(refused="routers report that its provider does not know the model")
OPEN = KnownFacts(shut="routers opened its circuit")


def reply(status: int, failure: FailureClass | None) -> ProbeReply:
    return ProbeReply(
        status,
        0.1,
        error=f"{status}: a text",
        failure=failure,
    )


@pytest.mark.parametrize(
    ("facts", "came", "state", "why"),
    [
        (NOTHING, ANSWER, ALIVE, ""),
        (NOTHING, None, UNSURE, "could not ask"),
        # Refusals that last.
        (
            NOTHING,
            reply(404, FailureClass.MODEL_UNKNOWN),
            GONE,
            "does not know the model",
        ),
        (
            NOTHING,
            reply(400, FailureClass.MODEL_UNKNOWN),
            GONE,
            "does not know the model",
        ),
        (
            NOTHING,
            reply(200, FailureClass.MODEL_UNKNOWN),
            GONE,
            "does not know the model",
        ),
        (
            NOTHING,
            reply(404, None),
            GONE,
            "does not know the model (404: a text)",
        ),
        (
            NOTHING,
            reply(410, FailureClass.BAD_REQUEST),
            GONE,
            "does not know the model",
        ),
        (NOTHING, reply(401, FailureClass.OUR_KEY), GONE, "refuses our key"),
        (
            NOTHING,
            reply(403, FailureClass.QUOTA),
            GONE,
            "refuses our key (403: a text)",
        ),
        (NOTHING, reply(400, FailureClass.OUR_KEY), GONE, "refuses our key"),
        # Failures that may pass.
        (NOTHING, LIMITED, UNSURE, "429: slow down"),
        (NOTHING, reply(500, FailureClass.SERVER), UNSURE, "500: a text"),
        (
            NOTHING,
            reply(503, FailureClass.OVERLOADED),
            UNSURE,
            "503: a text",
        ),
        (NOTHING, reply(429, FailureClass.QUOTA), UNSURE, "429: a text"),
        (
            NOTHING,
            reply(400, FailureClass.UNSUPPORTED),
            UNSURE,
            "400: a text",
        ),
        (NOTHING, reply(200, FailureClass.EMPTY), UNSURE, "200: a text"),
        (NOTHING, SILENT, UNSURE, "timed out"),
        # An answer does not outweigh these facts.
        (ENDED, ANSWER, GONE, "it ended on 2026-01-02"),
        (KnownFacts(no_key=True), None, GONE, "its provider has no key"),
        (KnownFacts(removed=True), None, GONE, "its provider was removed"),
        # An answer outweighs what routers reported minutes ago, and a missing entry in a list.
        (REPORTED, ANSWER, ALIVE, ""),
        (REPORTED, LIMITED, GONE, "routers report"),
        (REPORTED, None, GONE, "routers report"),
        (UNLISTED, ANSWER, ALIVE, ""),
        (
            UNLISTED,
            LIMITED,
            UNSURE,
            "429: slow down; its provider has not listed it since",
        ),
        (UNLISTED, None, GONE, "has not listed it since 2026-01-02"),
        # An open circuit is a warning.
        (
            OPEN,
            ANSWER,
            UNSURE,
            "it answers the check, but routers opened its circuit",
        ),
        (
            OPEN,
            LIMITED,
            UNSURE,
            "429: slow down; routers opened its circuit",
        ),
        (
            KnownFacts(unreadable_key=True),
            None,
            UNSURE,
            "cannot read its provider's key",
        ),
    ],
)
def test_lasting_facts_end_a_target_and_passing_failures_leave_a_doubt(
    facts: KnownFacts,
    came: ProbeReply | None,
    state: LifeState,
    why: str,
) -> None:
    found, reason = judge_life(facts, came)

    assert found is state
    assert why in reason
    assert bool(reason) is (state is not ALIVE)


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (200, b'{"choices": []}', None),
        (200, b'{"error": null, "output": []}', None),
        (
            200,
            b'{"error": {"code": "model_not_found"}}',
            FailureClass.MODEL_UNKNOWN,
        ),
        (200, b"<html>", FailureClass.MALFORMED),
        (200, b"", FailureClass.MALFORMED),
        (
            404,
            b'{"error": {"code": "model_not_found"}}',
            FailureClass.MODEL_UNKNOWN,
        ),
        (
            400,
            b'{"error": {"code": "model_not_found"}}',
            FailureClass.MODEL_UNKNOWN,
        ),
        (404, b"", FailureClass.ENDPOINT_MISSING),
        (529, b"", FailureClass.OVERLOADED),
    ],
)
def test_a_whole_reply_has_the_class_that_the_router_gives_it(
    status: int,
    body: bytes,
    failure: FailureClass | None,
) -> None:
    assert classify_reply(status, body) is failure
