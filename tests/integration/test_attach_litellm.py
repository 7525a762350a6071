"""`swapgate attach` on the spend log that a real LiteLLM proxy writes: by its API, and from an
export of the table. Only Prisma is a stand-in.
"""

import itertools
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import openai
import psycopg
import pytest

from evals.suites.logs.log_formats import LOG_READERS
from evals.suites.logs.log_stream import stream_source
from harness.app.attach.attach import AttachRequest, attach
from harness.app.attach.attach_blocks import write_json
from tests.acceptance.installation import eventually
from tests.integration.test_beside_litellm import (
    MASTER_KEY,
    installed_litellm,
    running_litellm,
)
from tests.support.site.http_thread import Exchange, serving

STAND_IN = Path(__file__).parents[1] / "support" / "litellm"
REQUESTS = 6
CONFIG = """
model_list:
  - model_name: support
    litellm_params: {model: openai/gpt-4.1, api_base: UPSTREAM, api_key: none}
general_settings:
  store_prompts_in_spend_logs: true
  proxy_batch_write_at: 1
"""


class Provider(Exchange):
    """Answers each chat, with an id of its own as providers do."""

    answers: ClassVar[Iterator[int]] = itertools.count()

    def exchange(self) -> None:
        self.received_body()
        answer = {
            "id": f"chatcmpl-{next(self.answers)}",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4.1",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "On its way."},
                }
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
        }
        self.answer(200, json.dumps(answer).encode())


pytestmark = [
    pytest.mark.verify,
    pytest.mark.req("F1"),
    pytest.mark.timeout(900),
]


def test_a_real_spend_log_gives_the_same_facts_by_the_api_and_as_a_file(
    tmp_path: Path, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = empty_postgres_url.replace("+psycopg", "")
    programs = installed_litellm(tmp_path)
    tables = [str(programs / "python"), str(STAND_IN / "tables.py"), database]
    subprocess.run(tables, check=True)  # noqa: S603 - our own script
    own = {
        "DATABASE_URL": database.replace("@/", "@localhost/"),
        "DISABLE_SCHEMA_UPDATE": "true",
        "LITELLM_SALT_KEY": MASTER_KEY,
        "PYTHONPATH": str(STAND_IN),
    }
    with serving(Provider) as port:
        config = CONFIG.replace("UPSTREAM", f"http://127.0.0.1:{port}/v1")
        (tmp_path / "attach.yaml").write_text(config, encoding="utf-8")
        with running_litellm("attach.yaml", "", tmp_path, programs, **own) as proxy:
            ask(proxy)
            url = proxy.removesuffix("/v1")
            # The stand-in for Prisma makes no further keys, such as a viewer's.
            monkeypatch.setenv("LITELLM_API_KEY", MASTER_KEY)
            eventually(lambda: count_rows(database) >= REQUESTS)
            began_s = time.monotonic()
            by_api = write_json(attach(AttachRequest([url])))
            assert time.monotonic() - began_s < 120
            file = export(database, tmp_path / "spend.jsonl")
            by_file = write_json(attach(AttachRequest([str(file)])))

    for found in (by_api, by_file):
        (model,) = found["models"]
        assert (model["model"], model["requests"]) == ("openai/gpt-4.1", REQUESTS)
        assert (model["input_tokens"], model["output_tokens"]) == (7 * REQUESTS, 5 * REQUESTS)
        assert (model["with_cost"], model["with_duration"]) == (REQUESTS, REQUESTS)
        assert found["callers"] == REQUESTS
    one_day, too_few = by_file["obstacles"]
    assert one_day == "all requests are of one day: a draw takes whole days, so log several"
    assert too_few.startswith(f"{REQUESTS} requests can be drawn, and a proof needs about ")
    assert "no request has its messages" in by_api["obstacles"][0]
    # The turns of an agent's run share a session.
    (part,) = stream_source(file)
    runs = Counter(request.conversation for request in LOG_READERS["litellm"](part).requests)
    assert runs == {f"run-{number}": 2 for number in range(REQUESTS // 2)}


def ask(proxy: str) -> None:
    with openai.OpenAI(base_url=proxy, api_key=MASTER_KEY, max_retries=0) as client:
        for number in range(REQUESTS):
            client.chat.completions.create(
                model="support",
                messages=[{"role": "user", "content": f"Where is parcel {number}?"}],
                user=f"caller-{number}",
                extra_body={"litellm_session_id": f"run-{number // 2}"},
            )


def count_rows(database: str) -> int:
    with psycopg.connect(database) as db:
        row = db.execute('select count(*) from "LiteLLM_SpendLogs"').fetchone()
    return int(row[0]) if row else 0


def export(database: str, file: Path) -> Path:
    with psycopg.connect(database) as db:
        rows = db.execute('select row_to_json(t) from "LiteLLM_SpendLogs" t').fetchall()
    file.write_text("".join(f"{json.dumps(row[0])}\n" for row in rows), encoding="utf-8")
    return file
