"""A judge of another provider, from the configuration to a stored score, in real processes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.scorers.judge_protocol import DATA
from evals.sim import server as sim
from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_chat import Response, serving
from tests.support.site.processes import site

KEY = "sk-of-the-jury"
ITEMS = 12


def jury(body: Mapping[str, Any]) -> Response:
    data = json.loads(body["messages"][-1]["content"].rpartition(DATA)[2])
    answer = data["answer"]
    likes = answer.startswith("good") if answer[:3] in ("goo", "bad") else True
    return Response(json.dumps({"reason": "x", "score": 0.8 if likes else 0.1}))


def settings(folder: Path, provider: str, judge: str) -> dict[str, object]:
    data, references = folder / "replies.jsonl", folder / "references.jsonl"
    rows = [{"input": f"Say {n}.", "target": f"{n}"} for n in range(ITEMS)]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    rated = [
        {"input": "Say it.", "answer": f"{word} {n}", "score": score}
        for n in range(6)
        for word, score in (("good", 1), ("bad", 0))
    ]
    references.write_text("\n".join(map(json.dumps, rated)), encoding="utf-8")
    return {
        "control": {"reconcile_interval_s": 0.3, "eval_connections": 2},
        "providers": {
            "sim": {"kind": "sim", "api_base": f"{provider}/v1"},
            "jury": {"kind": "openai", "api_base": judge, "api_key_env": "JURY_KEY"},
        },
        "suites": {
            "replies": {
                "path": str(data),
                "scorer": "rubric",
                "scorer_options": {"rubric": "Is it good?"},
                "judge": {"target": "jury/m", "references": str(references)},
            }
        },
        "routes": {"support": {"incumbent": "sim/sim-base", "suites": ["replies"]}},
    }


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.req("F7")
def test_a_worker_reaches_its_judge_with_the_judges_key_and_checks_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JURY_KEY", KEY)
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0)) as provider,
        serving(jury) as judge,
        site(tmp_path, settings(tmp_path, provider, judge.url)) as place,
    ):
        installation = open_installation(place.config, create_secret=True)
        upgrade_database(installation.settings)
        place.start("control", "serve", "control", wait_for="/healthz")
        for _ in range(2):
            place.run("eval", "run", "replies", "sim/sim-base", "--wait")
        with installation.store.read() as tx:
            runs = tx.runs.list()
            samples = [sample for run in runs for sample in tx.runs.samples(run.id)]

    assert [run.state.value for run in runs] == ["done", "done"]
    assert all("on 12 human references" in run.message for run in runs)
    assert [sample.strict for sample in samples] == [0.8] * (2 * ITEMS)
    # The references once, each answer once.
    assert len(judge.requests) == 12 + 2 * ITEMS
    assert {request["authorization"] for request in judge.requests} == {f"Bearer {KEY}"}
    assert len(list((tmp_path / "home" / "judges").iterdir())) == 1
