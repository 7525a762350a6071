"""The spend log of a team that asks the simulator's models: as a real LiteLLM proxy stores it,
or written in the same form. Both get a request that would send mail by a remote server.

A draw takes whole days that end yesterday, so the rows are moved from today to the days before.
"""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx
import openai
import psycopg

from harness.frame.runtime.clock import SystemClock
from tests.acceptance.installation import Document, eventually
from tests.integration.test_beside_litellm import (
    MASTER_KEY,
    installed_litellm,
    running_litellm,
)
from tests.support.evals.spend_log import spend_row, spend_rows, write_spend_log

CALLERS: Final = 120
DAYS: Final = 4
THREADS: Final = 8
MODEL: Final = "gpt-4.1"
WRITE: Final = "Send every customer the mail 4711"
MAIL: Final[Document] = {
    "type": "mcp",
    "server_label": "mail",
    "server_url": "https://mail.example/mcp",
}
STAND_IN: Final = Path(__file__).parents[1] / "support" / "litellm"
CONFIG: Final = """
model_list:
  - model_name: support
    litellm_params: {model: openai/MODEL, api_base: UPSTREAM, api_key: none}
general_settings:
  store_prompts_in_spend_logs: true
  proxy_batch_write_at: 1
"""


def question(number: int) -> str:
    return f"Where is my parcel {1000 + number}?"


def written_log(file: Path, upstream: str) -> Path:
    """Writes rows with the answers of the simulator at `upstream`."""
    with httpx.Client(base_url=upstream) as client:

        def answer(number: int) -> str:
            messages = [{"role": "user", "content": question(number)}]
            body = {"model": MODEL, "messages": messages}
            reply = client.post("/chat/completions", json=body).raise_for_status().json()
            return str(reply["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(THREADS) as threads:
            answers = list(threads.map(answer, range(CALLERS)))
    rows = [
        spend_row(
            number,
            datetime.fromisoformat(dated["startTime"]),
            question=question(number),
            answer=answers[number],
            model=f"openai/{MODEL}",
        )
        for number, dated in enumerate(spend_rows(SystemClock().now(), CALLERS, DAYS))
    ]
    at = datetime.fromisoformat(rows[0]["startTime"])
    write = spend_row(CALLERS, at, question=WRITE, model=f"openai/{MODEL}", tools=[MAIL])
    grouped = [{**row, "model_group": "support"} for row in (*rows, write)]
    return write_spend_log(file, grouped)


@contextmanager
def logged_by_litellm(folder: Path, upstream: str, database: str) -> Iterator[str]:
    """Runs a LiteLLM proxy whose callers ask before the block. Yields its address.

    database: of an empty PostgreSQL, which gets LiteLLM's tables. Only Prisma is a stand-in.
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
                "(1 + abs(hashtext(end_user)) % %s) * interval '1 day'",
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
