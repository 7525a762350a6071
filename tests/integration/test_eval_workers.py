import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from evals.scorers.judged import DATA
from harness.app import secret_files
from harness.app.database import upgrade_database
from harness.app.eval_workers.run import open_with_workers
from harness.app.installation import Installation, open_installation
from harness.frame.people.access import SYSTEM
from harness.proposals import eval_queue
from harness.providers.registry import credentials, targets
from harness.providers.registry.credentials import CredentialChange
from harness.providers.target import Target
from harness.routing.records.runs import EvalRuns
from tests.support.providers.scripted_chat import Response, serving
from tests.support.router.router_process import eventually
from tests.support.site.processes import Site, kill_nine, site

ITEMS = 30
CONNECTIONS = 4
AT_ONCE = 3
END_S = 240.0


@dataclass
class Counting:
    """Answers, judges, and counts: calls by model and prompt, and how many were at once.

    hold: waits before it answers; it is told the model, and how often this was asked so far.
    """

    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    most: int = 0
    hold: Callable[[str, int], object] = lambda _model, _times: None
    _now: int = 0
    _begun: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, body: Mapping[str, Any]) -> Response:
        prompt = body["messages"][-1]["content"]
        with self._lock:
            self.asked[body["model"], prompt] += 1
            times = self.asked[body["model"], prompt]
            self._now += 1
            self._begun += 1
            is_first = self._begun == 1
            self.most = max(self.most, self._now)
        # So long that calls meet, however busy the machine is. A run begins with one call.
        if not is_first:
            self._wait_for_another()
        self.hold(body["model"], times)
        with self._lock:
            self._now -= 1
        judged = DATA in prompt
        return Response(json.dumps({"reason": "x", "score": 1}) if judged else "fine")

    def _wait_for_another(self) -> None:
        until = time.monotonic() + END_S
        while self.most < 2 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)

    def begin_again(self) -> None:
        with self._lock:
            self.most = 0
            self._begun = 0

    def calls(self, model: str) -> int:
        with self._lock:
            return sum(count for (name, _), count in self.asked.items() if name == model)


def settings(
    folder: Path,
    url: str,
    *,
    judged: bool = True,
    **of_provider: object,
) -> dict[str, object]:
    data = folder / "replies.jsonl"
    rows = [{"input": f"Say {n}.", "target": f"{n}"} for n in range(ITEMS)]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    scoring: dict[str, object] = {"scorer": "exact"}
    if judged:
        scoring = {
            "scorer": "rubric",
            "scorer_options": {"rubric": "Is it good?"},
            "judge": {"target": "sim/judge"},
        }
    return {
        "control": {"eval_connections": CONNECTIONS},
        "providers": {
            "sim": {
                "kind": "openai",
                "api_base": url,
                "eval_limits": {
                    "max_concurrent": AT_ONCE,
                    "requests_per_min": 100_000,
                },
                **of_provider,
            }
        },
        "suites": {"replies": {"path": str(data), **scoring}},
    }


def queued(
    installation: Installation,
    model: str,
    suite: str = "replies",
) -> str:
    ctx = installation.context
    target = targets.add_target(ctx, SYSTEM, Target("sim", model))
    return eval_queue.start_run(ctx, SYSTEM, suite, target.id).id


def worker(place: Site, run: str) -> subprocess.Popen[bytes]:
    process = (
        "--owner",
        f"w-{time.monotonic_ns()}",
        "--parent",
        str(os.getpid()),
    )
    return subprocess.Popen(place.command("eval-worker", run, *process))  # noqa: S603 - our own command


