import json
from pathlib import Path
from typing import Any

import pytest

from harness.frame.alerts.alert import AlertEvent, AlertKind
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Endpoint,
    OptionalFeature,
    dropped_features,
)
from harness.providers.target import Provider, Target
from harness.routing.reliability.repair_memory import KEPT_S
from harness.routing.reliability.request_repair import (
    RepairKind,
    find_repair,
    repair_request,
)
from router.frame.body import read_request
from router.request.needs import remove_fields, used_features
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, CHAT, Door, Place
from tests.support.router.live_router import CANDIDATE, INCUMBENT

pytestmark = pytest.mark.req("B7")
SENT = {
    "model": "m",
    "messages": [],
    "temperature": 0.2,
    "seed": 1,
    "max_tokens": 9000,
}


def repaired(error_: dict[str, Any], sent: dict[str, Any] = SENT) -> dict[str, Any] | None:
    found = find_repair(error_, sent)
    return None if found is None else repair_request(sent, [found])[0]


@pytest.mark.parametrize(
    "error_",
    [
        # OpenAI, with `param`
        {
            "message": "'temperature' does not support 0.2 with this model.",
            "param": "temperature",
        },
        {
            "message": "not with this model",
            "param": "temperature",
            "code": "unsupported_value",
        },
        # Anthropic
        {"message": "temperature: Extra inputs are not permitted"},
        {"message": "`temperature` is deprecated for this model"},
        {"message": "`temperature` and `top_p` cannot both be specified for this model"},
        # Mistral, FastAPI
        {
            "message": "temperature: no",
            "type": "extra_forbidden",
            "param": "temperature",
        },
        # Google
        {"message": 'Unknown name "temperature": Cannot find field.'},
    ],
)
def test_a_hint_that_is_refused_by_name_is_left_out(error_: dict[str, Any]) -> None:
    assert repaired(error_) == {name: SENT[name] for name in SENT if name != "temperature"}


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        (
            "max_tokens is too large: 9000. This model supports at most 4096 tokens",
            4096,
        ),
        (
            "max_tokens: 9000 > 8192, which is the maximum allowed number",
            8192,
        ),
        ("`max_tokens` must be less than or equal to `8192`", 8192),
        (
            "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
            8192,
        ),
        (
            "'max_tokens' is too large: 9000. The window is 4096 (9000 > 4096 - 96)",
            4000,
        ),
        ("Expected a value <= 2048, but got 9000 instead: max_tokens", 2048),
    ],
)
def test_a_limit_above_the_targets_becomes_the_targets(message: str, limit: int) -> None:
    assert repaired({"message": message}) == {**SENT, "max_tokens": limit}


def test_a_limit_below_the_targets_or_under_another_name_is_changed() -> None:
    small = {"max_output_tokens": 1}
    least = (
        "Invalid 'max_output_tokens': below minimum value. Expected a value >= 16, but got 1"
    )
    other = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."

    assert repaired({"message": least}, small) == {"max_output_tokens": 16}
    changed = repaired({"message": other, "param": "max_tokens"})
    assert changed is not None
    assert (changed["max_completion_tokens"], "max_tokens" in changed) == (9000, False)


@pytest.mark.parametrize(
    "error_",
    [
        {"message": "messages: Field required"},
        {
            "message": "Unsupported value: 'user'",
            "param": "messages[0].role",
        },
        {"message": "the role user is not supported"},
        {"message": "tools are not supported", "param": "tools"},
        {
            "message": "Expected a value <= 2 of temperature",
            "param": "temperature",
        },
        {"message": "max_tokens: Field required"},
    ],
)
def test_what_means_something_and_what_is_the_clients_fault_is_not_repaired(
    error_: dict[str, Any],
) -> None:
    assert (
        find_repair(
            error_,
            {
                **SENT,
                "user": "u",
                "tools": [],
            },
        )
        is None
    )


def test_a_repair_changes_only_what_breaks_it() -> None:
    found = find_repair({"message": "max_tokens: 9000 > 8192, the maximum"}, SENT)

    assert found is not None
    assert (found.kind, found.limit) == (RepairKind.AT_MOST, 8192)
    assert repair_request({"max_tokens": 5}, [found]) == (
        {"max_tokens": 5},
        (),
    )
    assert repair_request({}, [found]) == ({}, ())


HOT = ASK[:-1] + b',"temperature":0.3}'
REFUSAL = error(
    400,
    "'temperature' does not support 0.3 with this model",
    "unsupported_value",
)


def picky(request: UpstreamRequest) -> ScriptedTurn:
    return REFUSAL if b'"temperature"' in request.body else completion()


