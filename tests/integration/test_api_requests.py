import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import get_args
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import BaseModel
from pydantic_core import core_schema
from structlog.testing import capture_logs

from harness.frame.errors import StoreUnavailable
from harness.frame.suggestions import describe_fault
from tests.support.control.known_secrets import SECRET
from tests.support.site.management_api import (
    Door,
    awaiting_approval,
    error_of,
    served,
)

WISH = {"route": "chat", "candidate": "sim/better"}


@pytest.fixture
def door(careful: Door) -> Door:
    return careful


def test_several_candidates_are_proposed_in_one_request(door: Door) -> None:
    first = door.post("/proposals", {**WISH, "rivals": ["sim/good", "sim/equal"]})

    made = door.get("/proposals")["items"]

    assert {proposal["selection"] for proposal in made} == {first["selection"]}
    assert sorted(proposal["place"] for proposal in made) == [0, 1, 2]
    too_many = door.send("POST", "/proposals", json={**WISH, "rivals": ["sim/good"] * 10})
    assert too_many.status_code == 422


@pytest.mark.req("F5")
def test_the_api_refuses_an_approval_between_keys_that_one_person_made(door: Door) -> None:
    tokens = {
        name: door.post("/keys", {"name": name, "role": role})["text"]
        for name, role in (("amy", "proposer"), ("bea", "approver"))
    }
    sent = {name: {"authorization": f"Bearer {token}"} for name, token in tokens.items()}
    made = door.post("/proposals", WISH, role=None, headers=sent["amy"])
    path = f"/proposals/{made['id']}/approve"
    door.world.until_decided(made["id"])

    answer = door.send("POST", path, json={}, role=None, headers=sent["bea"])

    error = error_of(answer, 403)
    assert error["type"] == "NotAllowed"
    assert "took part in creating both keys within the last 30 days" in error["message"]
    assert "--principal bea" in error["message"]
    assert door.get(f"/proposals/{made['id']}")["approver"] is None


def test_an_approval_is_for_the_verdict_that_was_seen(door: Door) -> None:
    waiting = awaiting_approval(door.world)
    path = f"/proposals/{waiting.id}/approve"

    other = door.send(
        "POST",
        path,
        role="approver",
        json={"verdict": "v_other"},
    )
    assert error_of(other, 409)["type"] == "StaleWrite"
    assert door.get(f"/proposals/{waiting.id}")["approver"] is None

    seen = {"verdict": waiting.verdict}
    assert door.post(path, seen, role="approver")["approved_verdict"] == waiting.verdict
    again = door.send(
        "POST",
        path,
        role="admin",
        json=seen,
    )
    assert error_of(again, 409)["type"] == "Conflict"


def test_an_expired_proof_is_a_conflict_and_not_a_matter_of_roles(door: Door) -> None:
    waiting = awaiting_approval(door.world)
    door.world.clock.advance(15 * 86_400)
    answer = door.send("POST", f"/proposals/{waiting.id}/approve", role="approver")
    assert error_of(answer, 409)["type"] == "ProofRefused"


def test_an_event_that_the_table_does_not_have_is_a_conflict(door: Door) -> None:
    made = door.post("/proposals", WISH, role="proposer")
    early = door.send("POST", f"/proposals/{made['id']}/approve", role="approver")
    assert error_of(early, 409)["type"] == "IllegalTransition"


WRONG = (
    ("/proposals", {**WISH, "weight": 3}, "body.weight"),
    ("/proposals", {"route": "chat"}, "body.candidate"),
    ("/proposals", {**WISH, "claim": "better"}, "body.claim"),
    ("/proposals", {**WISH, "margin": 1}, "body.margin"),
    ("/proposals", [WISH], "body"),
    ("/proposals", "text", "body"),
    ("/proposals", None, "body"),
    (
        "/routes",
        {
            "name": "x",
            "incumbent": "sim/base",
            "suites": ["a"],
        },
        "body.suites.0",
    ),
    (
        "/evals",
        {
            "suite": "colours",
            "target": "sim/base",
            "items": 0,
        },
        "body.items",
    ),
    (
        "/evals",
        {
            "suite": "colours",
            "target": "sim/base",
            "items": 2**40,
        },
        "body.items",
    ),
    ("/keys", {"name": "x", "role": "root"}, "body.role"),
    ("/models", {"provider": "sim", "model": ""}, "body.model"),
    ("/canaries/chat/pause", {"reason": "r", "why": "x"}, "body.why"),
)


def test_what_is_wrong_in_a_body_or_a_query_is_refused_with_its_place(door: Door) -> None:
    for path, body, place in WRONG:
        error = error_of(door.send("POST", path, json=body), 422)
        assert error["type"] == "InputError", body
        assert error["message"].startswith(place), body
    for query in ("limit=0", "limit=100000", "lmit=3"):
        place = "query." + query.partition("=")[0]
        answer = door.send("GET", f"/proposals?{query}")
        assert error_of(answer, 422)["message"].startswith(place)
    for path in ("/routes/a%00b", "/models?limit=1%00", "/evals/%00"):
        assert error_of(door.send("GET", path), 422)["type"] == "InputError"


