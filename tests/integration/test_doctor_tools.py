"""`swapgate doctor --tools`: one tool loop on any target, beside what is declared of it."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evals.sim.server import simulator
from harness.cli.program import program
from harness.domain.providers.tool_probe import PRICE_TOOL, STOCK_TOOL, TOOL_ANSWERS
from tests.support.providers.simulator_thread import serve_in_thread
from tests.wire import anthropic, gemini
from tests.wire import openai as plain
from tests.wire.server import KEY, Reading, Refused, Reply, Strict, serving

pytestmark = [pytest.mark.req("B7"), pytest.mark.timeout(900)]
WIRES: dict[str, Any] = {"anthropic": anthropic, "gemini": gemini, "openai": plain}
CALLS = ((STOCK_TOOL, {"item": "lamp"}), (PRICE_TOOL, {"item": "lamp", "currency": "EUR"}))
SAID = f"There are {TOOL_ANSWERS[STOCK_TOOL]:,} lamps at {TOOL_ANSWERS[PRICE_TOOL]} EUR each."


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WIRE_KEY", KEY)
    return tmp_path


def run(*words: str, exits: int = 0) -> Result:
    result = CliRunner().invoke(program, words, catch_exceptions=False)
    assert result.exit_code == exits, result.output
    return result


def at_once(reading: Reading) -> Reply:
    """Of a model that calls both tools in one turn, then says what they said."""
    if reading.turns[-1].role == "tool":
        return Reply(text=SAID)
    wanted = CALLS if reading.choice in ("any", "auto") else CALLS[1:]
    return Reply(calls=wanted, stop="tools")


def one_at_a_time(reading: Reading) -> Reply:
    asked = sum(len(turn.results) for turn in reading.turns)
    if asked == 2:
        return Reply(text=SAID)
    first = asked if reading.choice in ("any", "auto") else 1
    return Reply(calls=CALLS[first : first + 1], stop="tools")


@contextmanager
def model(
    kind: str, answer: Callable[[Reading], Reply], *, declared: str = ""
) -> Iterator[Strict]:
    wire = WIRES[kind]
    strict = wire.strict()
    read = strict.read

    def reading(asked: Any) -> Reading:
        found: Reading = read(asked)
        strict.reply = answer(found)
        return found

    strict.read = reading
    with serving(strict) as served:
        models = f", models: {{{wire.MODEL}: {{{declared}}}}}" if declared else ""
        Path("swapgate.yaml").write_text(
            f"providers: {{own: {{kind: {kind}, api_base: '{served.api_base}', "
            f"api_key_env: WIRE_KEY{models}}}}}\n"
            f"routes: {{chat: {{incumbent: own/{wire.MODEL}, suites: [tickets]}}}}\n"
        )
        run("init")
        yield served


def outcomes(*words: str, exits: int = 0) -> dict[str, str]:
    document = json.loads(run("doctor", "--tools", *words, "--json", exits=exits).stdout)
    assert document["ok"] is (exits == 0)
    return {f["subject"]: f["outcome"] for t in document["targets"] for f in t["findings"]}


@pytest.mark.parametrize("kind", sorted(WIRES))
@pytest.mark.usefixtures("working_folder")
def test_the_same_loop_works_on_every_protocol(kind: str) -> None:
    with model(kind, at_once) as served:
        found = outcomes(f"own/{WIRES[kind].MODEL}")

    assert set(found.values()) == {"works"}, found
    assert not served.refused
    assert len(served.asked) == 5  # two turns, one that is forced, two streamed


@pytest.mark.usefixtures("working_folder")
def test_a_target_that_calls_one_at_a_time_is_told_from_what_is_declared() -> None:
    name = anthropic.MODEL
    with model("anthropic", one_at_a_time, declared="parallel_tools: true"):
        shown = run("doctor", "--tools", f"own/{name}", exits=1).stdout

    assert "declared parallel_tools; answers one at a time" in " ".join(shown.split())
    assert f"next: set providers.own.models.{name}.parallel_tools: false" in shown
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize(("kind", "base"), [("sim", "/v1"), ("anthropic", "")])
@pytest.mark.usefixtures("working_folder")
def test_the_built_in_simulator_passes(kind: str, base: str) -> None:
    with serve_in_thread(simulator(time_scale=0)) as url:
        own = f"{{kind: {kind}, api_base: '{url}{base}', api_key_env: WIRE_KEY}}"
        Path("swapgate.yaml").write_text(f"providers: {{own: {own}}}\n")
        run("init")

        found = outcomes("own/sim-base")

    assert set(found.values()) == {"works"}, found


@pytest.mark.usefixtures("working_folder")
def test_a_refused_key_is_said_once_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "sk-recognisable-secret"
    echo = {"type": "error", "error": {"type": "authentication_error", "message": wrong}}
    with model("anthropic", at_once) as served:
        monkeypatch.setenv("WIRE_KEY", wrong)
        served.fault = Refused(401, echo)
        found = run("doctor", "--tools", f"own/{anthropic.MODEL}", exits=1)

    assert "FAIL: does not" in found.stdout
    assert wrong not in found.output


@pytest.mark.usefixtures("working_folder")
def test_the_doctor_of_tools_ends_in_time_and_leaves_no_traffic() -> None:
    ends = itertools.count()

    def endless(_: Reading) -> Reply:
        next(ends)
        return Reply(calls=CALLS[:1], stop="tools")

    with model("openai", endless):
        found = outcomes(f"own/{plain.MODEL}", exits=1)
        short = run(
            "doctor", "--tools", f"own/{plain.MODEL}", "--timeout", "0.000001", exits=1
        ).stdout

    assert found["results"] == "does not"
    assert next(ends) <= 9
    assert "give it more by --timeout" in " ".join(short.split())
    assert not list(Path(".swapgate").glob("observations*"))
