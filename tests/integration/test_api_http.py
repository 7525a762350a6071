import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.site.management_api import Door, served

WISH = {"route": "chat", "candidate": "sim/better"}


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
        headers = {"authorization": "Bearer wrong", "x-forwarded-for": f"10.0.0.{number}"}
        return http_.get("/routes", headers=headers)

    answers = [guess(number) for number in range(12)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    assert answers[-1].headers["retry-after"] == "1"
