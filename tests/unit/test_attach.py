"""`swapproof attach` on files: what it says of a team's traffic, and what it does not know."""

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evals.suites.logs import log_stream
from harness.app.attach.attach import AttachRequest, attach
from harness.app.attach.attach_blocks import describe_report, write_json
from harness.app.attach.attach_report import AttachChoice, AttachReport
from harness.app.attach.proof_effort import estimate_effort
from harness.app.attach.traffic_survey import ModelTraffic
from harness.frame.errors import InputError
from harness.interfaces.cli import try_program
from harness.interfaces.cli.program import program
from harness.proposals.report.page import render_page
from harness.providers.models.catalogue import Catalogue, CatalogueEntry, build_catalogue
from harness.providers.target import Price
from tests.support.control.manual_clock import ManualClock

pytestmark = pytest.mark.req("D8")

SOURCES = Path(__file__).parent.parent / "support/evals/sources"
NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
CHAT = frozenset({"chat", "tools", "json_schema", "vision"})


def entry(
    model: str,
    usd: float | None,
    *,
    kind: str = "openai",
    has: frozenset[str] = CHAT,
    lacks: frozenset[str] = frozenset(),
    window: int | None = 100_000,
    end: date | None = None,
) -> CatalogueEntry:
    price = None if usd is None else Price(usd, usd * 4)
    return CatalogueEntry(kind, model, price, window, has, lacks, end)


CATALOGUE = build_catalogue(
    [
        entry("gpt-4.1", 2.0, end=date(2027, 1, 14)),
        entry("gpt-5.5", 1.0),
        entry(
            "gpt-5-mini", 0.5, has=frozenset({"chat"}), lacks=frozenset({"tools"}), window=2_000
        ),
        entry("claude-sonnet-5", 3.0, kind="anthropic"),
    ],
    "a table of tests",
    date(2026, 11, 29),
)
SWAPPROOFS_CHOICE = AttachChoice()
QUESTION = {"role": "user", "content": "Where is my parcel?"}


def row(number: int, **more: object) -> dict[str, Any]:
    """A row of LiteLLM's spend logs, each with another question and another caller."""
    question = {"role": "user", "content": f"Where is parcel {number}?"}
    return {
        "request_id": f"r{number}",
        "call_type": "acompletion",
        "startTime": f"2026-11-2{number % 8 + 1}T10:00:00+00:00",
        "endTime": f"2026-11-2{number % 8 + 1}T10:00:02+00:00",
        "model": "openai/gpt-4.1",
        "custom_llm_provider": "openai",
        "spend": 0.01,
        "prompt_tokens": 1_000,
        "completion_tokens": 100,
        "end_user": f"u{number}",
        "proxy_server_request": {"messages": [question]},
        "response": {"choices": [{"message": {"role": "assistant", "content": "Here."}}]},
        **more,
    }


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(one)}\n" for one in rows), encoding="utf-8")
    return path


def read(
    file: Path,
    *,
    catalogue: Catalogue = CATALOGUE,
    kind: str = "",
    choice: AttachChoice = SWAPPROOFS_CHOICE,
) -> AttachReport:
    request = AttachRequest([str(file)], kind, choice=choice)
    return attach(request, clock=ManualClock(NOW), catalogue=catalogue)


def of_rows(folder: Path, *rows: Mapping[str, Any], **more: Any) -> AttachReport:
    return read(write_lines(folder / "log.jsonl", rows), **more)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(program, ["attach", *map(str, words)])


@pytest.mark.spine
@pytest.mark.req("H2")
def test_the_screen_has_models_replacements_and_the_next_command_as_its_last_line(
    tmp_path: Path,
) -> None:
    file = write_lines(tmp_path / "spend.jsonl", [row(n) for n in range(4)])

    done = run(file)

    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert any(line.startswith("openai/gpt-4.1  4") and "$0.04" in line for line in lines)
    assert "What could take their place" in lines
    assert lines[-1].strip().startswith("swapproof suite draw my-traffic --route ROUTE --from")
    assert lines[-2] == (
        "Put a name for ROUTE, which the log does not tell. The command needs an installation "
        "(swapproof init) whose route serves openai/gpt-4.1, and a provider for the judge."
    )
    (person,) = [line for line in lines if line.startswith("a person:")]
    assert person.endswith("if there were 200 callers")
    assert str(file) in lines[-1]
    assert lines[-1].partition("--judge ")[2].startswith("anthropic/")


