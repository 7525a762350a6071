"""`swapproof suite draw` writes a suite from a log, registers the draw, and sends nothing."""

import json
import shlex
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from harness.frame.runtime.clock import SystemClock
from harness.operations.records import Captures
from harness.providers.records import Providers
from harness.routing.capture import CapturedRequest, CaptureResult
from harness.routing.shadow_pair import CANDIDATE, CandidateAnswer, CandidateOutcome
from tests.support.evals.spend_log import spend_row, spend_rows, write_spend_log
from tests.support.site.command_line import CommandLine
from tests.support.site.documented_commands import shell_blocks

pytestmark = pytest.mark.req("F9", "D8")

NOW = SystemClock().now()
WHY = "a simulated model has no maker"


@pytest.fixture
def cli(cli: CommandLine) -> CommandLine:
    cli.run("route", "settings", "chat", "--data-class", "personal", "--reason", "people")
    return cli


def draw(cli: CommandLine, *words: str, **given: Any) -> Any:
    return cli.json(
        *("suite", "draw", "traffic", "--route", "chat", "--from", "spend.jsonl"),
        *("--judge", "sim/judge", "--judge-anyway", WHY, *words),
        **given,
    )


@pytest.mark.spine
@pytest.mark.req("H3")
def test_a_drawn_suite_has_the_users_answers_and_its_registration(cli: CommandLine) -> None:
    hosted = spend_row(900, NOW, tools=[{"type": "mcp", "server_url": "https://mail.example"}])
    rows = [*spend_rows(NOW, 80), {**hosted, "startTime": spend_rows(NOW, 1)[0]["startTime"]}]
    write_spend_log(cli.folder / "spend.jsonl", rows)

    drawn = draw(cli)

    assert drawn["items"] == 80
    assert drawn["not_drawn"] == {"with a tool that the provider runs": 1}
    assert drawn["receivers"]["the incumbent, asked again"] == "sim/base"
    lines = (cli.folder / "suites/traffic.jsonl").read_text(encoding="utf-8").splitlines()
    assert "mail.example" not in "".join(lines)
    item = json.loads(lines[0])
    assert item["target"].startswith("Order ")
    assert item["metadata"]["production"]["settings"] == {
        "temperature": None,
        "max_tokens": None,
    }
    manifest = (cli.folder / "suites/manifest.toml").read_text(encoding="utf-8")
    for name in ("source_sha256", "seed", "first_day", "last_day", "per_day", "not_drawn"):
        assert f"{name} = " in manifest
    settings = (cli.folder / "swapproof.yaml").read_text(encoding="utf-8")
    assert '"judge_anyway"' in settings
    assert 'cluster: "caller"' in settings
    assert WHY in settings
    (event,) = [event for event in cli.json("audit", "tail") if event["action"] == "suite.draw"]
    assert event["subject"] == "suite traffic"


def test_what_is_left_out_and_what_is_compared_is_counted_once_with_its_noun(
    cli: CommandLine,
) -> None:
    hosted = spend_row(900, NOW, tools=[{"type": "mcp", "server_url": "https://mail.example"}])
    rows = [*spend_rows(NOW, 80), {**hosted, "startTime": spend_rows(NOW, 1)[0]["startTime"]}]
    write_spend_log(cli.folder / "spend.jsonl", rows)

    drawn = cli.run(
        *("suite", "draw", "traffic", "--route", "chat", "--from", "spend.jsonl"),
        *("--judge", "sim/judge", "--judge-anyway", WHY),
    )
    cli.run("route", "settings", "chat", "--suite", "traffic", "--reason", "our traffic")
    brief = cli.run("proposal", "create", "chat", "sim/better")

    assert "not drawn: 1 with a tool that the provider runs\n" in drawn.stderr
    assert "traffic (primary): superior, 80 clusters, shows differences" in brief.stdout


