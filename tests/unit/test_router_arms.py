"""1 % is 1 %, sticky, and raising the weight moves nobody back."""

import itertools
import json
import math
from dataclasses import replace

import pytest

from harness.domain.routing import Arm, Canary, Route, arm_of
from router.body import ChatRequest, read_chat
from router.sticky import sticky_key

ROUTE = Route("support", 1, "t_old", Canary("t_new", 100, "salt", "r-1"))
KEYS = 100_000


def request(**fields: object) -> ChatRequest:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    return read_chat(json.dumps({"model": "support", "messages": messages, **fields}).encode())


def arm(key: str, weight_bps: int) -> Arm:
    assert ROUTE.canary
    canary = replace(ROUTE.canary, weight_bps=weight_bps)
    return arm_of(replace(ROUTE, canary=canary), key)


@pytest.mark.req("F3", "F4")
@pytest.mark.parametrize("weight_bps", [1, 100, 500, 2500])
def test_of_100_000_users_the_canary_gets_its_share_within_binomial_bounds(
    weight_bps: int,
) -> None:
    keys = [sticky_key(request(user=f"user-{i}"), None, "k")[0] for i in range(1000)]
    keys += [f"user:user-{i}" for i in range(1000, KEYS)]

    found = sum(arm(key, weight_bps) is Arm.CANARY for key in keys)

    share = weight_bps / 10_000
    # Four standard deviations: one healthy draw in 16 000 lies outside.
    assert abs(found - KEYS * share) <= 4 * math.sqrt(KEYS * share * (1 - share))


@pytest.mark.req("F4")
def test_a_key_moves_to_the_canary_once_and_never_back() -> None:
    weights = (1, 100, 500, 2500, 10_000)
    for i in range(KEYS // 10):
        arms = [arm(f"user:{i}", weight) for weight in weights]
        moves = [(a, b) for a, b in itertools.pairwise(arms) if a is not b]
        assert moves in ([], [(Arm.INCUMBENT, Arm.CANARY)])


def test_the_first_key_that_is_there_counts() -> None:
    full = request(user="u", prompt_cache_key="c")

    assert sticky_key(full, b"h", "k") == ("header:h", True)
    assert sticky_key(full, None, "k") == ("user:u", True)
    assert sticky_key(request(prompt_cache_key="c"), None, "k")[0] == "prompt_cache_key:c"
    assert sticky_key(request(user=""), None, "k")[0].startswith("conversation:")


def test_a_conversation_keeps_its_key_as_it_grows() -> None:
    opening = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi \ud800"}]
    later = [*opening, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]

    key, told_apart = sticky_key(request(messages=opening), None, "k")

    assert told_apart
    assert sticky_key(request(messages=later), None, "k")[0] == key
    other = [{"role": "user", "content": "ho"}]
    assert sticky_key(request(messages=other), None, "k")[0] != key


@pytest.mark.parametrize("messages", [None, [], "x", [{"role": "system", "content": "s"}], [1]])
def test_without_anything_else_the_api_key_decides_and_that_is_told(messages: object) -> None:
    assert sticky_key(request(messages=messages), None, "k-1") == ("key:k-1", False)
