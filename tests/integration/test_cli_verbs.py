import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import click
import pytest

from evals.sim.server import simulator
from harness.frame.runtime.clock import SystemClock
from harness.interfaces.cli.program import program
from harness.operations.records import Captures
from tests.contract.test_store_observations import ONE
from tests.support.control.waiting_switch import waiting_switch
from tests.support.providers.scripted_chat import Response, serving
from tests.support.providers.simulator_thread import serve_in_thread
from tests.support.site.command_line import CommandLine

# These end only when they are stopped, or are no verbs for data.
PROCESSES = {
    "mcp",
    "serve all",
    "serve agents",
    "serve control",
    "serve router",
    "serve ui",
    "serve drive flagd",
    "serve drive litellm",
    "sim traffic",
    "demo",
    "eval-worker",
    "eval-worker-template",
    "router-worker",
    "worker",
    "gate run",  # tests/integration/test_gate_run.py
    "proof verify",  # tests/integration/test_proof_export.py
    "attach",  # tests/unit/test_attach.py
    "suite draw",  # tests/integration/test_suite_draw.py
    "completion",
    "docs generate",
}
PAIRS = "item,incumbent,candidate\n" + "".join(f"{n},0,1\n" for n in range(40))
BLOCKS = "block,requests,canary_requests,failures,canary_failures\n1,100,10,0,0\n"


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> set[str]:
    if not isinstance(command, click.Group):
        return {" ".join(path)}
    with click.Context(command) as ctx:
        found = set()
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            found |= leaves(inner, (*path, name))
        return found


def test_every_verb_answers_with_one_json_document(cli: CommandLine) -> None:
    asked: set[str] = set()

    def ask(*words: str, exits: int = 0) -> object:
        asked.update(" ".join(words[:count]) for count in (1, 2, 3))
        return cli.json(*words, exits=exits)

    (cli.folder / "pairs.csv").write_text(PAIRS)
    (cli.folder / "blocks.csv").write_text(BLOCKS)
    ask("init")
    ask("doctor", exits=1)  # the provider does not answer
    ask("doctor", "--tools", "sim/base", exits=1)
    for noun, verbs in {
        "db": ("upgrade", "check"),
        "config": ("schema", "show", "apply"),
    }.items():
        for verb in verbs:
            ask(noun, *verb.split())
    provider_verbs(ask)
    model_verbs(ask)
    made = (
        "--incumbent",
        "sim/base",
        "--suite",
        "colours",
        "--policy",
        "approved",
    )
    for name in ("chat2", "chat3"):
        ask("route", "create", name, *made)
    ask("route", "list")
    for look in ("measured", "traffic"):
        ask("route", look)
    chain_verbs(ask)
    run = ask("eval", "run", "colours", "sim/base", "--items", "5")
    assert isinstance(run, dict)
    ask("eval", "list", "--limit", "5")
    ask("eval", "show", run["run"]["id"])
    ann = cli.acting("ann", "proposer")
    ids = [
        ask("proposal", "create", route, "sim/better", *words)["proposal"]["id"]  # type: ignore[index]
        for route, words in (
            ("chat", ann),
            ("chat2", ann),
            ("chat3", ()),
        )
    ]
    cli.world.until_decided(ids[2])
    ask("proposal", "list", "--limit", "1")
    for about in (
        ("proposal", "show"),
        ("proposal", "report"),
        ("gate", "replay"),
    ):
        ask(*about, ids[0])
    ask("proof", "export", ids[0])
    ask("label", ids[0])
    ask("proposal", "approve", ids[1])
    ask(
        "proposal",
        "accept-cost",
        "chat3",
        "sim/equal",
        "--up-to",
        "2",
        "--because",
        "it helps",
    )
    ask("proposal", "reject", ids[2], "--reason", "not now")
    ask("canary", "status")
    for step in ("pause", "resume", "abort"):
        ask("canary", step, "chat", "--reason", "a rehearsal")
    ask("status")
    fourth = ask("proposal", "create", "chat3", "sim/equal")
    ask("proposal", "cancel", fourth["proposal"]["id"])  # type: ignore[index]
    canary_verbs(cli, ask, ids[1])
    ask("route", "rollback", "chat2", "--reason", "a rehearsal")
    switch = ask(
        "switch",
        "throw",
        "provider:sim",
        "--for",
        "2h",
        "--reason",
        "a drill",
    )
    ask("switch", "list")
    (notice,) = ask("status")["switches"]  # type: ignore[index]
    assert notice.startswith("✕ Kill switch: provider:sim is forced for all routes. local: a ")
    lift = ("switch", "lift", switch["id"], "--reason", "over")  # type: ignore[index]
    ask(*lift)
    assert "was already lifted by local" in cli.text(*lift)
    credential_verbs(cli, ask)
    for verbs_of in (
        key_verbs,
        freeze_verbs,
        person_verbs,
        trouble_verbs,
        shadow_verbs,
        database_verbs,
    ):
        verbs_of(ask)
    capture_verbs(cli, ask)
    agent_verbs(cli, ask)
    file_verbs(ask)

    assert leaves(program) - PROCESSES <= asked