def test_a_draw_stores_the_price_of_its_judge_at_once(cli: CommandLine) -> None:
    """A control process that runs already would not know the costs of judging."""
    config = cli.folder / "swapproof.yaml"
    config.write_text(
        config.read_text("utf-8").replace("personal: [sim]", "personal: [sim, openai]"), "utf-8"
    )
    cli.run("provider", "add", "openai", "--kind", "openai")
    write_spend_log(cli.folder / "spend.jsonl", spend_rows(NOW, 80))

    draw(cli, "--judge", "openai/gpt-4.1")

    with cli.world.store.read() as tx:
        assert "gpt-4.1" in Providers(tx).all()["openai"].prices


def test_the_same_dates_give_the_same_draw_whatever_else_the_file_has(cli: CommandLine) -> None:
    rows = spend_rows(NOW, 80)
    write_spend_log(cli.folder / "spend.jsonl", rows)
    first = draw(cli, "--items", "40")
    content = (cli.folder / "suites/traffic.jsonl").read_bytes()

    write_spend_log(cli.folder / "spend.jsonl", [*rows, spend_row(500, NOW)])
    second = draw(cli, "--items", "40", "--replace")

    assert (first["items"], second["items"]) == (40, 40)
    assert (cli.folder / "suites/traffic.jsonl").read_bytes() == content


def test_a_record_whose_class_nobody_knows_is_not_drawn(cli: CommandLine) -> None:
    cli.run("route", "settings", "chat", "--data-class", "", "--reason", "test")
    write_spend_log(cli.folder / "spend.jsonl", spend_rows(NOW, 30))

    done = cli.run(
        *("suite", "draw", "traffic", "--route", "chat", "--from", "spend.jsonl"),
        *("--judge", "sim/judge", "--judge-anyway", WHY),
        exits=7,
    )

    assert "cannot tell who may see its records" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--judge-anyway", ""), 2, "does not show who made the judge"),
        (("--judge", "sim/base"), 2, "is the incumbent"),
        (("--judge", "gemini/x"), 1, "add it by `swapproof provider add gemini`"),
        (("--days", "9"), 2, "draws from 7 whole days"),
    ],
)
def test_a_judge_of_the_family_and_days_beyond_the_policy_are_refused(
    cli: CommandLine, words: tuple[str, ...], code: int, sentence: str
) -> None:
    write_spend_log(cli.folder / "spend.jsonl", spend_rows(NOW, 30))

    done = cli.run(
        *("suite", "draw", "traffic", "--route", "chat", "--from", "spend.jsonl"),
        *("--judge", "sim/judge", "--judge-anyway", WHY, *words),
        exits=code,
    )

    assert sentence in " ".join(done.stderr.split())
    assert not (cli.folder / "suites").exists()


def test_captures_are_drawn_without_those_that_would_act_at_the_provider(
    cli: CommandLine,
) -> None:
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    captures = [capture_of(number, midnight) for number in range(40)]
    captures[7] = replace(
        captures[7], content={**captures[7].content, "provider_state": "`mcp_servers`"}
    )
    limited = {**captures[8].content, "settings": {"temperature": None, "max_tokens": 64}}
    captures[8] = replace(captures[8], content=limited)
    with cli.world.store.write() as tx:
        for capture in captures:
            Captures(tx).store(capture, most_per_day=1_000)

    drawn = draw(cli, "--from", "captures")

    assert drawn["items"] == 39
    assert drawn["not_drawn"] == {"with `mcp_servers`": 1}
    lines = (cli.folder / "suites" / "traffic.jsonl").read_text(encoding="utf-8").splitlines()
    limits = {
        item["id"]: item["metadata"]["production"]["settings"]
        for item in map(json.loads, lines)
    }
    assert limits.pop(captures[8].id) == {"temperature": None, "max_tokens": 64}
    assert {settings["max_tokens"] for settings in limits.values()} == {None}