async def test_a_refused_hint_is_declared_and_remembered_for_a_day(tmp_path: Path) -> None:
    door = Door(tmp_path, picky, moves=True)
    series = f'swapproof_learned_repairs{{field="temperature",target="up/{INCUMBENT}"}}'
    assert series not in await door.metrics()

    status, headers, _ = await door.call(CHAT, HOT)
    assert (status, headers[b"x-swapproof-degraded"]) == (200, b"temperature")
    assert headers[b"x-swapproof-attempts"] == b"1"
    assert len(door.transport.seen) == 2

    await door.call(CHAT, HOT)
    assert len(door.transport.seen) == 3
    _, headers, _ = await door.call(CHAT, ASK)
    assert b"x-swapproof-degraded" not in headers

    door.app._alerts.evaluate()
    assert (await door.metrics())[series] == 1

    door.clock.advance(KEPT_S)
    door.app._alerts.evaluate()
    assert series not in await door.metrics()
    door.recorder.flush()
    raised, ended = door.kept.alerts
    assert raised.title == f"up/{INCUMBENT} refuses temperature as clients send it"
    assert (raised.kind, ended.news) == (
        AlertKind.LEARNED_REPAIR,
        AlertEvent.ENDED,
    )
    await door.call(CHAT, HOT)
    assert len(door.transport.seen) == 6


async def test_what_one_prompt_leaves_of_a_window_limits_no_other_request(
    tmp_path: Path,
) -> None:
    full = "The window is 4096 tokens: max_tokens is too large (4000 > 4096 - 1000)"
    door = Door(
        tmp_path,
        lambda request: completion() if b"3096" in request.body else error(400, full),
        moves=True,
    )
    long = ASK[:-1] + b',"max_tokens":4000}'

    assert (await door.call(CHAT, long))[0] == 200
    assert (await door.call(CHAT, long))[0] == 200

    assert len(door.transport.seen) == 4  # each was asked as the client had sent it


@pytest.mark.req("F4")
async def test_a_candidate_that_refuses_a_hint_is_not_charged_with_it(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: completion()},
        weight_bps=10_000,
        moves=True,
    )
    place.script[CANDIDATE] = lambda: picky(place.transport.seen[-1])

    status, headers = await place.ask(HOT, times=3)

    assert (status, headers[b"x-swapproof-target"]) == (
        200,
        f"up/{CANDIDATE}".encode(),
    )
    place.recorder.flush(final=True)
    (row,) = place.kept.traffic
    assert (row.requests, row.charged) == (3, 0)


PLAIN = Target("p", "m")


def test_a_hint_is_lacking_by_the_model_by_its_kind_or_by_translation() -> None:
    def find_dropped(has: Capabilities, *, translated: bool) -> set[OptionalFeature]:
        return set(dropped_features(has, Endpoint.MESSAGES, translated=translated))

    assert find_dropped(UNKNOWN_CAPABILITIES, translated=False) == set()
    assert find_dropped(UNKNOWN_CAPABILITIES, translated=True) == {OptionalFeature.CACHING}
    kept = dropped_features(
        UNKNOWN_CAPABILITIES,
        Endpoint.MESSAGES,
        translated=True,
        cache_marks=True,
    )
    assert kept == set()
    own = {"m": Capabilities(seed=False)}
    model = Provider("p", "openai", "https://x", models=own).abilities("m")
    assert find_dropped(model, translated=False) == {
        OptionalFeature.SEED,
        OptionalFeature.TOP_K,
    }


def lost(
    endpoint: Endpoint,
    target: Target = PLAIN,
    **body: object,
) -> dict[str, object]:
    """What is left of the body without any hint."""
    text = json.dumps({"model": "r", **body}).encode()
    hints = used_features(read_request(text, endpoint), frozenset(OptionalFeature))
    found: dict[str, object] = json.loads(remove_fields(text, endpoint, hints, target))
    del found["model"]
    return found


def test_each_protocol_has_its_own_names_for_them() -> None:
    assert lost(
        Endpoint.CHAT,
        seed=1,
        reasoning_effort="low",
        temperature=1,
    ) == {"temperature": 1}
    included = ["reasoning.encrypted_content", "file_search_call.results"]
    assert lost(Endpoint.RESPONSES, reasoning={"effort": "low"}, include=included) == {
        "include": included[1:]
    }
    thought = {"type": "enabled", "budget_tokens": 1024}
    assert (
        lost(
            Endpoint.MESSAGES,
            thinking=thought,
            output_config={"effort": "low"},
        )
        == {}
    )


def test_cache_marks_are_taken_out_and_data_that_look_alike_are_not() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    schema = {"type": "object", "properties": mark}
    use = {
        "type": "tool_use",
        "id": "a",
        "name": "f",
        "input": mark,
    }
    left = lost(
        Endpoint.MESSAGES,
        system=[
            {
                "type": "text",
                "text": "a",
                **mark,
            }
        ],
        tools=[
            {
                "name": "f",
                "input_schema": schema,
                **mark,
            }
        ],
        messages=[{"role": "assistant", "content": [use]}],
    )
    assert left == {
        "system": [{"type": "text", "text": "a"}],
        "tools": [{"name": "f", "input_schema": schema}],
        "messages": [{"role": "assistant", "content": [use]}],
    }


def test_what_the_target_itself_sets_is_no_hint_of_the_client() -> None:
    own = Target("p", "m", parameters={"seed": 3})
    assert lost(
        Endpoint.CHAT,
        own,
        seed=3,
        logprobs=True,
    ) == {"seed": 3}