def agent_verbs(cli: CommandLine, ask: Callable[..., object]) -> None:
    ctx = cli.world.context()
    first = waiting_switch(ctx)
    second = waiting_switch(ctx)
    waiting = ask("agent", "requests")
    assert isinstance(waiting, list)
    assert {request["id"] for request in waiting} == {first.id, second.id}
    ask("agent", "show", first.id)
    assert "helper wants to switch to sim/better. Approve?" in cli.text("agent", "requests")
    assert "it is cleverer" in cli.text("agent", "show", first.id)
    ask("agent", "approve", first.id)
    ask("agent", "reject", second.id, "--reason", "too dear")
    ask("agent", "approve", second.id, exits=6)
    grants = ask("agent", "grants")
    assert isinstance(grants, list)
    ask("agent", "revoke", grants[0]["id"])
    assert "revoked" in cli.text("agent", "grants")
    done = ask("user", "delete", "user-7", "--reason", "ticket 12")
    assert (done["sessions"], done["captures"]) == (2, 0)  # type: ignore[index]
    ask("user", "delete", "user-7", "--reason", "user-7 asked", exits=2)


def database_verbs(ask: Callable[..., object]) -> None:
    for words in (
        ("tail",),
        ("verify",),
        ("export", "log.csv"),
    ):
        ask("audit", *words)
    for look in ("list", "open"):  # as a document no browser is opened
        ask("docs", look)
    ask("db", "grant", "runtime", exits=2)  # SQLite has no roles
    ask("db", "remove-forged", "--reason", "a rehearsal", "--yes")
    ask("db", "accept-restore", "--reason", "a rehearsal")
    # The keys of these tests are in the environment.
    ask("db", "rotate-key", exits=2)
    ask("db", "retire-key", "0" * 16, "--reason", "a rehearsal", exits=2)


def person_verbs(ask: Callable[..., object]) -> None:
    for name in ("dave", "dave-laptop"):
        ask("key", "create", name, "--role", "approver")
    ask("person", "separate", "dave-laptop", "--reason", "it seemed so")
    made = ask("person", "link", "dave-laptop", "dave", "--reason", "he told me")
    assert made["number"] == 2  # type: ignore[index]
    shown = {view["name"]: view["person"] for view in ask("person", "list")}  # type: ignore[attr-defined]
    assert (shown["dave-laptop"], shown["local"]) == ("dave", "")
    assert ask("person", "sessions") == []
    ask("person", "sign-out", "ds_none", "--reason", "a lost laptop", exits=1)


def key_verbs(ask: Callable[..., object]) -> None:
    key = ask("key", "create", "carol")["key"]["id"]  # type: ignore[index]
    for look in ("list", "sign-in-link"):
        ask("key", look)
    ask("key", "opt-outs", key, "canary")
    ask("key", "limits", key, "--budget-day", "5")
    ask("key", "revoke", key)


def break_glass_verbs(cli: CommandLine, ask: Callable[..., object]) -> None:
    glass = ("route", "break-glass")
    ada = cli.acting("ada", "approver")
    why = ("--for", "2h", "--reason", "the vendor switches it off")
    made = ask(*glass, "propose", "chat3", "sim/worse", *why, *ada)
    assert isinstance(made, dict)
    ask(*glass, "confirm", made["id"], *ada, exits=7)
    waits = "break-glass waits for a second person"
    assert waits in ask("status")["headline"]  # type: ignore[index]
    ask(*glass, "confirm", made["id"])
    standing = ask("status")
    assert waits not in standing["headline"]  # type: ignore[index]
    assert "is served without proof until" in standing["break_glass"][0]  # type: ignore[index]
    ask(*glass, "end", made["id"], "--reason", "a drill", *ada)
    listed = ask(*glass, "list")
    assert isinstance(listed, list)
    assert [one["ended_because"] for one in listed] == ["ended by ada: a drill"]


