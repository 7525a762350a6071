import json
import time
from pathlib import Path

import pytest

from evals.scorers.judged import DATA
from harness.app.database import upgrade_database
from harness.app.eval_workers import open_with_workers
from harness.control.evals import worker_supervision
from harness.control.providers import credentials
from harness.control.providers.credentials import CredentialChange
from harness.control.routing import targets
from harness.domain.operations.access import SYSTEM
from harness.domain.routing.target import Target
from harness.runtime import secret_files
from tests.support.providers.scripted_chat import Response, serving
from tests.support.site.processes import site

TARGET, JUDGE, OTHER = (f"sk-SEED{name}-0123456789" for name in ("target", "judge", "other"))
HEADERS = {"sim": "SEEDheader-of-target", "critic": "SEEDheader-of-judge"}
END_S = 240.0


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
            secret_files.make_encryption_file(installation.settings)
            upgrade_database(installation.settings)
            ctx = installation.context
            try:
                for provider in installation.settings.providers.values():
                    targets.put_provider(ctx, SYSTEM, provider)
                for name, secret in (("sim", TARGET), ("critic", JUDGE)):
                    credentials.put_credential(ctx, SYSTEM, name, CredentialChange(secret))
                target = targets.add_target(ctx, SYSTEM, Target("sim", "m"))
                run = worker_supervision.start_run(ctx, SYSTEM, "replies", target.id).id
                assert ctx.workers is not None
                ctx.workers.start(run)
                deadline = time.monotonic() + END_S
                while ctx.workers.alive() and time.monotonic() < deadline:
                    time.sleep(0.05)
                (ended,) = ctx.workers.reap()
                with ctx.store.read() as tx:
                    state, samples = tx.runs.get(run).state.value, tx.runs.samples(run)
            finally:
                installation.close()

    assert (ended[2], state) == (0, "done"), ended
    assert len(samples) == 2
    asked = {
        (request["model"], request["authorization"], request["extra"])
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