def test_the_json_has_the_same_facts(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "spend.jsonl", [row(n) for n in range(4)])

    found = json.loads(run(file, "--json").stdout)

    (model,) = found["models"]
    assert (model["model"], model["requests"], model["with_cost"]) == ("openai/gpt-4.1", 4, 4)
    assert model["cost_usd"] == pytest.approx(0.04)
    assert model["median_s"] == pytest.approx(2.0, rel=0.05)
    assert found["proof"]["minutes"] == 36
    assert found["next_command"].startswith("swapproof suite draw")


def test_an_unknown_cost_stays_unknown_and_is_counted(tmp_path: Path) -> None:
    rows = [row(1), row(2, spend=0.0), row(3, prompt_tokens=0), row(4, endTime=None)]

    found = of_rows(tmp_path, *rows)

    text = "\n".join(str(block) for block in describe_report(found))
    assert "1 of 4 requests have no cost; those with known tokens cost $0.0084" in text
    assert "1 of 4 requests have no tokens" in text
    assert "1 of 4 requests have no duration" in text
    assert "at least $0.03" in text


def test_a_model_that_no_catalogue_has_gets_no_price_end_or_replacement(
    tmp_path: Path,
) -> None:
    found = of_rows(tmp_path, row(1, model="our-own", custom_llm_provider="acme"))

    (model,) = write_json(found)["models"]
    assert (model["in_catalogue"], model["end_date"], model["replacements"]) == (
        False,
        None,
        [],
    )
    text = "\n".join(str(block) for block in describe_report(found))
    assert "unknown: not in the catalogue" in text
    assert "--candidate PROVIDER/MODEL" in text


def test_without_a_catalogue_the_screen_says_that_prices_and_ends_are_unknown(
    tmp_path: Path,
) -> None:
    found = of_rows(tmp_path, row(1), catalogue=Catalogue())

    text = "\n".join(str(block) for block in describe_report(found))
    assert (
        "prices and ends of models are unknown. The package swapproof has a catalogue" in text
    )
    assert found.next_command.endswith("--judge PROVIDER/MODEL")


@pytest.mark.req("F11", "H2")
@pytest.mark.parametrize(
    ("model", "end"),
    [
        ("openai/gpt-5-mini", "11 Dec 2026"),
        ("openai/gpt-5-mini-2025-08-07", "11 Dec 2026"),
        ("openai/ft:gpt-5-mini-2025-08-07:acme::A1b2", "11 Dec 2026"),
        ("openai/gpt-5.5", "unknown"),
    ],
)
def test_alias_snapshot_and_fine_tune_have_the_snapshot_s_end_and_others_an_unknown_one(
    tmp_path: Path, model: str, end: str
) -> None:
    entries = [
        entry("gpt-5-mini", 0.3),
        entry("gpt-5-mini-2025-08-07", 0.3, end=date(2026, 12, 11)),
        entry("gpt-5.5", 1.0),
    ]
    found = of_rows(tmp_path, row(1, model=model), catalogue=build_catalogue(entries))

    text = "\n".join(str(block) for block in describe_report(found))
    (written,) = write_json(found)["models"]

    assert found.models[0].end.text.startswith(end)
    assert written["end"] == ("unknown" if end == "unknown" else "stated")
    assert ("An unknown end is not a late one" in text) is (end == "unknown")


