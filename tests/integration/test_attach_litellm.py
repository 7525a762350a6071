"""The logs of a real LiteLLM proxy lead to a promoted model, by docs/how-to/no-evals.md.
`swapproof attach` reads the same facts from the proxy's API and from an export of its table.
Only Prisma is a stand-in.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import openai
import psycopg
import pytest

from harness.app.attach.attach import AttachRequest, attach
from harness.app.attach.attach_blocks import write_json
from tests.acceptance.installation import Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.spend_logs import DAYS, MAIL, MODEL, THREADS, WRITE, question
from tests.acceptance.test_traffic_suite import PROFILES, check, play
from tests.integration.test_beside_litellm import (
    MASTER_KEY,
    installed_litellm,
    running_litellm,
)
from tests.support.store.postgres_cluster import binary

CALLERS: Final = 200
STAND_IN: Final = Path(__file__).parents[1] / "support" / "litellm"
CONFIG: Final = """
model_list:
  - model_name: support
    litellm_params: {model: openai/MODEL, api_base: UPSTREAM, api_key: none}
general_settings:
  store_prompts_in_spend_logs: true
  proxy_batch_write_at: 1
"""

pytestmark = [
    pytest.mark.verify,
    pytest.mark.req("F1", "F9", "F13"),
    pytest.mark.timeout(900),
]


def test_the_log_of_a_real_litellm_proxy_leads_to_a_promoted_model(
    tmp_path: Path, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = empty_postgres_url.replace("+psycopg", "")
    program = Path(sys.executable).with_name("swapproof")
    place = Installation(program, tmp_path / "providers", {})
    try:
        sim = Simulator(place, profiles=PROFILES)
        with logged_by_litellm(tmp_path, f"{sim.url}/v1", database) as proxy:
            # The stand-in for Prisma makes no further keys, such as a viewer's.
            monkeypatch.setenv("LITELLM_API_KEY", MASTER_KEY)
            by_api = write_json(attach(AttachRequest([proxy])))
        sim.reset_stats()
        said = play(
            tmp_path,
            sim,
            program,
            tools=str(Path(binary("psql")).parent),
            DATABASE_URL=database,
        )
    finally:
        place.close()

    check(tmp_path, said, CALLERS)
    by_file = write_json(attach(AttachRequest([str(tmp_path / "spend.jsonl")])))
    rows = CALLERS + 1  # one would send mail
    for found in (by_api, by_file):
        (model,) = found["models"]
        assert (model["model"], model["requests"]) == (f"openai/{MODEL}", rows)
        assert min(model["input_tokens"], model["output_tokens"]) > rows
        assert (model["with_cost"], model["with_duration"]) == (rows, rows)
        assert found["callers"] == CALLERS
    assert "no request has its messages" in by_api["obstacles"][0]
    assert not [one for one in by_file["obstacles"] if "no request" in one]


@contextmanager
def logged_by_litellm(folder: Path, upstream: str, database: str) -> Iterator[str]:
    """Runs a LiteLLM proxy whose callers ask before the block. Yields its address.

    Args:
        database: of an empty PostgreSQL, which gets LiteLLM's tables.

    Only Prisma is a stand-in.
    """
    programs = installed_litellm(folder)
    tables = [str(programs / "python"), str(STAND_IN / "tables.py"), database]
    subprocess.run(tables, check=True)  # noqa: S603 - our own script
    own = {
        "DATABASE_URL": database.replace("@/", "@localhost/"),
        "DISABLE_SCHEMA_UPDATE": "true",
        "LITELLM_SALT_KEY": MASTER_KEY,
        "PYTHONPATH": str(STAND_IN),
    }
    config = CONFIG.replace("UPSTREAM", upstream).replace("MODEL", MODEL)
    (folder / "log.yaml").write_text(config, encoding="utf-8")
    with running_litellm("log.yaml", "", folder, programs, **own) as proxy:
        ask_as_callers(proxy)
        eventually(lambda: count_rows(database) >= CALLERS)
        add_write(database)
        date_back(database)
        yield proxy.removesuffix("/v1")


def ask_as_callers(proxy: str) -> None:
    with openai.OpenAI(base_url=proxy, api_key=MASTER_KEY, max_retries=0) as client:

        def ask(number: int) -> None:
            client.chat.completions.create(
                model="support",
                messages=[{"role": "user", "content": question(number)}],
                user=f"caller-{number}",
            )

        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(ask, range(CALLERS)))


def count_rows(database: str) -> int:
    with psycopg.connect(database) as db:
        row = db.execute('SELECT count(*) FROM "LiteLLM_SpendLogs"').fetchone()
    return int(row[0]) if row else 0


def date_back(database: str) -> None:
    """Moves the rows to the days before today."""
    with psycopg.connect(database) as db:
        for column in ("startTime", "endTime", "completionStartTime"):
            db.execute(
                f'UPDATE "LiteLLM_SpendLogs" SET "{column}" = "{column}" - '  # noqa: S608
                "(1 + abs(hashtext(end_user)) %% %s) * interval '1 day'",
                (DAYS,),
            )


def add_write(database: str) -> None:
    """Adds a copy of a row whose request would send mail by a remote server."""
    messages = [{"role": "user", "content": WRITE}]
    request = {"model": MODEL, "messages": messages, "tools": [MAIL]}
    changed = json.dumps({"request_id": "write", "proxy_server_request": request})
    with psycopg.connect(database) as db:
        db.execute(
            'INSERT INTO "LiteLLM_SpendLogs" SELECT (jsonb_populate_record(log, %s)).*'
            ' FROM "LiteLLM_SpendLogs" log LIMIT 1',
            (changed,),
        )
