import json
import os
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from evals.sim.server import simulator
from harness.frame.configuration.dotenv import DOTENV_FILE_VARIABLE, DOTENV_VARIABLE
from harness.interfaces.cli.operations import init as init_command
from harness.interfaces.cli.program import program
from tests.support.providers.scripted_chat import Response, serving
from tests.support.providers.simulator_thread import serve_in_thread
from tests.support.site import http_thread
from tests.support.site.processes import free_port

# Of each, its fallback.
ROUTES = {
    "one": "b/m",
    "own": "a/n",
    "two": "b/m",
}
SWAPPROOF = str(Path(sys.executable).with_name("swapproof"))


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [variable for variable in os.environ if variable.startswith("SWAPPROOF")]:
        if not name.startswith("SWAPPROOF_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for part in ("ROUTER", "CONTROL", "AGENTS", "UI"):
        monkeypatch.setenv(f"SWAPPROOF__{part}__PORT", str(free_port()))
    return tmp_path


def run(*words: str, exits: int = 0) -> Result:
    done = CliRunner().invoke(program, list(words), prog_name="swapproof")
    assert done.exit_code == exits, f"{words}: {done.exit_code}\n{done.output}"
    return done


def statuses(exits: int = 0) -> dict[str, str]:
    found = json.loads(run("doctor", "--json", exits=exits).stdout)
    return {check["subject"]: check["status"] for check in found["checks"]}


@pytest.mark.req("B6")
def test_init_asks_to_keep_a_fallback_at_another_provider_warm(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = "{kind: sim, api_base: 'http://127.0.0.1:9/v1'}"
    routes = (f"{n}: {{incumbent: a/m, fallbacks: [{f}]}}" for n, f in ROUTES.items())
    (empty_folder / "swapproof.yaml").write_text(
        f"providers: {{a: {provider}, b: {provider}}}\nroutes: {{{', '.join(routes)}}}\n"
    )
    said = run("init").stderr
    assert "the fallback provider of one, two gets no requests before a failure" in said

    monkeypatch.setattr(init_command, "is_terminal", lambda: True)
    done = CliRunner().invoke(program, ["init"], input="n\ny\n")
    assert "write `keep_warm: 1%` under routes.two" in done.stderr
    shown = [run("route", "show", name).stdout for name in ("one", "two")]
    assert [re.findall(r"keep warm +(.*)", text) for text in shown] == [
        ["0 %"],
        ["1 %"],
    ]
    again = CliRunner().invoke(program, ["init"], input="n\n")
    assert again.stderr.count("[Y/n]") == 1


LITELLM = """\
model_list:
  - {model_name: m, litellm_params: {model: openai/gpt-4o-mini, weight: 9, silent_model: next}}
  - {model_name: m, litellm_params: {model: openai/gpt-4.1-nano, seed: 1, weight: 1}, rpm: 6}
  - {model_name: next, litellm_params: {model: anthropic/claude-haiku-4-5}}
  - {model_name: "a/*", litellm_params: {model: "anthropic/*"}}
litellm_settings:
  {fallbacks: [{m: [a/claude-opus-4-8, {model: next}]}], default_fallbacks: [m], timeout: 60}
"""


@pytest.mark.verify
def test_every_command_that_the_report_on_litellm_s_file_prints_runs_as_written(
    empty_folder: Path,
) -> None:
    (empty_folder / "config.yaml").write_text(LITELLM)
    done = run("init", "--from", "litellm", "config.yaml")
    commands = re.findall(r"`swapproof ([^`]+)`", done.output)

    printed = [words for words in commands if not words.startswith(("serve", "doctor"))]
    for words in printed:
        run(*shlex.split(words))
    assert {words.split(" ")[0] for words in printed} >= {
        "shadow",
        "proposal",
        "route",
    }
    shown = run("route", "show", "m").stdout
    assert re.search(r"timeout +60 s\n", shown)
    assert re.search(
        r"fallbacks +openai/gpt-4.1-nano#\w+, anthropic/claude-opus-4-8, anthropic/cl",
        shown,
    )


def test_init_makes_an_installation_that_the_doctor_likes(empty_folder: Path) -> None:
    done = run("init")

    secret = empty_folder / ".swapproof/secret.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    created = {Path(line.split(" ", 1)[1]) for line in done.stdout.splitlines()[:9]}
    assert created >= set((empty_folder / ".swapproof").iterdir())
    assert "sg-mgmt-" in done.stdout
    assert "sk-sg-" in done.stdout
    assert "not shown again" in done.stderr
    first = (empty_folder / "swapproof.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=swapproof.schema.json"
    Draft202012Validator.check_schema(
        json.loads((empty_folder / "swapproof.schema.json").read_text())
    )
    found = statuses()
    assert found["database"] == found["audit log"] == found["suite tickets"] == "ok"
    assert found["providers"] == "warn"


def test_a_command_or_a_key_file_that_is_not_there_is_said_with_what_there_is() -> None:
    assert "There are: draw, import, list." in run("suite", "show", exits=2).stderr
    assert "eval-worker" not in run("unheard", exits=2).stderr
    assert "Did you mean 'list'?" in run("suite", "lst", exits=2).stderr
    assert (
        "no.key cannot be read" in run("--key-file", "no.key", "route", "list", exits=2).stderr
    )


def test_init_writes_the_providers_of_keys_that_it_finds_once_somebody_agrees(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / ".env").write_text("OPENAI_API_KEY=sk-a-key-of-a-test\n")
    monkeypatch.setenv("GROQ_API_KEY", "gsk-a-key-of-a-test")
    for taken_from_file in ("OPENAI_API_KEY", DOTENV_VARIABLE):
        monkeypatch.setenv(taken_from_file, "")  # it goes with the test
        monkeypatch.delenv(taken_from_file)
    file = empty_folder / "swapproof.yaml"

    assert "found OPENAI_API_KEY in .env, but no provider uses it" in run("init").stderr
    assert "\nproviders:" not in file.read_text()
    monkeypatch.setattr(init_command, "is_terminal", lambda: True)
    refused = CliRunner().invoke(program, ["init"], input="n\n")
    assert "Add their providers (openai, groq)? [Y/n]" in refused.stderr
    assert "\nproviders:" not in file.read_text()
    written = run("init", "--yes")

    assert "found OPENAI_API_KEY in .env, GROQ_API_KEY in the environment" in written.stderr
    assert "next: add a route to" in written.stderr
    assert '  groq:\n    kind: "groq"\n    api_key_env: "GROQ_API_KEY"\n' in file.read_text()
    known = {
        row["name"]: row for row in json.loads(run("provider", "key", "list", "--json").stdout)
    }
    assert known["openai"]["hasValue"]
    assert "found" not in run("init", "--yes").stderr


@pytest.mark.req("E3")
@pytest.mark.spine
def test_a_key_in_dotenv_is_listed_with_its_place_and_its_removal_names_the_file(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for taken_from_file in (
        "GROQ_API_KEY",
        DOTENV_VARIABLE,
        DOTENV_FILE_VARIABLE,
    ):
        monkeypatch.setenv(taken_from_file, "")  # it goes with the test
        monkeypatch.delenv(taken_from_file)
    file = empty_folder / ".env"
    file.write_text("GROQ_API_KEY=gsk-a-key-of-a-test\n")
    run("init", "--yes")
    run("config", "apply")

    assert "GROQ_API_KEY (.env)" in run("provider", "key", "list").stdout
    refused = run("provider", "key", "remove", "groq", exits=1).stderr
    assert f"Its key comes from GROQ_API_KEY in {file}" in refused
    assert f"delete GROQ_API_KEY from {file}" in refused
    stored = [
        "provider",
        "key",
        "set",
        "groq",
        "--api-base",
        "http://127.0.0.1:9/v1",
    ]
    CliRunner().invoke(program, stored, input="gsk-stored-by-a-test")
    left = run("provider", "key", "remove", "groq")
    assert "groq: removed" in left.stdout
    assert f"Its key comes from GROQ_API_KEY in {file}" in left.stderr
    assert "gsk-" not in refused + left.output


def test_init_again_changes_nothing(empty_folder: Path) -> None:
    run("init")
    (empty_folder / "swapproof.yaml").write_text("home: .swapproof\n# mine\n")
    before = (empty_folder / ".swapproof/secret.key").read_text()

    done = run("init")

    assert "kept" in done.stdout
    assert "keys exist already" in done.stderr
    assert "sg-mgmt-" not in done.output
    assert (empty_folder / "swapproof.yaml").read_text() == "home: .swapproof\n# mine\n"
    assert (empty_folder / ".swapproof/secret.key").read_text() == before
    assert len(json.loads(run("key", "list", "--json").stdout)) == 2


def test_init_brings_in_what_the_file_names(empty_folder: Path) -> None:
    (empty_folder / "swapproof.yaml").write_text(
        "providers: {sim: {api_base: 'http://127.0.0.1:9/v1'}}\n"
        "routes: {triage: {incumbent: sim/a, suites: [tickets]}}\n"
    )

    assert "added route triage" in run("init").stdout
    assert json.loads(run("route", "show", "triage", "--json").stdout)


def test_a_guided_init_makes_a_first_route_and_proposes_a_candidate(empty_folder: Path) -> None:
    run("init", "--guided", "--json", exits=2)
    with serve_in_thread(simulator(time_scale=0)) as url:
        # A name with a slip and no address, and a route's name that none can have, are asked
        # again; then the address, and for all else the simulator's answers.
        answers = f"sims\n\n\n{url}/v1\n\n\n\nsup port\n\n\n\n\n"
        done = CliRunner().invoke(program, ["init", "--guided"], input=answers)

    assert done.exit_code == 0, done.output
    assert "sg-mgmt-" in done.stdout
    assert "created route support: sim/sim-base serves it" in done.stdout
    assert "proposed sim/sim-better" in done.stdout
    assert "'sims' is your own name" in done.stderr
    assert "did you mean 'sim'?" in done.stderr
    assert "'sup port'" in done.stderr
    assert "next: run `swapproof serve all`" in done.stderr
    shown = run("route", "show", "support", "--json").stdout
    assert '"policy": "quick"' in shown
    assert '"total_timeout_s": 10.0' in shown
    file = (empty_folder / "swapproof.yaml").read_text()
    assert 'incumbent: "sim/sim-base"' in file
    assert run("config", "apply").stdout == "nothing to change\n"
    # The list of the simulator's models came first, so both prices are known.
    assert all(listed["price"] for listed in json.loads(run("model", "list", "--json").stdout))
    there = CliRunner().invoke(program, ["init", "--guided"])
    assert there.exit_code == 2
    assert "route support exists already" in there.stderr


def test_a_guided_init_asks_for_no_key_that_dotenv_has(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", DOTENV_VARIABLE):
        monkeypatch.setenv(name, "")  # what the command sets goes with the test
        monkeypatch.delenv(name)
    (empty_folder / ".env").write_text("OPENAI_API_KEY=sk-x\n", encoding="utf-8")
    answers = "openai\nhttp://127.0.0.1:9/v1\ngpt-4o-mini\n\n\n\n-\n"
    done = CliRunner().invoke(program, ["init", "--guided"], input=answers)

    assert done.exit_code == 0, done.output
    assert "Its key is in OPENAI_API_KEY." in done.stderr
    assert "created route support: openai/gpt-4o-mini serves it" in done.stdout


@pytest.mark.spine
@pytest.mark.req("G1")
def test_init_takes_over_another_gateways_configuration(empty_folder: Path) -> None:
    source = empty_folder / "config.yaml"
    source.write_text(
        "model_list:\n"
        "  - model_name: fast\n"
        "    litellm_params: {model: openai/gpt-5-mini, api_key: sk-in-clear, rpm: 5}\n"
    )

    done = run("init", "--from", "litellm", "config.yaml")

    assert "config.yaml:3  model_list.0.litellm_params.rpm" in done.stdout
    assert "added route fast" in done.stdout
    assert "before `swapproof serve all`, set SWAPPROOF_OPENAI_API_KEY" in done.stderr
    assert "sk-in-clear" not in done.output + (empty_folder / "swapproof.yaml").read_text()
    shown = json.loads(run("route", "show", "fast", "--json").stdout)
    assert "openai/gpt-5-mini" in json.dumps(shown)
    again = run("init", "--from", "litellm", "config.yaml", exits=2)
    assert "exists and is unchanged" in again.stderr


def test_init_writes_where_the_config_option_says(empty_folder: Path) -> None:
    (empty_folder / "elsewhere").mkdir()

    run("init", "--config", "elsewhere/mine.yaml")

    assert (empty_folder / "elsewhere/mine.yaml").exists()
    assert (empty_folder / "elsewhere/.swapproof/swapproof.db").exists()
    assert "whole" in run("--config", "elsewhere/mine.yaml", "audit", "verify").stdout
    assert "whole" in run("audit", "verify", "--config", "elsewhere/mine.yaml").stdout


def test_a_folder_that_cannot_be_written_is_one_sentence(empty_folder: Path) -> None:
    (empty_folder / "file").touch()

    done = run("init", "--config", "file/swapproof.yaml", exits=2)

    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("swapproof: cannot write file/swapproof.yaml")


def test_the_doctor_sends_an_empty_folder_to_init(empty_folder: Path) -> None:
    found = statuses(exits=1)

    assert found["configuration"] == "warn"
    assert found["home"] == found["database"] == "fail"
    assert "run `swapproof init`" in run("doctor", exits=1).stdout
    assert not (empty_folder / ".swapproof").exists()


def test_the_doctor_names_the_line_of_a_wrong_file(empty_folder: Path) -> None:
    (empty_folder / "swapproof.yaml").write_text("home: .swapproof\nruoter: {}\n")

    done = run("doctor", exits=1)

    assert "swapproof.yaml:2" in done.stdout
    assert "router" in done.stdout


def test_a_database_that_is_behind_or_away_is_said_in_one_sentence_and_by_the_doctor(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init")
    file = empty_folder / ".swapproof/swapproof.db"
    file.unlink()
    sqlite3.connect(file).close()

    assert statuses(exits=1)["database"] == "fail"
    behind = run("route", "list", exits=1).stderr
    assert behind.startswith("swapproof: ")
    assert "run `swapproof db upgrade`" in behind
    assert run("db", "check", exits=1).stdout
    run("db", "upgrade")
    assert statuses()["database"] == "ok"
    assert "the database fits this version" in run("db", "check").stdout
    secret = empty_folder / ".swapproof/secret.key"
    elsewhere = secret.rename(empty_folder / "elsewhere.key")
    assert statuses(exits=1)["secret"] == "fail"  # noqa: S105 - a status
    elsewhere.rename(secret)

    monkeypatch.setenv("SWAPPROOF__DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    assert statuses(exits=1)["database"] == "fail"
    away = run("route", "list", exits=1).stderr
    assert "does not answer" in away
    assert behind.count("\n") == away.count("\n") == 1


@pytest.mark.parametrize("text", [None, "{\n"])
def test_the_doctor_reads_every_suite(empty_folder: Path, text: str | None) -> None:
    (empty_folder / "swapproof.yaml").write_text("suites: {mine: {path: mine.jsonl}}\n")
    if text is not None:
        (empty_folder / "mine.jsonl").write_text(text)
    run("init")

    assert statuses(exits=1)["suite mine"] == "fail"


@pytest.mark.req("D5")
@pytest.mark.spine
def test_the_doctor_asks_every_provider_and_looks_for_the_models_of_routes(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with (
        serving(lambda _: Response()) as served,
        serve_in_thread(simulator(time_scale=0)) as url,
    ):
        (empty_folder / "swapproof.yaml").write_text(
            "providers:\n"
            f"  lists_nothing: {{api_base: '{served.url}'}}\n"
            "  gone: {api_base: 'http://127.0.0.1:9/v1'}\n"
            "  no_key: {api_base: 'http://127.0.0.1:9/v1', api_key_env: NO_SUCH_KEY}\n"
            f"  sim: {{api_base: '{url}/v1'}}\n"
            "routes: {triage: {incumbent: sim/gone, suites: [tickets]}}\n"
        )
        run("init")
        found = statuses(exits=1)
        said = run("doctor", exits=1).stdout

    # http.server answers 501 to a GET that it does not know.
    assert found["provider lists_nothing"] == "warn"
    assert found["provider gone"] == found["provider no_key"] == "fail"
    assert "it does not know gone" in said


@pytest.mark.req("F11")
def test_the_doctor_names_a_listed_field_that_may_state_an_end_and_is_unknown(
    empty_folder: Path,
) -> None:
    class Lists(http_thread.Exchange):
        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            models = {"data": [{"id": "m", "created": 1, "retire_on": "2026-12-11"}]}
            self.answer(200, json.dumps(models).encode(), {"content-type": "application/json"})

    with http_thread.serving(Lists) as port:
        (empty_folder / "swapproof.yaml").write_text(
            f"providers: {{up: {{api_base: 'http://127.0.0.1:{port}/v1'}}}}\n"
        )
        run("init")
        found = statuses()
        said = " ".join(run("doctor").stdout.split())

    assert found["list of models of up"] == "warn"
    assert 'it has fields that Swapproof cannot read: retire_on ("2026-12-11")' in said


@pytest.mark.usefixtures("empty_folder")
def test_the_doctor_says_who_holds_a_port() -> None:
    run("init")
    for part in ("router", "agents"):
        assert statuses()[f"port of {part}"] == "ok"
        port = int(os.environ[f"SWAPPROOF__{part.upper()}__PORT"])
        with socket.create_server(("127.0.0.1", port)):
            assert statuses(exits=1)[f"port of {part}"] == "fail"


@pytest.mark.usefixtures("empty_folder")
def test_without_init_a_command_says_what_to_run() -> None:
    done = run("route", "list", exits=1)

    assert "run `swapproof init`" in done.stderr
    assert "swapproof init" in run().stdout
    assert json.loads(run("--json").stdout)["installation"] is False


@pytest.mark.usefixtures("empty_folder")
def test_an_error_is_a_document_too() -> None:
    run("init")

    for words in (
        ("--json", "route", "show", "nope"),
        ("route", "show", "nope", "--json"),
    ):
        done = run(*words, exits=1)
        error = json.loads(done.stdout)["error"]
        assert error["kind"] == "NotFound"
        assert error["exit_code"] == 1
        assert error["message"] in done.stderr
    assert json.loads(run("rout", "--json", exits=2).stdout)["error"]["exit_code"] == 2


@pytest.mark.usefixtures("empty_folder")
def test_an_unexpected_error_is_a_sentence_and_with_debug_a_traceback_and_ctrl_c_ends_with_130(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise fault

    monkeypatch.setattr("harness.app.installation.load_settings", broken)
    fault: BaseException = ZeroDivisionError("a fault of ours")
    brief = run("config", "show", exits=1)
    full = run("config", "show", "--debug", exits=1)
    # What Ctrl-C becomes; the signal itself may be another test's in this process.
    fault = KeyboardInterrupt()
    stopped = run("config", "show", exits=130)

    assert "report it" in brief.stderr
    assert "Traceback" in full.stderr
    for done in (brief, stopped):
        assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error(empty_folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run(  # noqa: S603 - our own command
            [SWAPPROOF, "config", "schema"],
            cwd=empty_folder,
            stdout=gone,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )

    assert done.stderr == ""


@pytest.mark.req("F5")
def test_who_acts_is_the_machines_operator_or_a_keys_principal_and_no_name(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init")
    made = json.loads(run("key", "create", "Ops", "--role", "admin", "--json").stdout)
    file = empty_folder / "ops.key"
    file.write_text(made["text"])
    run("key", "create", "one", "--key-file", str(file))
    monkeypatch.setenv("SWAPPROOF_MANAGEMENT_KEY", made["text"])
    run("key", "create", "two")
    monkeypatch.delenv("SWAPPROOF_MANAGEMENT_KEY")

    events = json.loads(run("audit", "tail", "-n", "3", "--json").stdout)
    who = [
        (
            event["actor"],
            event["principal"],
            event["key"],
        )
        for event in events
    ]
    key = made["key"]["id"]
    principal = made["key"]["principal"]
    assert who == [("local", "local", None), *[("Ops", principal, key)] * 2]

    file.write_text("sg-mgmt-nonsense")
    run("key", "create", "three", "--key-file", str(file), exits=7)


@pytest.mark.req("F7")
def test_the_doctor_looks_at_judges_and_at_what_code_runs_behind(empty_folder: Path) -> None:
    (empty_folder / "swapproof.yaml").write_text(
        """
providers:
  jury: {kind: sim, api_base: "http://127.0.0.1:9/v1"}
suites:
  fine: {path: s.jsonl, scorer: rubric, judge: {target: jury/m}}
  dear: {path: s.jsonl, scorer: rubric, judge: {target: jury/m, max_cost_usd: 1}}
  lost: {path: s.jsonl, scorer: rubric, judge: {target: nobody/m}}
  code: {path: s.jsonl, scorer: code}
"""
    )
    (empty_folder / "s.jsonl").write_text(
        '{"input": "a", "target": "x = 1", "metadata": {"rubric": "Is it so?"}}\n'
    )
    run("init")

    found = statuses(exits=1)

    assert {name: found[f"judge of suite {name}"] for name in ("fine", "dear", "lost")} == {
        "fine": "ok",
        "dear": "fail",
        "lost": "fail",
    }
    assert found["code of suite code"] == "ok"