def freeze_verbs(ask: Callable[..., object]) -> None:
    thrown = ("switch", "throw", "freeze", "--route", "chat", "--for", "2h")
    made = ask(*thrown, "--reason", "a drill")
    ask("switch", "list")
    standing = ask("status")
    (notice,) = standing["freezes"]  # type: ignore[index]
    assert notice.startswith("Route chat is frozen until ")
    assert "a drill (local). No canary opens" in notice
    ask("spending")
    ask("switch", "lift", made["id"], "--reason", "over")  # type: ignore[index]


def credential_verbs(cli: CommandLine, ask: Callable[..., object]) -> None:
    break_glass_verbs(cli, ask)
    (cli.folder / "keys.env").write_text("GROQ_API_KEY=gsk-1\n")
    assert ask("provider", "key", "import", "--from", "keys.env") == [
        {
            "provider": "groq",
            "variable": "GROQ_API_KEY",
            "kept": False,
        }
    ]
    ask("provider", "key", "set", "openai", exits=2)  # nothing comes from stdin
    misspelt = cli.run("provider", "key", "set", "opnai", exits=1)
    assert "did you mean 'openai'?" in misspelt.stderr
    ask("provider", "key", "list")
    ask("provider", "key", "rotate-encryption", "--new-key")
    ask("provider", "key", "remove", "groq")
    for way, code in (("login", 2), ("logout", 1)):  # nobody has an application, or signed in
        ask("provider", "key", way, "github_copilot", exits=code)


def provider_verbs(ask: Callable[..., object]) -> None:
    ask("provider", "list")
    ask("provider", "matrix")
    ask("provider", "add", "mistral", "--extra-body", "service_tier=flex")
    ask("provider", "set", "mistral", "--api-base", "http://127.0.0.1:9/v1")
    for given in (
        ["Host=h"],
        ["X-A=1", "x-a=2"],
        ["x-a=1", "x-a=2"],
    ):
        headers = [word for header in given for word in ("--extra-header", header)]
        ask("provider", "set", "mistral", *headers, exits=2)
    ask("provider", "show", "mistral")
    ask("provider", "remove", "mistral")


def trouble_verbs(ask: Callable[..., object]) -> None:
    ask("proposal", "retry", "prop_none", exits=1)
    ask("proposal", "confirm-same-model", "prop_none", "--reason", "one model", exits=1)
    ask("eval", "cancel", "run_none", "--reason", "a rehearsal", exits=1)
    ask("route", "failovers")
    ask("alert", "list")
    ask("alert", "test", exits=1)  # there is no sink
    for look in (("status",), ("status", "chat")):
        ask("drift", *look)
    ask("drift", "run", "chat", exits=1)  # no suite has a drift section
    ask("drift", "accept", "chat", "--reason", "no matter", exits=1)


def shadow_verbs(ask: Callable[..., object]) -> None:
    wanted = (
        "start",
        "chat",
        "sim/worse",
        "--share",
        "5",
        "--reason",
        "a look",
    )
    ask("shadow", *wanted, "--usd-per-day", "much", exits=2)
    ask("shadow", *wanted, "--judge-anyway", "ours", exits=2)  # without a judge
    ask("shadow", *wanted, "--judge", "sim/base", exits=2)  # the route keeps no captures
    started = ask("shadow", *wanted, "--usd-per-day", "none", "--for", "2h")
    assert started["limits"]["share_bps"] == 500  # type: ignore[index]
    assert ask("shadow", "status", "chat")["state"] == "mirroring"  # type: ignore[index]
    assert [row["state"] for row in ask("shadow", "status")] == ["mirroring"]  # type: ignore[attr-defined]
    ask("shadow", "stop", "chat", "--reason", "seen enough")


def file_verbs(ask: Callable[..., object]) -> None:
    ask("try", "pairs.csv")
    ask("gate", "decide", "pairs.csv")
    ask("canary", "decide", "blocks.csv")