@pytest.mark.spine
@pytest.mark.req("H2")
def test_a_replacement_has_its_saving_and_the_requests_that_it_cannot_take(
    tmp_path: Path,
) -> None:
    body = {"messages": [QUESTION], "tools": [{"type": "function", "function": {"name": "f"}}]}
    rows = [row(1), row(2, proxy_server_request=body), row(3, prompt_tokens=5_000)]

    (model,) = write_json(of_rows(tmp_path, *rows))["models"]

    newer, cheaper = model["replacements"]
    assert model["end_date"] == "2027-01-14"
    assert model["end_source"] == "the model catalogue (a table of tests)"
    assert model["list_price_usd"] == pytest.approx(0.0164)
    assert (newer["model"], newer["why"]) == ("openai/gpt-5.5", "newer of its family")
    assert newer["saving_usd"] == pytest.approx(0.0082)
    assert newer["cannot_take"] == {}
    assert (cheaper["model"], cheaper["why"]) == ("openai/gpt-5-mini", "next cheaper")
    assert cheaper["cannot_take"] == {
        "tools": 1,
        "a context window of more than 2,000 tokens": 1,
    }


def test_an_ability_of_which_the_catalogue_says_nothing_is_unknown(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    body = {"messages": [{"role": "user", "content": [picture]}]}

    (model,) = write_json(of_rows(tmp_path, row(1, proxy_server_request=body)))["models"]

    assert model["needs"] == {"vision": 1}
    assert model["replacements"][1]["ability_unknown"] == {"vision": 1}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"tools": [{"type": "web_search"}]}, "a tool that the provider runs"),
        ({"mcp_servers": [{"url": "https://x"}]}, "`mcp_servers`"),
        ({"store": True}, "`store: true`"),
        ({"previous_response_id": "resp_1"}, "`previous_response_id`"),
        ({"background": True}, "`background`"),
    ],
)
def test_a_request_that_acts_at_the_provider_is_counted_as_never_asked_again(
    tmp_path: Path, body: Mapping[str, Any], reason: str
) -> None:
    asked = {"messages": [QUESTION], **body}

    found = of_rows(tmp_path, row(1, proxy_server_request=asked), row(2))

    assert write_json(found)["models"][0]["never_asked_again"] == {reason: 1}
    assert found.effort.items == 1
    assert any("are never asked again" in obstacle for obstacle in found.obstacles)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [row(1, response={}), row(2, response={})],
            "the log has no answers: a proof compares",
        ),
        (
            [row(1, proxy_server_request={}), row(2, proxy_server_request={})],
            "ask them again (without content: set `store_prompts_in_spend_logs: true`",
        ),
        (
            [row(n, end_user="kim", session_id=f"s{n}") for n in range(3)],
            "all requests name one caller, and no suite is drawn from one caller",
        ),
        (
            [row(n, end_user="") for n in range(3)],
            "no request names its caller or its conversation",
        ),
        (
            [row(n, proxy_server_request={"messages": [QUESTION]}) for n in range(3)],
            "all requests ask the same",
        ),
        (
            [row(n, startTime=None) for n in range(3)],
            "no request has a date, and a draw takes whole days",
        ),
        ([row(1), row(2, startTime="")], "1 of 2 requests have no date, and are not drawn"),
        (
            [row(1, startTime="2026-09-01T00:00:00Z", endTime=None)],
            "the newest request is 90 days old, and a draw takes records of at most 14 days",
        ),
        ([row(1), row(9)], "all requests are of one day"),
        ([row(1), row(1)], "repeated records, which count once: 1"),
    ],
)
def test_bad_input_gets_a_sentence_that_says_what_to_do(
    tmp_path: Path, rows: Sequence[Mapping[str, Any]], sentence: str
) -> None:
    obstacles = of_rows(tmp_path, *rows).obstacles

    assert any(sentence in obstacle for obstacle in obstacles), obstacles


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.json", b'{"a": 1}', "is no log that Swapproof reads; its fields are a"),
        ("log.jsonl.gz", b"\x1f\x8b\x08", "is a gzip file: unpack it"),
        ("log.jsonl", b"", "is empty"),
        (
            "log.jsonl",
            b'{"request_id": "1", "call_type": "x"}\n{"a"\n',
            "log.jsonl:2: not JSON",
        ),
        (
            "log.csv",
            b"request_id,call_type,startTime\n1,acompletion,x,y\n",
            "log.csv:2: the row has more cells",
        ),
        (
            "log.jsonl",
            b'{"request_id": "1", "call_type": "aembedding"}\n' * 2,
            "has no request to a model: 2 rows of `aembedding`",
        ),
        (
            "log.jsonl",
            json.dumps(row(1)).encode() + b'\n{"run_type": "llm", "id": "1"}\n',
            "log.jsonl:2: looks like an export of LangSmith's runs, and the records before it",
        ),
        (
            "log.jsonl",
            json.dumps(row(1, startTime="yesterday")).encode(),
            "field 'startTime': 'yesterday' is not a time",
        ),
    ],
)
def test_a_file_that_is_no_log_is_refused_with_its_reason(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)

    with pytest.raises(InputError) as refused:
        read(file)

    assert message in str(refused.value)


