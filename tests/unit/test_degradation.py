"""What becomes of a request whose target lacks something."""

import json

import pytest

from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.routing.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Endpoint,
    OptionalFeature,
    dropped_features,
)
from harness.domain.routing.target import Target
from router.frame.body import read_request
from router.request.needs import given_fields, without_fields

pytestmark = pytest.mark.req("B7")
PLAIN = Target("p", "m")


def test_kinds_lack_hints_alone() -> None:
    assert all(kind.lacks <= set(OptionalFeature) for kind in PROVIDER_KINDS.values())


def test_a_hint_is_lacking_by_the_model_by_its_kind_or_by_translation() -> None:
    def find_dropped(
        has: Capabilities, kind: frozenset[str], *, translated: bool
    ) -> set[OptionalFeature]:
        return set(dropped_features(has, kind, Endpoint.MESSAGES, translated=translated))

    assert find_dropped(UNKNOWN_CAPABILITIES, frozenset(), translated=False) == set()
    assert find_dropped(UNKNOWN_CAPABILITIES, frozenset(), translated=True) == {
        OptionalFeature.CACHING
    }
    kept = dropped_features(
        UNKNOWN_CAPABILITIES, frozenset(), Endpoint.MESSAGES, translated=True, cache_marks=True
    )
    assert kept == set()
    assert find_dropped(Capabilities(seed=False), frozenset({"top_k"}), translated=False) == {
        OptionalFeature.SEED,
        OptionalFeature.TOP_K,
    }


def lost(endpoint: Endpoint, target: Target = PLAIN, **body: object) -> dict[str, object]:
    """What is left of the body without any hint."""
    text = json.dumps({"model": "r", **body}).encode()
    hints = given_fields(read_request(text, endpoint), frozenset(OptionalFeature))
    found: dict[str, object] = json.loads(without_fields(text, endpoint, hints, target))
    del found["model"]
    return found


def test_each_protocol_has_its_own_names_for_them() -> None:
    assert lost(Endpoint.CHAT, seed=1, reasoning_effort="low", temperature=1) == {
        "temperature": 1
    }
    included = ["reasoning.encrypted_content", "file_search_call.results"]
    assert lost(Endpoint.RESPONSES, reasoning={"effort": "low"}, include=included) == {
        "include": included[1:]
    }
    thought = {"type": "enabled", "budget_tokens": 1024}
    assert lost(Endpoint.MESSAGES, thinking=thought, output_config={"effort": "low"}) == {}


def test_cache_marks_are_taken_out_and_data_that_look_alike_are_not() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    schema = {"type": "object", "properties": mark}
    use = {"type": "tool_use", "id": "a", "name": "f", "input": mark}
    left = lost(
        Endpoint.MESSAGES,
        system=[{"type": "text", "text": "a", **mark}],
        tools=[{"name": "f", "input_schema": schema, **mark}],
        messages=[{"role": "assistant", "content": [use]}],
    )
    assert left == {
        "system": [{"type": "text", "text": "a"}],
        "tools": [{"name": "f", "input_schema": schema}],
        "messages": [{"role": "assistant", "content": [use]}],
    }


def test_what_the_target_itself_sets_is_no_hint_of_the_client() -> None:
    own = Target("p", "m", parameters={"seed": 3})
    assert lost(Endpoint.CHAT, own, seed=3, logprobs=True) == {"seed": 3}