def capture_verbs(cli: CommandLine, ask: Callable[..., object]) -> None:
    now = cli.world.clock.now()
    with cli.world.store.write() as tx:
        for number in range(2):
            new = replace(
                ONE,
                id=f"cap_{number}",
                at=now,
                expires_at=now + timedelta(days=1),
            )
            said = {"role": "user", "content": f"{number} is what?"}
            content = {**ONE.content, "messages": [said]}
            Captures(tx).store(replace(new, content=content), most_per_day=5)
    listed = ask("capture", "list")
    assert "is what" not in json.dumps(listed)
    ask("capture", "show", "cap_0")
    ask("capture", "export", "to-label.jsonl", "--near", "1")
    file = cli.folder / "to-label.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["label"] for line in lines] == [None, None]
    done = [
        {
            **line,
            "label": "red",
            "label_author": "ann",
        }
        for line in lines
    ]
    file.write_text("\n".join(json.dumps(line) for line in done))
    ask("suite", "import", file.name, "--suite", "live", "--scorer", "exact")
    assert "suites/live.jsonl" in (cli.folder / "swapproof.yaml").read_text()
    assert "# yaml-language-server" in (cli.folder / "swapproof.yaml").read_text()
    ask("capture", "export", file.name, exits=2)  # its labels would be lost
    suites = {row["name"]: row["routes"] for row in ask("suite", "list")}  # type: ignore[attr-defined]
    assert (suites["colours"], suites["live"]) == (
        ["chat", "chat2", "chat3"],
        [],
    )
    ask("eval", "run", "live", "sim/base")
    assert ask("capture", "purge", "--all") == {"deleted": 2}
    ask("capture", "purge", exits=2)  # of what?
    audited = json.dumps(ask("audit", "tail"))
    assert all(f"capture.{verb}" in audited for verb in ("read", "export", "purge"))


def model_verbs(ask: Callable[..., object]) -> None:
    ask("model", "add", "sim/better")
    ask("model", "list")
    ask("model", "price", "sim/better", "1", "2")
    ask("model", "resolve", "sim/better")
    ask("model", "match", "better")
    ask("model", "search", "sonnet")
    ask("model", "list", "--all")
    ask("model", "probe", "sim/better", exits=1)
    ask("model", "discover", "sim", exits=1)  # nothing answers there


def canary_verbs(
    cli: CommandLine,
    ask: Callable[..., object],
    proposal: str,
) -> None:
    # The commands before took the machine's time, which a route's versions follow.
    behind = SystemClock().now() - cli.world.clock.now()
    cli.world.clock.jump(behind.total_seconds())
    cli.world.until_decided(proposal)
    cli.world.run_once()
    for step in ("advance", "promote", "finish"):
        assert "--reason" in cli.run("canary", step, "chat2", exits=2).stderr
        ask("canary", step, "chat2", "--reason", "a rehearsal")
    for look in ("explain", "plan", "callers"):
        ask("canary", look, "chat2")
    ask("canary", "who", "user-7")
    expected = ("--callers-per-day", "2000", "--requests-per-day", "9000")
    assert "takes" in cli.run("canary", "plan", "chat2", *expected).stdout.lower()
    assert (
        "--callers-per-day" in cli.run("canary", "plan", "chat2", *expected[2:], exits=2).stderr
    )


def chain_verbs(ask: Callable[..., object]) -> None:
    for look in ("show", "history", "diff", "candidates"):
        ask("route", look, "chat")
    ask("route", "settings", "chat3", "--stakes", "high")
    target = ("chat3", "sim/worse")
    why = ("--reason", "a rehearsal")
    ask(
        "route",
        "fallback",
        "add",
        *target,
        "--waive",
        "a rehearsal",
        "--for",
        "1d",
        *why,
    )
    ask("route", "fallback", "mark", *target, "--capable", *why)
    ask("route", "fallback", "order", *target, *why)
    ask("route", "fallback", "list", "chat3")
    ask("route", "fallback", "spares", "chat3")
    ask("route", "fallback", "remove", *target, *why)