def test_a_document_that_is_too_large_to_read_whole_says_how_to_convert_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "MAX_DOCUMENT_BYTES", 100)
    file = tmp_path / "all.json"
    file.write_text(json.dumps([row(1)], indent=1), encoding="utf-8")

    with pytest.raises(InputError, match=r"jq -c '\.\[\]' all\.json > all\.jsonl"):
        read(file)


def test_an_unknown_format_and_an_unknown_model_are_refused(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "log.jsonl", [row(1)])

    with pytest.raises(
        InputError, match="'helicone' is no format of a log: use one of litellm"
    ):
        read(file, kind="helicone")
    with pytest.raises(InputError, match="no request is of the model 'gpt-9'"):
        read(file, choice=AttachChoice(model="gpt-9"))
    with pytest.raises(InputError, match="'gpt-9' is no model of the catalogue"):
        read(file, choice=AttachChoice(candidate="gpt-9"))


def test_a_named_candidate_and_judge_are_compared_and_priced(tmp_path: Path) -> None:
    choice = AttachChoice("", "openai/gpt-5.5", "openai/gpt-5-mini", "support")

    found = of_rows(tmp_path, *(row(n) for n in range(4)), choice=choice)

    (model,) = write_json(found)["models"]
    assert [other["model"] for other in model["replacements"]] == ["openai/gpt-5.5"]
    assert (found.candidate.name, found.judge) == ("openai/gpt-5.5", "openai/gpt-5-mini")
    assert found.candidate.why.startswith("named by you, which costs $0.0")
    # 8 requests, and each pair in both orders: 16 calls with both answers and a rubric.
    assert found.effort.judge_calls == 16
    assert found.effort.judge_input_tokens == 16 * (1_000 + 2 * 100 + 600)
    assert "draw support-traffic --route support" in found.next_command


DEARER = "openai/gpt-5.5 (newer of its family), which costs $0.0042 more"
NAME_ONE = "name one by --candidate PROVIDER/MODEL"


@pytest.mark.parametrize(
    ("entries", "candidate", "why"),
    [
        (
            [entry("gpt-4.1", 1.0), entry("gpt-5.5", 4.0), entry("gpt-5-mini", 0.5)],
            "openai/gpt-5-mini",
            f"next cheaper, which costs $0.0007 less; not {DEARER}",
        ),
        (
            [entry("gpt-4.1", 1.0), entry("gpt-5.5", None), entry("gpt-5-mini", 0.5)],
            "openai/gpt-5-mini",
            (
                f"next cheaper, which costs $0.0007 less; not {DEARER.partition(', ')[0]}, "
                f"whose cost for these requests is unknown"
            ),
        ),
        (
            [entry("gpt-4.1", 1.0), entry("gpt-5.5", 1.0)],
            "openai/gpt-5.5",
            "newer of its family, which costs the same",
        ),
        (
            [entry("gpt-4.1", 1.0), entry("gpt-5.5", 4.0)],
            None,
            (
                "no other model is known to cost as much as openai/gpt-4.1 or less "
                f"({DEARER}): {NAME_ONE}"
            ),
        ),
        (
            [entry("gpt-4.1", None), entry("gpt-5.5", 1.0)],
            None,
            (
                "the cost of these requests at openai/gpt-4.1 is unknown, so no model is "
                f"cheaper ({DEARER.partition(', ')[0]}, and the present cost is unknown): "
                f"{NAME_ONE}"
            ),
        ),
    ],
)
def test_without_a_named_candidate_none_is_taken_that_costs_more_and_the_reason_is_shown(
    tmp_path: Path, entries: Sequence[CatalogueEntry], candidate: str | None, why: str
) -> None:
    found = of_rows(tmp_path, row(1), catalogue=build_catalogue(entries))

    proof = write_json(found)["proof"]
    assert (proof["candidate"], proof["candidate_why"]) == (candidate, why)
    assert (proof["candidate_usd"] is None) is (candidate is None)
    facts = "\n".join(str(block) for block in describe_report(found))
    assert f"{candidate or 'none'}: {why}" in facts


