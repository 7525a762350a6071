"""The live runs' counting: what harms a user, and who stopped the candidate."""

import json

import pytest

from benchmarks.canary.sent_requests import Harm, Kind, SentRequest, harm_in
from benchmarks.canary.wrong import by_whom, harm_of, slow_s


def answer(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def sent_request(seconds: float, harm: Harm | None = None) -> SentRequest:
    return SentRequest("chat", Kind.PLAIN, 100.0, 100.0 + seconds, "incumbent", "w", harm)


WHOLE = b'data: {"choices":[{"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("kind", "status", "body", "harm"),
    [
        (Kind.PLAIN, 200, answer("hello"), None),
        (Kind.PLAIN, 502, answer("hello"), Harm.ERROR),
        (Kind.PLAIN, 200, answer(""), Harm.ERROR),
        (Kind.PLAIN, 200, b"<html>", Harm.ERROR),
        (Kind.JSON, 200, answer('{"colour": "red", "count": 2}'), None),
        (Kind.JSON, 200, answer('{"colour": "red"'), Harm.JSON),
        (Kind.JSON, 200, answer('{"Colour": "red", "Count": 2}'), Harm.JSON),
        (Kind.STREAM, 200, WHOLE, None),
        (Kind.STREAM, 200, b'data: {"error": {"message": "broke off"}}\n\n', Harm.CUT),
    ],
)
def test_who_did_not_get_what_was_asked_for_is_harmed(
    kind: Kind, status: int, body: bytes, harm: Harm | None
) -> None:
    assert harm_in(kind, status, body) is harm


def test_an_answer_is_slow_beyond_one_and_a_half_of_the_controls_median() -> None:
    limits = slow_s([sent_request(0.1), sent_request(0.2), sent_request(5.0)])

    assert harm_of(sent_request(0.29), limits) == ""
    assert harm_of(sent_request(0.31), limits) == "slow"
    assert harm_of(sent_request(9.0, Harm.CUT), limits) == "cut stream"


def test_a_rollback_is_the_guards_or_the_loops() -> None:
    assert by_whom("A router's own guard stopped the canary. Worker …") == "a worker's guard"
    assert by_whom("The canary fails more often; evidence of harm …") == "control loop"
    assert by_whom("") == "nobody"