@pytest.mark.slow
@pytest.mark.req("F2")
@pytest.mark.timeout(900)
def test_workers_share_a_providers_limit_and_a_killed_one_asks_only_what_was_in_flight_again(
    tmp_path: Path,
) -> None:
    counting = Counting()
    with (
        serving(counting) as served,
        site(tmp_path, settings(tmp_path, served.url)) as place,
    ):
        installation = open_installation(place.config, create_secret=True)
        upgrade_database(installation.settings)
        for provider in installation.settings.providers.values():
            targets.put_provider(installation.context, SYSTEM, provider)
        runs = {model: queued(installation, model) for model in ("incumbent", "candidate")}
        working = {model: worker(place, run) for model, run in runs.items()}
        eventually(lambda: counting.calls("candidate") >= ITEMS // 3)
        before_the_kill = counting.most
        kill_nine(working["candidate"].pid)
        working["candidate"].wait()
        with installation.store.read() as tx:
            stored = len(EvalRuns(tx).done(runs["candidate"]))

        # Nobody gave the dead worker's lease up: it has to run out first.
        eventually(lambda: lease_is_over(installation, runs["candidate"]))
        # By now the provider is done with what the dead worker had asked.
        killed_at = counting.calls("candidate")
        counting.begin_again()
        working["candidate"] = worker(place, runs["candidate"])
        assert [process.wait(END_S) for process in working.values()] == [0, 0]
        with installation.store.read() as tx:
            samples = {model: EvalRuns(tx).samples(run) for model, run in runs.items()}
            states = [EvalRuns(tx).get(run).state.value for run in runs.values()]
        installation.close()

    assert states == ["done", "done"]
    assert 0 < stored < ITEMS
    for scored in samples.values():
        assert len({sample.item for sample in scored}) == len(scored) == ITEMS
    assert counting.calls("incumbent") == ITEMS
    # What was stored is not asked again; what was under way is at most one call a connection.
    assert counting.calls("candidate") - killed_at == ITEMS - stored
    assert killed_at - stored <= CONNECTIONS
    # Both workers and their judges together.
    assert 1 < before_the_kill <= AT_ONCE
    assert 1 < counting.most <= AT_ONCE


def lease_is_over(installation: Installation, run: str) -> bool:
    with installation.store.read() as tx:
        return not EvalRuns(tx).get(run).is_leased(installation.clock.now())


TARGET, JUDGE, OTHER = (f"sk-SEED{name}-0123456789" for name in ("target", "judge", "other"))
HEADERS = {"sim": "SEEDheader-of-target", "critic": "SEEDheader-of-judge"}


@pytest.mark.req("D4", "C8")
@pytest.mark.verify
def test_target_and_judge_are_each_asked_with_their_own_stored_key_and_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    data = tmp_path / "replies.jsonl"
    rows = [{"input": f"Say {n}.", "target": f"{n}"} for n in range(2)]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def answer(body: object) -> Response:
        judged = DATA in json.dumps(body)
        return Response(json.dumps({"reason": "x", "score": 1}) if judged else "fine")

    with serving(answer) as served:
        settings: dict[str, object] = {
            "providers": {
                name: {
                    "kind": "custom",
                    "api_base": served.url,
                    "extra_headers": {"x-extra": value},
                }
                for name, value in HEADERS.items()
            },
            "suites": {
                "replies": {
                    "path": str(data),
                    "scorer": "rubric",
                    "scorer_options": {"rubric": "Is it good?"},
                    "judge": {"target": "critic/judge"},
                }
            },
        }
        with site(tmp_path, settings) as place:
            installation = open_with_workers(place.config, create_secret=True)
            secret_files.create_encryption_file(installation.settings)
            upgrade_database(installation.settings)
            ctx = installation.context
            try:
                for provider in installation.settings.providers.values():
                    targets.put_provider(ctx, SYSTEM, provider)
                for name, secret in (("sim", TARGET), ("critic", JUDGE)):
                    credentials.put_credential(
                        ctx, SYSTEM, name, CredentialChange(value=secret)
                    )
                target = targets.add_target(ctx, SYSTEM, Target("sim", "m"))
                run = eval_queue.start_run(ctx, SYSTEM, "replies", target.id).id
                assert ctx.workers is not None
                ctx.workers.start(run)
                deadline = time.monotonic() + END_S
                while ctx.workers.alive() and time.monotonic() < deadline:
                    time.sleep(0.05)
                (ended,) = ctx.workers.reap()
                with ctx.store.read() as tx:
                    state = EvalRuns(tx).get(run).state.value
                    samples = EvalRuns(tx).samples(run)
            finally:
                installation.close()

    assert (ended[2], state) == (0, "done"), ended
    assert len(samples) == 2
    asked = {
        (
            request["model"],
            request["authorization"],
            request["extra"],
        )
        for request in served.requests
    }
    assert asked == {
        ("m", f"Bearer {TARGET}", HEADERS["sim"]),
        ("judge", f"Bearer {JUDGE}", HEADERS["critic"]),
    }
    written = b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())
    config = place.config.read_bytes()
    for secret in (TARGET, JUDGE, OTHER):
        assert secret.encode() not in written
    # The file that the operator wrote has the headers, and nothing else does.
    assert all(written.count(v.encode()) == config.count(v.encode()) for v in HEADERS.values())