def test_a_named_candidate_is_taken_even_if_it_costs_more_or_is_in_use(tmp_path: Path) -> None:
    dear = of_rows(tmp_path, row(1), choice=AttachChoice(candidate="anthropic/claude-sonnet-5"))
    same = of_rows(tmp_path, row(1), choice=AttachChoice(candidate="openai/gpt-4.1"))

    assert dear.candidate.name == "anthropic/claude-sonnet-5"
    assert dear.candidate.why == "named by you, which costs $0.0014 more"
    assert same.candidate.name == "openai/gpt-4.1"


def test_the_next_command_has_the_route_under_whose_name_the_requests_were_asked(
    tmp_path: Path,
) -> None:
    found = of_rows(tmp_path, *(row(n, model_group="Support EU") for n in range(3)))

    assert "draw support-eu-traffic --route support-eu --from" in found.next_command


def test_a_proof_asks_at_most_two_requests_of_a_caller(tmp_path: Path) -> None:
    rows = [row(n, end_user="kim" if n < 5 else f"u{n}") for n in range(8)]

    assert of_rows(tmp_path, *rows).effort.items == 5


def test_an_effort_without_prices_or_tokens_is_unknown() -> None:
    traffic = ModelTraffic("", "")

    effort = estimate_effort(traffic, None, None, None)

    assert (effort.items, effort.judge_calls) == (0, 0)
    assert (effort.candidate_usd, effort.judge_usd, effort.judge_input_tokens) == (
        None,
        None,
        None,
    )


