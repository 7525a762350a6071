"""Evals of targets that speak another protocol: candidate and incumbent, in processes.

The providers refuse what the real ones refuse (`tests.wire`) and answer as simulated models do.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import pytest

from evals.sim import server as sim
from harness.app.installation import open_installation
from harness.report.content import KEYRING, address
from tests.support.providers import simulator_thread
from tests.support.router.router_process import eventually, routed
from tests.support.site.processes import site
from tests.wire import anthropic, gemini
from tests.wire.server import KEY, Json, Reading, Reply, Usage, serving

pytestmark = pytest.mark.slow

USAGE: Final = Usage(input=100, output=20, cached=40)


def examinee(model: str, *, hiccups: int = 0) -> Callable[[Reading], Reply]:
    """Answers the shipped suites as the simulator's model would. hiccups: 529s before that."""
    simulator = sim.simulator()
    sitting, left = simulator.models[model], [anthropic.OVERLOADED] * hiccups

    def answer(read: Reading) -> Reply:
        if left:
            raise left.pop()
        item = simulator.bank.find(read.turns[-1].text)
        assert item is not None
        return Reply(str(sitting.sit(item).value), usage=USAGE)

    return answer


def provider(kind: str, api_base: str, model: str) -> Json:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    return {
        "kind": kind,
        "api_base": api_base,
        "api_key_env": "WIRE_KEY",
        "prices": {model: price},
    }


@pytest.mark.req("A1", "A7", "B7")
@pytest.mark.verify
def test_a_candidate_and_an_incumbent_of_other_protocols_get_their_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIRE_KEY", KEY)
    old, new = gemini.strict(), anthropic.strict()
    old.answers, new.answers = examinee("sim-base"), examinee("sim-better", hiccups=2)
    with serving(old), serving(new):
        settings: dict[str, object] = {
            "providers": {
                "google": provider("gemini", old.api_base, gemini.MODEL),
                "claude": provider("anthropic", new.api_base, anthropic.MODEL),
            },
            "policies": {"quick": {"gate": {"n_max": 120, "infra_patience_s": 0.1}}},
        }
        with site(tmp_path, settings) as place:
            arms = (
                "--incumbent",
                f"google/{gemini.MODEL}",
                "--candidate",
                f"claude/{anthropic.MODEL}",
                "--patch-param",
                "temperature=0.25",
            )
            done = place.run(
                *("gate", "run", "--suite", "tickets", "--policy", "quick", "--json"),
                *(*arms, "--keep", str(tmp_path / "kept")),
            )
    assert json.loads(done.stdout)["verdict"]["verdict"] == "passed"
    assert [*old.refused, *new.refused] == [str(anthropic.OVERLOADED)] * 2
    # As it will serve: with the request patch, in the provider's words.
    assert {reading.temperature for reading in new.readings} == {0.25}
    monkeypatch.setenv("SWAPGATE__DATABASE_URL", address(tmp_path / "kept"))
    monkeypatch.setenv(KEYRING, str(tmp_path / "kept/signing.pub"))
    installation = open_installation(place.config, create_secret=True)
    try:
        with installation.store.read() as tx:
            runs = tx.runs.list()
            samples = [sample for run in runs for sample in tx.runs.samples(run.id)]
    finally:
        installation.close()
    assert len(runs) == 2
    assert {sample.served_model for sample in samples} == {gemini.MODEL, anthropic.MODEL}
    assert not [sample for sample in samples if sample.error]
    used = {(e.input_tokens, e.cached_tokens, e.output_tokens) for e in samples}
    assert used == {(USAGE.input, USAGE.cached, USAGE.output)}
    assert [sample.cost_usd for sample in samples] == pytest.approx([300e-6] * len(samples))


@pytest.mark.req("A1", "F2")
def test_a_proposal_says_which_shares_of_the_requests_its_candidate_cannot_take(
    tmp_path: Path,
) -> None:
    searches: Json = {"type": "web_search_preview"}
    function: Json = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    asked: list[Json] = [
        *[{}] * 5,
        {"tools": [function, searches]},
        {"tools": [searches]},
        {"previous_response_id": "resp_1"},
        {"previous_response_id": "resp_2"},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ]
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as answering:
        providers = {
            "sim": {"kind": "sim", "api_base": f"{answering}/v1"},
            "chats": {"kind": "groq", "api_base": f"{answering}/v1"},
        }
        with routed(tmp_path, answering, providers=providers) as world:
            world.start("--workers", "2")
            headers = {"authorization": f"Bearer {world.key}"}
            for more in asked:
                # Whatever the provider makes of it, it was asked for.
                body = {"model": "chat", "input": "Colour number 3?", **more}
                httpx.post(f"{world.url}/v1/responses", json=body, headers=headers, timeout=60)
            eventually(lambda: world.recorded() == len(asked))
            assert world.place.terminate("router") == 0

            propose = ("proposal", "create", "chat")
            said = world.place.run(*propose, "chats/sim-better", "--dry-run").stderr
            native = world.place.run(*propose, "sim/sim-better", "--dry-run").stderr

    for share, what in (
        ("20 %", "previous_response_id"),
        ("10 %", "the tool web_search"),
        ("10 %", "item_reference"),
    ):
        words = f"{share} of chat's requests of the last 7 days used {what}: this candidate"
        assert f"{words} cannot take them" in " ".join(said.split())
    assert "cannot take them" not in native