def test_a_dry_run_shows_the_plan_stores_nothing_and_is_refused_as_the_proposal_would_be(
    cli: CommandLine,
) -> None:
    done = cli.run("proposal", "create", "chat", "sim/better", "--dry-run", "--explain")
    brief = cli.run("proposal", "create", "chat", "sim/better", "--dry-run")

    assert "60" in done.stdout
    assert "colours (primary): superior, 60 items, shows differences from" in brief.stdout
    assert len(brief.output.splitlines()) <= 12
    assert "MAY BE CLAIMED" in done.stdout
    assert "With 60 items the gate can only show" in done.stderr
    assert "1st candidate on this route in 90 days: up to 5 %" in done.stderr
    assert cli.json("proposal", "list") == []
    wide = (
        "proposal",
        "create",
        "chat",
        "sim/better",
        "--margin",
        "0.9",
        "--dry-run",
    )
    assert "a margin of 0.9, above" in cli.error(*wide, exits=7)
    assert [model["target"]["name"] for model in cli.json("model", "list")] == ["sim/base"]
    cli.run("proposal", "create", "chat", "sim/better")
    cli.run("proposal", "create", "chat", "sim/equal", "--dry-run", exits=6)
    cli.run("proposal", "create", "chat", "sim/base", "--dry-run", exits=2)


@pytest.mark.req("A8")
def test_a_request_patch_makes_another_target(cli: CommandLine) -> None:
    patched = cli.json(
        "model",
        "add",
        "sim/better",
        "--param",
        "temperature=0.2",
        "--param",
        "user=someone",
        "--patch-param",
        'stop=["END"]',
        "--prompt-addendum",
        "Answer in JSON.",
        "--response-format",
        '{"type": "json_object"}',
    )

    assert patched["parameters"] == {"temperature": 0.2, "user": "someone"}
    assert patched["request_patch"] == {
        "parameters": {"stop": ["END"]},
        "prompt_addendum": "Answer in JSON.",
        "response_format": {"type": "json_object"},
    }
    assert patched["id"] != cli.json("model", "add", "sim/better")["id"]


def test_a_setting_that_makes_no_sense_is_refused(cli: CommandLine) -> None:
    for option, value in (
        ("--param", "temperature"),
        ("--param", "=1"),
        ("--response-format", "{"),
        ("--response-format", "[]"),
    ):
        assert option in cli.error("model", "add", "sim/better", option, value, exits=2)