def test_a_shadows_pairs_are_not_drawn_beside_the_sampled_requests(cli: CommandLine) -> None:
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    captures = [capture_of(number, midnight) for number in range(40)]
    pending = CandidateAnswer("sim/better", due=NOW + timedelta(days=1))
    # The same request as a sampled one's, and one that only the shadow has.
    pairs = [
        replace(capture_of(number, midnight), id=f"pair_{number}", shadow="sh_1")
        for number in (3, 50)
    ]
    with cli.world.store.write() as tx:
        for capture in captures:
            Captures(tx).store(capture, most_per_day=1_000)
        for pair in pairs:
            Captures(tx).store_pair(replace(pair, content={}, candidate=pending))
            done = replace(pending, outcome=CandidateOutcome.ANSWERED)
            content = {**pair.content, CANDIDATE: {"content": "Not of the incumbent."}}
            stored = replace(pair, content=content, candidate=done)
            assert Captures(tx).store_pair(stored) is CaptureResult.STORED

    drawn = draw(cli, "--from", "captures")

    assert drawn["items"] == 40
    written = b"".join(file.read_bytes() for file in (cli.folder / "suites").iterdir())
    assert b"pair_" not in written
    assert b"Not of the incumbent." not in written


def capture_of(number: int, midnight: datetime) -> CapturedRequest:
    at = midnight - timedelta(hours=1 + number)
    return CapturedRequest(
        id=f"cap_{number:024}",
        at=at,
        expires_at=midnight + timedelta(days=30),
        route="chat",
        request=f"r{number}",
        endpoint="chat",
        stream=False,
        arm="incumbent",
        target="sim/base",
        revision=1,
        data_class="personal",
        user_hash="",
        share_bps=100,
        rules="0" * 64,
        redactions={},
        content={
            "messages": [{"role": "user", "content": f"Order {number} and item {number}x?"}],
            "answer": {"role": "assistant", "content": f"Order {number} is here."},
        },
        caller=f"caller-{number}",
    )


def test_the_commands_of_the_page_work_in_their_order(cli: CommandLine) -> None:
    write_spend_log(cli.folder / "spend.jsonl", spend_rows(NOW, 80))
    cli.run(
        *("route", "create", "support", "--incumbent", "sim/base", "--suite", "colours"),
        *("--data-class", "personal"),
    )
    ours = {
        "anthropic/claude-sonnet-5-5": ["sim/judge", "--judge-anyway", WHY],
        "openai/gpt-6-luna": ["sim/better", "--accept-cost", "9", "--because", "a test"],
    }
    said = []
    for block in shell_blocks("how-to/traffic-suite.md"):
        for line in block.splitlines():
            words = [word for told in shlex.split(line)[1:] for word in ours.get(told, [told])]
            said.append(cli.run(*words).stderr)

    assert "sends users' contents to sim/better (candidate), sim/judge (judge)" in " ".join(
        said[-1].split()
    )
    assert "sim/base (incumbent, asked again)" in " ".join(said[-1].split())


def test_equal_names_of_sessions_of_different_users_are_different_runs(
    cli: CommandLine,
) -> None:
    """Applications count the sessions of each user from 1."""
    tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    opened = [{**row, "session_id": "1"} for row in spend_rows(NOW, 40, tools=tools)]
    rows = []
    for row in opened:
        body = json.loads(row["proxy_server_request"])
        reply = json.loads(row["response"])["choices"][0]["message"]
        history = [*body["messages"], reply, {"role": "user", "content": "And the invoice?"}]
        later = datetime.fromisoformat(row["startTime"]) + timedelta(seconds=9)
        second = {
            "request_id": f"{row['request_id']}-2",
            "startTime": later.isoformat(),
            "proxy_server_request": json.dumps({**body, "messages": history}),
        }
        rows += [row, {**row, **second}]
    write_spend_log(cli.folder / "spend.jsonl", rows)

    assert draw(cli)["runs"] == {"complete": 40}
