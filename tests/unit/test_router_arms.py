"""1 % is 1 %, sticky, and raising the weight moves nobody back."""

import itertools
import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2

from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.table import BUCKETS, Arm, Canary, Route, choose_arm, hash_bucket
from router.request.body import ClientRequest, read_request
from router.request.client_directives import sticky_key

ROUTE = Route("support", 1, "t_old", Canary("t_new", 100, "salt", "r-1"))
KEYS = 100_000
SALTS = 12
GOLDEN = [5902, 7796, 3689, 3669, 7819]
IntArray = npt.NDArray[np.int64]


def request(**fields: object) -> ClientRequest:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    return read_request(
        json.dumps({"model": "support", "messages": messages, **fields}).encode(), Endpoint.CHAT
    )


@cache
def at(weight_bps: int) -> Route:
    assert ROUTE.canary
    return replace(ROUTE, canary=replace(ROUTE.canary, weight_bps=weight_bps))


def arm(key: str, weight_bps: int) -> Arm:
    return choose_arm(at(weight_bps), key)


@pytest.mark.req("F3", "F4")
@pytest.mark.parametrize("weight_bps", [1, 100, 500, 2500])
def test_of_100_000_users_the_canary_gets_its_share_within_binomial_bounds(
    weight_bps: int,
) -> None:
    keys = [sticky_key(request(user=f"user-{i}"), None, "k") for i in range(1000)]
    keys += [f"user:user-{i}" for i in range(1000, KEYS)]

    found = sum(arm(key, weight_bps) is Arm.CANARY for key in keys)

    share = weight_bps / 10_000
    # Four standard deviations: one healthy draw in 16 000 lies outside.
    assert abs(found - KEYS * share) <= 4 * math.sqrt(KEYS * share * (1 - share))


@pytest.fixture(scope="module")
def buckets() -> IntArray:
    """A row for each salt, a column for each key."""
    keys = [f"user:user-{i}" for i in range(KEYS)]
    rows = [[hash_bucket(key, salt=f"salt_{n}") for key in keys] for n in range(SALTS)]
    return np.array(rows)


@pytest.mark.req("F3")
@pytest.mark.parametrize("weight_bps", [100, 500, 2500])
def test_whatever_the_salt_1_percent_of_100_000_keys_is_1_percent(
    buckets: IntArray, weight_bps: int
) -> None:
    found = (buckets < weight_bps).sum(axis=1)

    share = weight_bps / 10_000
    assert np.all(np.abs(found - KEYS * share) <= 4 * math.sqrt(KEYS * share * (1 - share)))
    # Not too even either: the salts draw independently, they do not deal out.
    assert len(set(found.tolist())) > 1


@pytest.mark.req("F3")
def test_every_bucket_gets_its_keys_whatever_the_salt(buckets: IntArray) -> None:
    cells = 100
    for row in buckets:
        counts = np.bincount(row // (BUCKETS // cells), minlength=cells)
        statistic = float(((counts - KEYS / cells) ** 2 / (KEYS / cells)).sum())
        assert 1e-5 < chi2.sf(statistic, cells - 1) < 1 - 1e-5


@pytest.mark.req("F3")
@pytest.mark.parametrize("weight_bps", [100, 2500, 5000])
def test_a_rollouts_canary_says_nothing_about_the_next_ones(
    buckets: IntArray, weight_bps: int
) -> None:
    share = weight_bps / 10_000
    both = share * share
    for one, other in itertools.combinations(buckets < weight_bps, 2):
        found = int((one & other).sum())
        assert abs(found - KEYS * both) <= 4.5 * math.sqrt(KEYS * both * (1 - both))


def test_every_worker_and_every_version_puts_a_key_in_the_same_bucket() -> None:
    """A change here would move users to the other arm in the middle of their rollout."""
    found = [hash_bucket(f"user:{i}", salt="salt_1") for i in range(5)]

    assert found == GOLDEN


@pytest.mark.req("F3", "F4")
def test_raising_the_weight_moves_nobody_back() -> None:
    weights = (1, 100, 500, 2500, 10_000)
    for i in range(KEYS):
        arms = [choose_arm(route, f"user:{i}") for route in map(at, weights)]
        moves = [(a, b) for a, b in itertools.pairwise(arms) if a is not b]
        assert moves in ([], [(Arm.INCUMBENT, Arm.CANARY)])


def test_the_first_key_that_is_there_counts() -> None:
    full = request(user="u", safety_identifier="s", prompt_cache_key="c")

    assert sticky_key(full, b"h", "k") == "header:h"
    assert sticky_key(full, None, "k") == "safety_identifier:s"
    assert sticky_key(request(user="u"), None, "k") == "user:u"
    shared = {"prompt_cache_key": "of one feature"}
    assert sticky_key(request(**shared), None, "k") == sticky_key(request(), None, "k")
    assert sticky_key(request(user=""), None, "k").startswith("conversation:")


def test_a_conversation_keeps_its_key_as_it_grows() -> None:
    opening = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi \ud800"}]
    later = [*opening, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]

    key = sticky_key(request(messages=opening), None, "k")

    assert key
    assert sticky_key(request(messages=later), None, "k") == key
    other = [{"role": "user", "content": "ho"}]
    assert sticky_key(request(messages=other), None, "k") != key


@pytest.mark.parametrize("messages", [None, [], "x", [{"role": "system", "content": "s"}], [1]])
def test_a_request_without_anything_else_is_its_own_caller(messages: object) -> None:
    assert sticky_key(request(messages=messages), None, "k-1") == ""