def test_a_refusal_does_not_repeat_what_was_sent(door: Door) -> None:
    answer = door.send("POST", "/keys", json={"name": "x", "role": "sk-live-abcdef"})
    assert answer.status_code == 422
    assert "abcdef" not in answer.text


HOSTILE = {
    "NaN": b'{"provider": "sim", "model": "m", "parameters": {"top_p": NaN}}',
    "infinity": b'{"provider": "sim", "model": "m", "parameters": {"top_p": 1e999}}',
    "margin": b'{"route": "chat", "candidate": "sim/better", "margin": NaN}',
    "half a character": b'{"provider": "sim", "model": "\\ud800"}',
    "NUL": b'{"provider": "sim", "model": "a\\u0000b"}',
    "NUL in a key": b'{"provider": "sim", "model": "m", "parameters": {"\\u0000": 1}}',
    "cut": b'{"provider": "sim"',
    "not UTF-8": b'{"provider": "\xff"}',
    "deep": b'{"provider": "sim", "model": "m", "parameters": {"a": %s%s}}'
    % (b"[" * 10_000, b"]" * 10_000),
    "rather deep": b'{"provider": "sim", "model": "m", "parameters": {"a": %s%s}}'
    % (b"[" * 200, b"]" * 200),
    "endless number": b'{"provider": "sim", "model": "m", "parameters": {"a": %s}}'
    % (b"9" * 5000),
}


def test_a_body_that_no_database_could_keep_is_refused(door: Door) -> None:
    before = door.get("/models")
    for name, content in HOSTILE.items():
        answer = door.send(
            "POST",
            "/proposals" if name == "margin" else "/models",
            content=content,
            headers={"content-type": "application/json"},
        )
        assert error_of(answer, 422)["type"] == "InputError", name
    assert door.get("/models") == before


def test_json_under_another_name_is_refused(door: Door) -> None:
    answer = door.send("POST", "/models", content=b'{"provider": "sim", "model": "m"}')
    assert error_of(answer, 422)["type"] == "InputError"


def test_an_unknown_name_brings_the_nearest(door: Door) -> None:
    assert "'chat'" in error_of(door.send("GET", "/routes/chta"), 404)["message"]


def test_an_unknown_key_or_word_brings_the_nearest_and_repeats_no_value(door: Door) -> None:
    """As in the configuration file."""
    route = {"name": "mail", "incumbent": "sim/base"}
    wrong: tuple[tuple[str, str, object, str], ...] = (
        (
            "POST",
            "/proposals",
            {**WISH, "claim": "superor"},
            "body.claim: unknown word; did you",
        ),
        (
            "POST",
            "/proposals",
            {**WISH, "polcy": 1},
            "body.polcy: unknown key; known here: route,",
        ),
        (
            "POST",
            "/routes",
            {**route, "suits": []},
            "unknown key; did you mean 'suites'?",
        ),
        (
            "POST",
            "/routes",
            {"name": "m", "primary": "x"},
            "did you mean 'incumbent'?",
        ),
        (
            "GET",
            "/proposals?rute=chat",
            None,
            "query.rute: unknown key; did you mean 'route'?",
        ),
        (
            "PUT",
            "/providers/x",
            {"apiBas": "secret"},
            "did you mean 'apiBase'?",
        ),
        (
            "PUT",
            "/providers/x",
            {"kind": "opnai"},
            "unknown kind 'opnai'; did you mean",
        ),
        (
            "POST",
            "/routes",
            {**route, "suites": "x"},
            "body.suites: a list is needed",
        ),
        (
            "POST",
            "/proposals",
            {},
            "body.route: is missing; body.candidate: is missing",
        ),
    )
    for method, path, body, hint in wrong:
        message = error_of(door.send(method, path, json=body), 422)["message"]
        assert hint in message, message
        assert not any(word in message for word in ("superor", "secret", "Extra inputs"))


def test_every_fault_that_our_models_can_have_is_said_in_our_own_words() -> None:
    used = set(_core_types([kind.__pydantic_core_schema__ for kind in _models(BaseModel)]))
    used.discard("default")
    begins = {{"str": "string", "is-instance": "is_instance"}.get(kind, kind) for kind in used}
    always = (
        "greater_than",
        "less_than",
        "too_short",
        "too_long",
        "finite_number",
    )
    faults = [
        fault
        for fault in get_args(core_schema.ErrorType)
        if fault == "missing"
        or fault.startswith(tuple(f"{b}_" for b in begins))
        or fault.startswith(always)
    ]
    assert {"tuple_type", "float_parsing", "union_tag_invalid"} <= set(faults)
    about = (
        "min_length",
        "max_length",
        "pattern",
        "gt",
        "ge",
        "lt",
        "le",
        "class",
    )
    ctx = dict.fromkeys((*about, "expected", "expected_tags", "discriminator", "tag"), "'x'")
    for fault in faults:
        found = {
            "type": fault,
            "msg": "Input should be",
            "input": "",
            "ctx": ctx,
        }
        assert "Input should be" not in describe_fault(found, (), {}), fault


