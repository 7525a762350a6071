"""What a request needs and what a target lacks of it."""

from dataclasses import fields, replace

import pytest

from harness.domain.routing.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Endpoint,
    Needs,
    missing_capabilities,
)

NOTHING = Capabilities(
    **{field.name: False for field in fields(Capabilities) if field.name != "context_window"}
)
FEATURES = {
    "stream": "streaming",
    "tools": "tools",
    "parallel_tools": "parallel tool calls",
    "json_schema": "JSON schema",
    "vision": "vision",
}


@pytest.mark.req("A4", "B7")
@pytest.mark.parametrize(("field", "word"), FEATURES.items())
def test_a_need_that_is_not_met_is_named(field: str, word: str) -> None:
    needs = Needs(**{field: True})  # type: ignore[arg-type]
    lacking = Capabilities(**{field: False})

    assert missing_capabilities(needs, lacking) == (word,)
    assert missing_capabilities(Needs(), lacking) == ()
    assert missing_capabilities(needs, Capabilities()) == ()


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_an_endpoint_that_a_target_does_not_have_is_named(endpoint: Endpoint) -> None:
    has_only = replace(NOTHING, **{endpoint.value: True})

    for other in Endpoint:
        expected = () if other is endpoint else (f"the {other.value} endpoint",)
        assert missing_capabilities(Needs(endpoint=other), has_only) == expected


def test_a_window_holds_input_and_output_together() -> None:
    has = Capabilities(context_window=1000)

    assert (
        missing_capabilities(Needs(approx_input_tokens=600, max_output_tokens=400), has) == ()
    )
    assert missing_capabilities(Needs(approx_input_tokens=601, max_output_tokens=400), has) == (
        "the context window (about 1001 tokens, it holds 1000)",
    )


def test_what_is_unknown_is_not_held_against_a_target() -> None:
    everything = Needs(
        Endpoint.MESSAGES, True, True, True, True, True, 10**9, 10**9  # noqa: FBT003
    )  # fmt: skip

    assert missing_capabilities(everything, UNKNOWN_CAPABILITIES) == ()
    assert missing_capabilities(everything, Capabilities()) == ()
    assert len(missing_capabilities(everything, NOTHING)) == 6


def test_a_window_is_larger_only_when_both_are_known() -> None:
    small, large = Capabilities(context_window=8), Capabilities(context_window=9)

    assert large.larger_than(small)
    assert not small.larger_than(small)
    assert not small.larger_than(large)
    assert not UNKNOWN_CAPABILITIES.larger_than(small)
    assert not large.larger_than(UNKNOWN_CAPABILITIES)