def test_files_are_read_without_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("attach opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert of_rows(tmp_path, row(1)).survey.requests == 1


def test_the_page_is_one_file_that_escapes_every_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    page = tmp_path / "report.html"
    file = write_lines(tmp_path / "log.jsonl", [row(1, model=evil, custom_llm_provider="")])

    done = run(file, "--html", page)

    text = page.read_text(encoding="utf-8")
    assert done.exit_code == 0
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "http://" not in text
    assert "src=" not in text
    assert text == render_page(describe_report(read(file, catalogue=found_catalogue())))


def found_catalogue() -> Catalogue:
    from harness.providers.models.catalogue import LitellmTable  # noqa: PLC0415 - one test

    return LitellmTable().catalogue()


def test_a_control_character_of_a_log_does_not_reach_the_terminal(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "log.jsonl", [row(1, model="a\x1b[31m", end_user="")])

    assert "\x1b" not in run(file).output


@pytest.mark.parametrize(
    "sample",
    [
        "otel_messages.jsonl",
        "otel_events.json",
        "otel_openllmetry.jsonl",
        "otel_openinference.jsonl",
    ],
)
def test_spans_of_the_official_instrumentations_give_model_tokens_and_time(
    sample: str,
) -> None:
    found = write_json(read(SOURCES / sample))

    (model,) = found["models"]
    assert (model["model"], model["requests"]) == ("openai/gpt-5-mini", 2)
    assert found["unknown"] == {"cost": 2, "tokens": 0, "duration": 0}


def test_log_records_beside_their_spans_count_no_request_twice(tmp_path: Path) -> None:
    def attributes(**values: str) -> Sequence[Mapping[str, Any]]:
        return [
            {"key": f"gen_ai.{name}", "value": {"stringValue": value}}
            for name, value in values.items()
        ]

    ids = {"traceId": "t", "spanId": "s"}
    span = {**ids, "startTimeUnixNano": "1780836000000000000"}
    spans = {"spans": [{**span, "attributes": attributes(system="openai")}]}
    named = {"spans": [{**span, "attributes": [{"key": "gen_ai.request.model", **MODEL}]}]}
    event = {"eventName": "gen_ai.user.message", "timeUnixNano": "1780836000100000000", **ids}
    logs = {"logRecords": [{**event, "body": BODY}]}
    for name, document in {
        "spans": {"resourceSpans": [{"scopeSpans": [spans, named]}]},
        "logs": {"resourceLogs": [{"scopeLogs": [logs]}]},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")

    files = [str(tmp_path / "spans.json"), str(tmp_path / "logs.json")]
    found = attach(AttachRequest(files), clock=ManualClock(NOW), catalogue=CATALOGUE)

    assert (found.survey.requests, found.survey.repeated) == (1, 2)


MODEL = {"value": {"stringValue": "gpt-4.1"}}
BODY = {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": "Hi"}}]}}


def test_promptfoos_results_are_no_traffic(tmp_path: Path) -> None:
    result = {
        "provider": {"id": "openai:chat:gpt-4.1"},
        "prompt": {"raw": "Say hi"},
        "response": {"output": "hi", "tokenUsage": {"prompt": 3, "completion": 2}},
        "latencyMs": 200,
        "cost": 0.0001,
        # promptfoo's `error` also has the reason of a failed assertion.
        "error": "Expected output to contain hello",
    }
    document = {
        "evalId": "e",
        "results": {"timestamp": "2026-11-29T00:00:00Z", "results": [result]},
    }
    file = tmp_path / "results.json"
    file.write_text(json.dumps(document), encoding="utf-8")

    found = read(file)

    (model,) = write_json(found)["models"]
    assert (model["model"], model["failed"], model["cost_usd"]) == ("openai/gpt-4.1", 0, 0.0001)
    assert any("requests of an eval, not of users" in obstacle for obstacle in found.obstacles)


def test_an_object_in_place_of_a_name_is_not_shown(tmp_path: Path) -> None:
    result = {"promptIdx": 0, "provider": {"config": {"apiKey": "sk-secret"}}, "prompt": "Hi"}

    found = of_rows(tmp_path, result)

    assert "sk-secret" not in json.dumps(write_json(found))
    assert write_json(found)["models"][0]["model"] == "unknown"


def test_captures_of_swapproof_keep_their_data_class(tmp_path: Path) -> None:
    line = {
        "id": "c1",
        "messages": [QUESTION],
        "answer": {"role": "assistant", "content": "Here."},
        "model": "openai/gpt-4.1",
        "label": None,
        "provenance": {
            "route": "support",
            "at": "2026-11-28T00:00:00+00:00",
            "data_class": "internal",
            "outcome": "ok",
            "caller": "9f",
        },
    }

    found = of_rows(tmp_path, line, {**line, "id": "c2"})

    assert found.survey.data_classes == {"internal": 2}
    assert write_json(found)["models"][0]["model"] == "openai/gpt-4.1"


def test_the_small_program_attaches_to_files_and_names_the_package_of_the_next_command(
    tmp_path: Path,
) -> None:
    file = write_lines(tmp_path / "log.jsonl", [row(1)])

    done = CliRunner().invoke(
        try_program.program, ["attach", str(file)], prog_name="swapproof-try"
    )

    assert done.exit_code == 0
    assert "swapproof suite draw" in done.stdout.splitlines()[-1]
    assert "this command needs the package swapproof" in done.stderr


def test_attach_without_a_source_says_what_it_takes() -> None:
    done = run()

    assert done.exit_code == 2
    assert "SOURCE" in done.output or "name a source" in done.output


@pytest.mark.parametrize(
    ("callers", "labels", "is_enough"),
    [(150, 107, False), (250, 107, True), (700, 86, True), (4_000, 74, True)],
)
def test_more_callers_need_fewer_labels_and_too_few_are_an_obstacle(
    tmp_path: Path, callers: int, labels: int, *, is_enough: bool
) -> None:
    """Two requests of a caller are two pairs, but count as one caller."""
    rows = [{**row(n), "end_user": f"caller-{n // 2}"} for n in range(2 * callers)]
    found = of_rows(tmp_path, *rows)

    assert found.effort.labels == labels
    obstacles = [one for one in found.obstacles if "callers can be drawn" in one]
    assert (obstacles == []) == is_enough
