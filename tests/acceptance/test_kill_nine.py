"""Every process of `swapproof serve all` is killed, one after the other, under a swap."""

import random
from collections.abc import Callable

import httpx
import psutil
import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import (
    PARTS,
    Document,
    Installation,
    Process,
    eventually,
)
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import before_simulator, history
from tests.acceptance.traffic import traffic


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.req("F1", "F4", "F5")
def test_whatever_process_is_killed_the_proposal_ends_right_with_one_verdict(
    installing: Installing, database: str
) -> None:
    place = installing(
        lambda made: before_simulator(Simulator(made, time_scale=0.3), support={}),
        database=database,
    )
    serving = [place.serve("all")]
    body = {
        "route": "support",
        "candidate": "sim/sim-better",
        "reason": "kill -9",
    }
    swap = place.api("POST", "/proposals", body).json()["id"]
    killed: set[int] = set()
    with traffic(place, "support") as asking:
        # First what serve all has started, whatever each does; then itself.
        for _ in range(2):
            for child in shuffled(serving[0].descendants()):
                if child.pid in killed:
                    continue
                killed.add(child.pid)
                kill(child)
                await_answers(place, serving[0])
        begun = len(asking.answers)
        family = serving[0].descendants()
        serving[0].kill()
        for child in family:
            kill(child)
        serving.append(place.serve("all"))
        eventually(lambda: len(asking.answers) > begun)

        def ended() -> str:
            answer = quietly(lambda: place.api("GET", f"/proposals/{swap}"))
            found = answer.json()["phase"] if answer is not None and answer.is_success else ""
            assert found not in ("rejected", "cancelled", "rolled_back"), answer
            return found if found == "promoted" else ""

        eventually(ended, "the proposal has not ended", wait_s=900)
    down = [answer.body for answer in asking.failed if answer.status != 0]
    # A router that is gone refuses connections; one that is there fails no request.
    assert down == []
    assert_one_verdict(place, swap)
    assert len(asking.answers) > len(asking.failed)


def shuffled(children: list[psutil.Process]) -> list[psutil.Process]:
    mixed = sorted(children, key=lambda child: child.pid)
    random.Random(42).shuffle(mixed)
    return mixed


def kill(child: psutil.Process) -> None:
    try:
        child.kill()
        child.wait(timeout=60)
    except psutil.NoSuchProcess:
        pass


def quietly(ask: Callable[[], httpx.Response]) -> httpx.Response | None:
    try:
        return ask()
    except httpx.TransportError:
        return None


def await_answers(place: Installation, process: Process) -> None:
    place.await_up(process, *PARTS)


def assert_one_verdict(place: Installation, swap: str) -> None:
    verdicts = place.database.rows("SELECT * FROM verdict WHERE proposal = :id", id=swap)
    assert [verdict["outcome"] for verdict in verdicts] == ["passed"]
    twice: list[Document] = place.database.rows(
        "SELECT run, item, epoch FROM sample GROUP BY run, item, epoch HAVING count(*) > 1"
    )
    assert twice == []
    assert history(place, "support") == [
        "baseline",
        "canary",
        "weight",
        "promotion",
    ]
    assert place.api("GET", "/audit/verify").json()["whole"] is True
    again = place.json("gate", "replay", verdicts[0]["id"])
    assert again["agrees"] is True
    eventually(lambda: place.model_of("support") == "sim/sim-better")