@pytest.mark.req("D5")
def test_a_probe_asks_the_real_provider(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIM_KEY", "sk-of-the-test")
    with serving(lambda _: Response("ready")) as served:
        configure(
            cli,
            f"  other: {{api_base: '{served.url}', api_key_env: SIM_KEY}}\n",
        )
        found = cli.json("model", "probe", "other/m")
        assert "answered" in cli.text("model", "probe", "other/m")
        made = cli.json("model", "add", "other/m", "--param", "temperature=0.5")
        cli.run("model", "probe", made["id"])

    assert (found["ok"], found["answer"]) == (True, "ready")
    assert found["served_model"] == "served-1@fp"
    assert found["latency_ms"] > 0
    first, *others = served.requests
    assert (first["authorization"], first["model"]) == (
        "Bearer sk-of-the-test",
        "m",
    )
    assert [request["temperature"] for request in others if "temperature" in request] == [0.5]


@pytest.mark.req("D5", "A2")
def test_a_probe_asks_each_kind_at_the_endpoints_that_it_has(cli: CommandLine) -> None:
    with serve_in_thread(simulator(time_scale=0)) as url:
        kinds = f"  claude: {{kind: anthropic, api_base: '{url}'}}\n"
        configure(cli, f"{kinds}  near: {{kind: vllm, api_base: '{url}/v1'}}\n")
        found = cli.json("model", "probe", "claude/sim-base")
        missing = cli.json("model", "probe", "claude/sim-gone", exits=1)
        near = cli.json("model", "probe", "near/sim-base")

    assert (found["ok"], found["served_model"]) == (True, "sim-base")
    assert found["answer"]
    assert found["output_tokens"] > 0
    assert "sim-gone" in missing["error"]
    assert near["native"] == {"responses": "", "messages": ""}
    line = 'models: {"sim-base": {responses: native, messages: native}}'
    assert near["declare"] == line


@pytest.mark.req("D5")
def test_a_probe_says_how_it_failed_or_that_embeddings_alone_are_made(cli: CommandLine) -> None:
    vector = Response(raw=b'{"data":[{"index":0,"embedding":[0.5,0.25,1]}],"model":"m"}')
    answers: dict[str, Response] = {}
    with serving(
        lambda body: vector if "input" in body and "embeds" in answers else answers["chat"]
    ) as served:
        configure(cli, f"  near: {{kind: vllm, api_base: '{served.url}'}}\n")
        for refusal in (
            Response(status=404, raw=b'{"detail":"Not Found"}'),
            Response(
                status=400,
                raw=b'{"error":{"message":"\\"m\\" does not support chat"}}',
            ),
            Response(
                status=501,
                raw=b'{"error":{"message":"started with --embeddings"}}',
            ),
        ):
            answers |= {"chat": refusal, "embeds": vector}
            found = cli.json("model", "probe", "near/m")
            assert found["ok"] is True
            assert "a vector of 3 numbers" in found["answer"]
            assert found["declare"] == 'models: {"m": {chat: false}}'
        del answers["embeds"]
        for response, words in (
            (Response(status=401), "wants a key"),
            (
                Response(
                    status=400,
                    raw=b'{"error": {"message": "no such model"}}',
                ),
                "no such model",
            ),
            (
                Response(status=500, raw=b"<h1>oops</h1>"),
                "500: <h1>oops</h1>",
            ),
            (Response(raw=b"not JSON"), "not JSON"),
            (
                Response(status=302, headers={"location": "http://127.0.0.1:9/"}),
                "302",
            ),
            (Response(reset=True), "does not answer"),
        ):
            answers["chat"] = response
            found = cli.json("model", "probe", "near/m", exits=1)
            assert found["ok"] is False
            assert words in found["error"]


def configure(cli: CommandLine, provider: str) -> None:
    file = cli.folder / "swapproof.yaml"
    text = file.read_text().replace("suites:\n  colours", f"{provider}suites:\n  colours")
    file.write_text(text)


def test_a_route_shows_its_settings(cli: CommandLine) -> None:
    cli.run("route", "settings", "chat", "--data-class", "personal")
    made = cli.text(
        "route",
        "create",
        "triage",
        "--incumbent",
        "base",
        "--fallback",
        "sim/equal",
        "--suite",
        "colours",
        "--stakes",
        "high",
        "--description",
        "Tickets",
        "--fallback",
        "sim/better",
        "--capable",
        "sim/equal",
        "--keep-warm",
        "1%",
        "--on-content-policy",
        "fallback",
        "--side-effects",
        "--data-class",
        "personal",
        "--capture",
        "5%",
        "--capture-keep-days",
        "7",
        "--responses-state",
        "24h",
        "--override",
        "vision=chat",
    )
    assert made == "route triage is served by sim/base\n"

    shown = cli.text("route", "show", "triage")

    assert "Tickets" in shown
    assert re.search(r"fallbacks +sim/equal, sim/better\n", shown)
    assert re.search(r"capable +sim/equal\n", shown)
    assert "colours (primary)" in shown
    assert "vision=chat" in shown
    assert re.search(r"capture +5 %\n(.*\n)*captured for +7 days", shown)
    route = cli.json("route", "show", "triage")["route"]
    assert route["settings"] | {"suites": []} == {
        "description": "Tickets",
        "stakes": "high",
        "policy": "default",
        "suites": [],
        "total_timeout_s": 120,
        "on_content_policy": "fallback",
        "keep_warm_bps": 100,
        "side_effects": True,
        "capable": route["fallbacks"][:1],
        "data_class": "personal",
        "task": "",
        "capture_bps": 500,
        "candidates": None,
        "capture_per_day": 200,
        "capture_keep_days": 7,
        "responses_state_h": 24,
        "copy_max_bytes": 1024 * 1024,
        "overrides": {"vision": "chat"},
        "first_token_timeout_s": None,
        "first_byte_timeout_s": None,
        "commit": "first_token",
        "on_bad_event": "fail",
        "on_empty_answer": "fail",
        "comparable_vectors": False,
        "failover": "declared",
        "proven": [],
    }


def test_settings_that_are_not_given_stay_as_they_are(cli: CommandLine) -> None:
    cli.run(
        "route",
        "settings",
        "chat",
        "--stakes",
        "high",
        "--keep-warm",
        "0.5%",
    )
    cli.run(
        "route",
        "settings",
        "chat",
        "--description",
        "Talks",
        "--side-effects",
    )
    settings = cli.json("route", "settings", "chat", "--timeout", "9")["settings"]

    assert (settings["stakes"], settings["keep_warm_bps"]) == ("high", 50)
    assert (settings["description"], settings["side_effects"]) == (
        "Talks",
        True,
    )
    (suite,) = settings["suites"]
    assert (
        suite["suite"],
        suite["role"],
        suite["weight"],
    ) == (
        "colours",
        "primary",
        1.0,
    )
    assert settings["total_timeout_s"] == 9
    assert "stakes: low → high; keep warm: 0 % → 0.5 %" in cli.text("route", "history", "chat")
    [told] = cli.json("route", "diff", "chat")["file"]
    for name in ("stakes", "keep_warm_bps", "description", "side_effects"):
        assert name in told
    cli.run(
        "route",
        "create",
        "looks",
        "--incumbent",
        "sim/base",
        "--suite",
        "colours",
    )
    for given in ("image=looks", "vision=looks", "image=", "x-team: a=b=looks"):
        cli.run("route", "settings", "chat", "--override", given)
    kept = cli.json("route", "settings", "chat", "--stakes", "low")["settings"]["overrides"]
    assert kept == {"vision": "looks", "x-team: a=b": "looks"}
    cli.run("route", "settings", "chat", "--override", "sound=looks", exits=2)
    cli.run("route", "settings", "chat", "--override", "vision", exits=2)
    cli.run("route", "settings", "chat", "--keep-warm", "half", exits=2)
    own = (
        "--first-token-timeout",
        "60",
        "--commit",
        "whole",
        "--on-bad-event",
        "skip",
    )
    settings = cli.json("route", "settings", "chat", *own)["settings"]
    assert [settings[name] for name in ("first_token_timeout_s", "commit", "on_bad_event")] == [
        60,
        "whole",
        "skip",
    ]
    [told] = cli.json("route", "diff", "chat")["file"]
    assert "first_token_timeout_s, commit, on_bad_event" in told
    settings = cli.json("route", "settings", "chat", "--first-token-timeout", "0")["settings"]
    assert (settings["first_token_timeout_s"], settings["commit"]) == (
        None,
        "whole",
    )
    cli.run("route", "settings", "chat", "--first-byte-timeout", "-1", exits=2)
    cli.run("route", "settings", "chat", "--timeout", "0", exits=2)
    unknown = cli.run("route", "settings", "chat", "--data-class", "secret", exits=1)
    assert "no data class 'secret'" in unknown.stderr


def test_the_file_differs_from_the_database_and_the_diff_says_so(cli: CommandLine) -> None:
    file = cli.folder / "swapproof.yaml"
    file.write_text(file.read_text().replace("incumbent: sim/base", "incumbent: sim/other"))

    found = cli.json("route", "diff", "chat")

    assert found["changed"] == {}
    assert "sim/other" in found["file"][0]
    assert "the same" in cli.run("route", "diff", "chat", "1", "1").stderr


def test_what_speaks_against_a_step_by_hand_is_said_before_it_is_taken(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = cli.acting("ann", "proposer")
    proposal = cli.json("proposal", "create", "chat", "sim/better", *ann)["proposal"]["id"]
    cli.world.until_decided(proposal)
    cli.world.run_once()
    cli.world.feed(failing=True)
    cli.world.feed(blocks=8)
    cli.world.feed(failing=True)
    step = ("canary", "advance", "chat", "--reason", "agreed")
    assert "▲ against a step by hand: The canary fails" in cli.text("canary", "explain", "chat")

    monkeypatch.setattr("harness.interfaces.cli.canary.at_a_terminal", lambda: True)
    asked = cli.run(*step, exits=130)  # nobody answers: it stays where it is
    assert asked.stderr.startswith("warning: The canary fails more often than the incumbent")
    assert "Continue anyway?" in asked.stderr
    assert cli.json("canary", "status", "chat")[0]["rollout"]["step"] == 0

    monkeypatch.setattr("harness.interfaces.cli.canary.at_a_terminal", lambda: False)
    done = cli.run(*step)
    assert done.stderr.startswith("warning: The canary fails more often than the incumbent")
    assert cli.json("canary", "status", "chat")[0]["rollout"]["step"] == 1


def test_a_keys_limits_are_set_changed_one_by_one_and_listed(cli: CommandLine) -> None:
    cli.run(
        "key",
        "create",
        "web",
        "--requests-per-min",
        "60",
        "--budget-month",
        "20.5",
    )
    (key,) = (key for key in cli.json("key", "list") if key["name"] == "web")

    assert "60 requests/min, $20.50 a month" in cli.text("key", "list")
    changed = cli.text(
        "key",
        "limits",
        key["id"],
        "--requests-per-min",
        "none",
        "--tokens-per-min",
        "9000",
    )
    assert changed == f"{key['id']}: 9000 tokens/min, $20.50 a month\n"

    (key,) = (key for key in cli.json("key", "list") if key["name"] == "web")
    assert key["limits"] == {
        "requests_per_min": None,
        "tokens_per_min": 9000.0,
        "budget_day_usd": None,
        "budget_month_usd": 20.5,
        "warn_share": 0.8,
    }
    assert key["spent"]["month_usd"] == 0
    lift = ("--tokens-per-min", "none", "--budget-month", "none")
    assert cli.text("key", "limits", key["id"], *lift) == f"{key['id']}: no limits\n"

    opted_out = cli.text("key", "opt-outs", key["id"], "canary", "capture")
    assert opted_out == f"{key['id']}: canary, capture\n"
    assert cli.text("key", "opt-outs", key["id"], "none") == f"{key['id']}: no opt-outs\n"
    cli.run("key", "opt-outs", key["id"], "none", "canary", exits=2)

    cli.run("key", "limits", key["id"], exits=2)
    cli.run("key", "limits", key["id"], "--budget-day", "-1", exits=2)
    cli.run("key", "limits", key["id"], "--budget-day", "much", exits=2)
    cli.run("key", "limits", "key_none", "--budget-day", "1", exits=1)
    cli.run(
        "key",
        "create",
        "eve",
        "--role",
        "viewer",
        "--budget-day",
        "1",
        exits=2,
    )
    assert cli.text("key", "revoke", key["id"]) == f"revoked {key['id']}\n"
    assert "was already revoked" in cli.text("key", "revoke", key["id"])


def test_passwords_and_header_values_are_not_shown(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWAPPROOF__DATABASE_URL", "postgresql://me:tops3cret@localhost/db")
    configure(
        cli,
        "  other: {api_base: 'http://x', extra_headers: {x-key: hush}}\n",
    )

    shown = cli.text("config", "show")

    assert "me:***@localhost" in shown
    assert "x-key" in shown
    assert "hush" not in shown
    assert "tops3cret" not in json.dumps(cli.json("config", "show"))
    origins = {row["name"]: row for row in cli.json("config", "show", "--origin")}
    assert origins["database_url"]["place"] == "SWAPPROOF__DATABASE_URL"
    assert origins["providers.other.api_base"]["source"] == "file"
    assert origins["router.port"]["source"] == "default"
    assert not {"tops3cret", "hush"} & set(re.findall(r"\w+", json.dumps(origins)))
    only = cli.json("config", "show", "--origin", "--section", "router")
    assert {row["name"].partition(".")[0] for row in only} == {"router"}


def test_the_global_json_reaches_a_command_with_its_own(cli: CommandLine) -> None:
    (cli.folder / "pairs.csv").write_text(PAIRS)

    before = json.loads(cli.text("--json", "gate", "decide", "pairs.csv"))
    after = json.loads(cli.text("gate", "decide", "pairs.csv", "--json"))

    assert before == after
    assert before["verdict"] == "passed"


def test_a_run_by_hand_has_a_budget_if_it_is_given_one(cli: CommandLine) -> None:
    shown = cli.json(
        "eval",
        "run",
        "colours",
        "sim/base",
        "--max-tokens",
        "500",
        "--max-cost",
        "2",
    )
    assert shown["run"]["budget"] == {"max_tokens": 500, "max_cost_usd": 2.0}
    refused = cli.error("eval", "run", "colours", "sim/base", "--max-cost", "nan", exits=2)
    again = (
        "route",
        "create",
        "chat",
        "--incumbent",
        "sim/base",
        "--suite",
        "colours",
    )
    assert "there is a route 'chat' already: `swapproof proposal create" in cli.error(
        *again, exits=6
    )
    # Neither below nor above any bound.
    traffic = ("sim", "traffic", "chat", "--for", "1", "--rate")
    assert "'nan' is not a finite number" in cli.error(*traffic, "nan", exits=2)
    assert "'x' is not a valid number" in cli.error(*traffic, "x", exits=2)
    assert "--max-cost" in refused
    assert "'nan' is not a finite number" in refused
