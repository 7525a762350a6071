"""`swapgate doctor --live`: a conformance run with one's own key, below a cap."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from harness.app.doctor.live_checks import QUESTION
from harness.cli.program import program
from tests.integration import test_doctor_tools
from tests.wire import bedrock, vertex
from tests.wire import openai as plain
from tests.wire.server import KEY, Reading, Refused, Reply, Strict, Usage, serving

pytestmark = [pytest.mark.req("B7"), pytest.mark.timeout(900)]
WIRES: dict[str, Any] = {**test_doctor_tools.WIRES, "bedrock": bedrock, "vertex": vertex}
ANSWER = "ready at once"
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
def provider(kind: str, *, prices: str = PRICES) -> Iterator[Strict]:
    wire: Any = WIRES[kind]
    strict: Strict = wire.strict()
    strict.answers = model_reply
    with serving(strict) as served:
        priced = f", prices: {{{wire.MODEL}: {prices}}}" if prices else ""
        Path("swapgate.yaml").write_text(
            f"providers: {{own: {{kind: {kind}, api_base: '{served.api_base}', "
            f"api_key_env: WIRE_KEY{priced}}}}}\n"
        )
        run("init")
        yield served


def live(kind: str, *more: str, exits: int = 0) -> tuple[dict[str, str], Any]:
    name = f"own/{WIRES[kind].MODEL}"
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
        *sorted(test_doctor_tools.WIRES),
        *(pytest.param(kind, marks=pytest.mark.verify) for kind in ("bedrock", "vertex")),
    ],
)
def test_a_provider_that_keeps_its_protocol_works_in_every_scenario(kind: str) -> None:
    with provider(kind) as served:
        found, document = live(kind, "--max-usd", "1")

    assert set(found.values()) == {"works"}, document
    assert document["calls"] == len(served.asked) == 6
    limits = {reading.limit for reading in served.readings}
    assert limits == {16, 1024}


def test_a_call_that_could_pass_the_cap_is_not_made() -> None:
    with provider("openai") as served:
        # One answer may cost 1,024 × 10 $/M and its input: a little more than 0.0102 $.
        found, document = live("openai", "--max-usd", "0.0125", exits=1)
        before = len(served.asked)
        nothing, _ = live("openai", "--max-usd", "0.01", exits=1)
        none = len(served.asked) - before

    assert found["plain answer"] == "works"
    assert none == 0
    assert set(nothing.values()) == {"not tried"}
    assert document["at_most_usd"] <= 0.0125
    assert document["calls"] == before
    assert "would pass the cap of --max-usd" in json.dumps(document)


def test_a_model_without_a_price_is_not_asked() -> None:
    with provider("openai") as served:
        result = run("doctor", "--live", "own/unheard-of", "--max-usd", "1", "--json", exits=1)

    assert not served.asked
    assert "the model's price is unknown" in result.stdout
    run("doctor", "--live", "own", exits=2)
    run("doctor", "--live", "own", "--max-usd", "1", "--tools", "own", exits=2)


def _without_usage(answer: Any) -> Any:
    return {name: part for name, part in answer.items() if name != "usage"}


@pytest.mark.verify
def test_a_provider_that_lies_is_found_out_and_repeats_nothing() -> None:
    with provider("openai") as served:
        served.answers = lambda reading: Reply(
            text=ANSWER, usage=Usage(output=5_000 if reading.limit == 16 else 7)
        )
        huge, document = live("openai", "--max-usd", "1", exits=1)
        served.whole = lambda _: {"error": {"message": f"{KEY} {QUESTION}", "code": KEY}}
        hidden, _ = live("openai", "--max-usd", "1", exits=1)
        served.whole = lambda reply: {
            **_without_usage(plain.whole(reply)),
            KEY: KEY,
            "model": KEY,
        }
        served.answers = lambda _: Reply(text=ANSWER)
        asked = len(served.asked)
        silent, unknown = live("openai", "--max-usd", "0.03", exits=1)
        asked = len(served.asked) - asked

    assert huge["plain answer"] == "works"
    assert huge["length stop"] == "fails"
    assert huge["stream"] == "not tried"
    assert "no cap holds" in json.dumps(document)
    assert hidden["plain answer"] == "fails"
    assert silent["plain answer"] == silent["length stop"] == "fails"
    # Each counts with the most that it can cost; the stream has its usage.
    assert unknown["calls"] == asked
    assert 2 * 1_024 * 10 / 1e6 < unknown["at_most_usd"] <= 0.03


def test_a_refused_key_ends_the_run_after_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "sk-recognisable-secret"
    with provider("openai") as served:
        monkeypatch.setenv("WIRE_KEY", wrong)
        served.fault = Refused(401, {"error": {"message": wrong, "code": wrong}})
        result = run("doctor", "--live", f"own/{plain.MODEL}", "--max-usd", "1", exits=1)

    assert "FAIL: fails" in result.stdout
    assert "swapgate provider key set" in result.stdout
    assert wrong not in result.output
    assert len(served.asked) == 1
