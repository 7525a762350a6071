"""`swapproof doctor --live`: a conformance run with one's own key, below a cap; `--tools`: one
tool loop on any target, beside what is declared of it.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from evals.sim.server import simulator
from harness.app.doctor.live_scenarios import QUESTION
from harness.interfaces.cli.program import program
from harness.providers.calls.tool_probe import (
    PRICE_TOOL,
    STOCK_TOOL,
    TOOL_ANSWERS,
)
from tests.support.providers.simulator_thread import serve_in_thread
from tests.wire import anthropic, bedrock, gemini, vertex
from tests.wire import openai as plain
from tests.wire.server import (
    KEY,
    Reading,
    Refused,
    Reply,
    Strict,
    Usage,
    serving,
)

pytestmark = [pytest.mark.req("B7"), pytest.mark.timeout(900)]
WIRES: dict[str, Any] = {
    "anthropic": anthropic,
    "gemini": gemini,
    "openai": plain,
}
LATER: dict[str, Any] = {"bedrock": bedrock, "vertex": vertex}
ANSWER = "ready at once"
CALLS = (
    (STOCK_TOOL, {"item": "lamp"}),
    (PRICE_TOOL, {"item": "lamp", "currency": "EUR"}),
)
SAID = f"There are {TOOL_ANSWERS[STOCK_TOOL]:,} lamps at {TOOL_ANSWERS[PRICE_TOOL]} EUR each."
PRICES = "{input_usd_per_mtok: 1.0, output_usd_per_mtok: 10.0}"


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WIRE_KEY", KEY)
    return tmp_path


def run(*words: str, exits: int = 0) -> Result:
    # As in a process of its own: another test may have set up the logs of this one.
    structlog.reset_defaults()
    result = CliRunner().invoke(program, words, catch_exceptions=False)
    assert result.exit_code == exits, result.output
    return result


def model_reply(reading: Reading) -> Reply:
    if reading.schema:
        return Reply(text='{"city": "Oslo"}')
    if reading.limit == 16:
        return Reply(text="one two", stop="length", usage=Usage(output=16))
    return Reply(text=ANSWER)


@contextmanager
def provider(
    kind: str,
    answers: Callable[[Reading], Reply] = model_reply,
    *,
    given: str = f"prices: {{MODEL: {PRICES}}}",
) -> Iterator[Strict]:
    """Serves a provider, and an installation that uses it.

    Args:
        given: of the provider's section, beside its place and key.
    """
    wire: Any = {**WIRES, **LATER}[kind]
    strict: Strict = wire.strict()
    strict.answers = answers
    with serving(strict) as served:
        Path("swapproof.yaml").write_text(
            f"providers: {{own: {{kind: {kind}, api_base: '{served.api_base}', "
            f"api_key_env: WIRE_KEY, {given.replace('MODEL', wire.MODEL)}}}}}\n"
        )
        run("init")
        yield served


def live(
    kind: str,
    *more: str,
    exits: int = 0,
) -> tuple[dict[str, str], Any]:
    name = f"own/{ {**WIRES, **LATER}[kind].MODEL }"
    words = ("doctor", "--live", name, "--json", *more)
    result = run(*words, exits=exits)
    assert KEY not in result.output
    assert QUESTION not in result.output
    assert ANSWER not in result.output
    document = json.loads(result.stdout)
    assert document["ok"] is (exits == 0)
    findings = document["targets"][0]["findings"]
    return {finding["scenario"]: finding["outcome"] for finding in findings}, document


@pytest.mark.parametrize(
    "kind",
    [
        *sorted(WIRES),
        *(pytest.param(kind, marks=pytest.mark.verify) for kind in LATER),
    ],
)
def test_a_provider_that_keeps_its_protocol_works_in_every_scenario(kind: str) -> None:
    with provider(kind) as served:
        found, document = live(
            kind,
            "--max-usd",
            "1",
        )

    assert set(found.values()) == {"works"}, document
    assert document["calls"] == len(served.asked) == 6
    limits = {reading.limit for reading in served.readings}
    assert limits == {16, 1024}


def test_a_call_that_could_pass_the_cap_is_not_made() -> None:
    with provider("openai") as served:
        # One answer may cost 1,024 × 10 $/M and its input: a little more than 0.0102 $.
        found, document = live(
            "openai",
            "--max-usd",
            "0.0125",
            exits=1,
        )
        before = len(served.asked)
        nothing, _ = live(
            "openai",
            "--max-usd",
            "0.01",
            exits=1,
        )
        none = len(served.asked) - before

    assert found["plain answer"] == "works"
    assert none == 0
    assert set(nothing.values()) == {"not tried"}
    assert document["at_most_usd"] <= 0.0125
    assert document["calls"] == before
    assert "would exceed the cap of --max-usd" in json.dumps(document)


def test_a_model_without_a_price_is_not_asked() -> None:
    with provider("openai") as served:
        result = run(
            "doctor",
            "--live",
            "own/unheard-of",
            "--max-usd",
            "1",
            "--json",
            exits=1,
        )

    assert not served.asked
    assert "the price of own/unheard-of is unknown" in result.stdout
    run("doctor", "--live", "own", exits=2)
    run(
        "doctor",
        "--live",
        "own",
        "--max-usd",
        "1",
        "--tools",
        "own",
        exits=2,
    )


def _without_usage(answer: Any) -> Any:
    return {name: part for name, part in answer.items() if name != "usage"}


@pytest.mark.verify
def test_a_provider_that_lies_is_found_out_and_repeats_nothing() -> None:
    with provider("openai") as served:
        served.answers = lambda reading: Reply(
            text=ANSWER,
            usage=Usage(output=5_000 if reading.limit == 16 else 7),
        )
        huge, document = live(
            "openai",
            "--max-usd",
            "1",
            exits=1,
        )
        served.answers = lambda _: Reply(text="word " * 4_096, usage=Usage(output=1))
        long, _ = live(
            "openai",
            "--max-usd",
            "1",
            exits=1,
        )
        served.whole = lambda _: {"error": {"message": f"{KEY} {QUESTION}", "code": KEY}}
        hidden, _ = live(
            "openai",
            "--max-usd",
            "1",
            exits=1,
        )
        served.answers = model_reply
        served.whole = lambda reply: {**plain.whole(reply), "model": KEY}
        named, _ = live(
            "openai",
            "--max-usd",
            "1",
        )
        served.whole = lambda reply: {
            **_without_usage(plain.whole(reply)),
            KEY: KEY,
            "model": KEY,
        }
        served.answers = lambda _: Reply(text=ANSWER)
        asked = len(served.asked)
        silent, unknown = live(
            "openai",
            "--max-usd",
            "0.03",
            exits=1,
        )
        asked = len(served.asked) - asked

    assert huge["plain answer"] == "works"
    assert huge["length stop"] == "fails"
    assert huge["stream"] == "not tried"
    assert "no cap is reliable" in json.dumps(document)
    # 20,480 bytes are no single token, nor 1,024.
    assert (long["plain answer"], long["length stop"]) == (
        "works",
        "not tried",
    )
    assert (hidden["plain answer"], named["plain answer"]) == (
        "fails",
        "differs",
    )
    assert silent["plain answer"] == silent["length stop"] == "fails"
    # Each counts with the most that it can cost; the stream has its usage.
    assert unknown["calls"] == asked
    assert 2 * 1_024 * 10 / 1e6 < unknown["at_most_usd"] <= 0.03


def test_a_refused_key_ends_the_run_after_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "sk-recognisable-secret"
    with provider("openai") as served:
        monkeypatch.setenv("WIRE_KEY", wrong)
        served.fault = Refused(401, {"error": {"message": wrong, "code": wrong}})
        result = run(
            "doctor",
            "--live",
            f"own/{plain.MODEL}",
            "--max-usd",
            "1",
            exits=1,
        )

    assert "FAIL: fails" in result.stdout
    assert "swapproof provider key set" in result.stdout
    assert wrong not in result.output
    assert len(served.asked) == 1


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


def outcomes(*words: str, exits: int = 0) -> dict[str, str]:
    document = json.loads(run("doctor", "--tools", *words, "--json", exits=exits).stdout)
    assert document["ok"] is (exits == 0)
    return {f["subject"]: f["outcome"] for t in document["targets"] for f in t["findings"]}


@pytest.mark.parametrize("kind", sorted(WIRES))
def test_the_same_loop_works_on_every_protocol(kind: str) -> None:
    with provider(kind, at_once) as served:
        found = outcomes(f"own/{WIRES[kind].MODEL}")

    assert set(found.values()) == {"works"}, found
    assert not served.refused
    assert len(served.asked) == 5  # two turns, one that is forced, two streamed


def test_a_target_that_calls_one_at_a_time_is_told_from_what_is_declared() -> None:
    name = anthropic.MODEL
    declared = "models: {MODEL: {parallel_tools: true}}"
    with provider("anthropic", one_at_a_time, given=declared):
        shown = run("doctor", "--tools", f"own/{name}", exits=1).stdout

    assert "declared parallel_tools; one call at a time" in " ".join(shown.split())
    assert f"next: set providers.own.models.{name}.parallel_tools: false" in shown
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize(("kind", "base"), [("sim", "/v1"), ("anthropic", "")])
def test_the_built_in_simulator_passes(kind: str, base: str) -> None:
    with serve_in_thread(simulator(time_scale=0)) as url:
        own = f"{{kind: {kind}, api_base: '{url}{base}', api_key_env: WIRE_KEY}}"
        Path("swapproof.yaml").write_text(f"providers: {{own: {own}}}\n")
        run("init")

        found = outcomes("own/sim-base")

    assert set(found.values()) == {"works"}, found


def test_a_key_that_the_loops_find_refused_is_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = "sk-recognisable-secret"
    echo = {
        "type": "error",
        "error": {"type": "authentication_error", "message": wrong},
    }
    with provider("anthropic", at_once) as served:
        monkeypatch.setenv("WIRE_KEY", wrong)
        served.fault = Refused(401, echo)
        found = run("doctor", "--tools", f"own/{anthropic.MODEL}", exits=1)

    assert "FAIL: does not" in found.stdout
    assert wrong not in found.output


def test_the_doctor_of_tools_ends_in_time_and_leaves_no_traffic() -> None:
    ends = itertools.count()

    def endless(_: Reading) -> Reply:
        next(ends)
        return Reply(calls=CALLS[:1], stop="tools")

    with provider("openai", endless):
        found = outcomes(f"own/{plain.MODEL}", exits=1)
        short = run(
            "doctor",
            "--tools",
            f"own/{plain.MODEL}",
            "--timeout",
            "0.000001",
            exits=1,
        ).stdout

    assert found["results"] == "does not"
    assert next(ends) <= 9
    assert "allow more time with --timeout" in " ".join(short.split())
    assert not list(Path(".swapproof").glob("observations*"))