def _models(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for below in kind.__subclasses__():
        if below.__module__.startswith("harness."):
            yield below
        yield from _models(below)


def _core_types(schema: object) -> Iterator[str]:
    """Yields the types of a pydantic core schema's nodes."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema["type"]
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for inner in schema:
            yield from _core_types(inner)


def test_unknown_paths_and_methods_have_the_same_shape(door: Door) -> None:
    assert error_of(door.send("GET", "/nothing"), 404)["type"] == "NotFound"
    assert error_of(door.send("PATCH", "/routes"), 405)["type"] == "MethodNotAllowed"
    assert error_of(door.send("GET", "/routes/"), 404)["type"] == "NotFound"


def test_a_database_that_is_away_means_try_again_later(door: Door) -> None:
    def away() -> None:
        raise StoreUnavailable("the database did not answer: try again in a moment")

    door.world.store.read = away  # type: ignore[assignment,method-assign]
    answer = door.send("GET", "/routes")
    error = error_of(answer, 503)
    assert (error["type"], error["retryable"]) == ("StoreUnavailable", True)
    assert int(answer.headers["retry-after"]) > 0


def test_an_unforeseen_fault_shows_an_id_that_the_log_has_and_nothing_else(door: Door) -> None:
    def broken() -> None:
        raise RuntimeError("password=hunter2")

    door.world.store.read = broken  # type: ignore[assignment,method-assign]
    with capture_logs() as logs:
        answer = door.send("GET", "/routes")

    error = error_of(answer, 500)
    assert error["type"] == "InternalError"
    assert "hunter2" not in answer.text
    assert logs[-1]["id"] in error["message"]


def test_answers_are_never_stored_or_sniffed(door: Door) -> None:
    for path in ("/routes", "/nothing", "//healthz"):
        headers = door.send("GET", path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


def test_no_answer_has_a_key_or_a_hash(door: Door) -> None:
    awaiting_approval(door.world)
    with door.world.store.listings() as stored:
        page = stored.keys()
    hashes = [key.hash for key in page]
    for path, operations in door.document["paths"].items():
        if "get" in operations and "{" not in path:
            text = door.send("GET", path.removeprefix("/api/v1")).text
            for secret in (
                *door.keys.values(),
                *hashes,
                SECRET.decode(),
            ):
                assert secret not in text


@pytest.mark.both_databases
@pytest.mark.parametrize("model", ["日本語", "a'b\"c;--", "a b/c#d?e", "%41", "../x"])
def test_any_text_comes_back_as_it_went_in(model: str, door: Door) -> None:
    wish = {
        "provider": "sim",
        "model": model,
        "parameters": {"n": 1e300},
    }
    added = door.post("/models", wish)
    assert added["model"] == model
    assert "lists no models" in added.pop("unlisted")
    assert door.get(f"/models/{added['id']}") == added


@pytest.fixture
def http_(door: Door) -> Iterator[httpx.Client]:
    key = {"authorization": f"Bearer {door.keys['admin']}"}
    with (
        served(door.app) as address,
        httpx.Client(base_url=f"{address}/api/v1", headers=key, timeout=60) as client,
    ):
        yield client


def test_of_many_proposals_at_once_one_opens_and_the_others_are_told_which(
    http_: httpx.Client,
) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http_.post("/proposals", json=WISH), range(8)))

    [made] = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    refused = [answer.json()["error"] for answer in answers if answer.status_code == 409]
    assert len(refused) == 7
    for error in refused:
        assert (error["type"], error["retryable"]) == ("RouteBusy", False)
        assert made in error["message"]


def test_a_body_that_lies_about_its_end_is_cut_at_the_limit(
    door: Door, http_: httpx.Client
) -> None:
    where = urlsplit(str(http_.base_url))
    raw = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    raw.putrequest("POST", "/api/v1/models")
    raw.putheader("authorization", f"Bearer {door.keys['admin']}")
    raw.putheader("content-type", "application/json")
    raw.putheader("content-length", str(2**40))
    raw.endheaders()

    answer = raw.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["type"] == "BodyTooLarge"
    raw.close()


def test_failures_are_counted_by_the_real_address_whatever_a_caller_says(
    http_: httpx.Client,
) -> None:
    def guess(number: int) -> httpx.Response:
        headers = {
            "authorization": "Bearer wrong",
            "x-forwarded-for": f"10.0.0.{number}",
        }
        return http_.get("/routes", headers=headers)

    answers = [guess(number) for number in range(12)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    assert answers[-1].headers["retry-after"] == "1"
