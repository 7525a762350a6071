"""GSM8K, IFEval and our own four sets, by the door that any user's data comes through."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evals.scorers.ifeval import pairs
from evals.sim import answers
from evals.sim.profiles import Habits, Profile
from evals.sim.simulated_model import BankItem as SimItem
from evals.sim.simulated_model import ItemBank
from evals.sim.simulator import Simulator
from evals.suites.items import Item
from evals.suites.suite import ConfiguredSuites, Suite, load_suite
from harness import package_data
from harness.domain.evals.run import Sample, SampleError
from harness.domain.evals.suite_plan import Claim, SuitePlan, SuiteRole
from harness.domain.evals.verdict import Verdict
from harness.domain.routing.target import Provider, Target
from harness.domain.settings import SuiteSettings
from harness.gate.offline.verdicts import decide_verdict
from harness.ports import EvalJob
from tests.support.evals.eval_process import Assignment, carry_out, one
from tests.support.evals.scripted_runner import ScriptedRunner
from tests.support.providers.simulator_thread import serve_in_thread
from tests.support.store.records import PLAIN_RUN

Params = Mapping[str, Any]
Told = Sequence[tuple[str, Params]]

FILLERS = ("tea", "milk", "soup", "bowl", "cup", "pan", "fish", "crab", "gym", "dry", "zzz")
IN_SCRIPT = {
    "bn": "চা", "el": "τσάι", "gu": "ચા", "he": "תה", "ja": "おちゃ", "kn": "ಚಹಾ",
    "ko": "녹차", "ml": "ചായ", "pa": "ਚਾਹ", "ta": "தேநீர்", "te": "తేనీరు", "th": "ชา",
}  # fmt: skip


def follows(told: Told) -> str:
    """A text for all of them, built from the inside out."""
    params = dict(told)
    body = _paragraphs(params, _words(params))
    body = _extras(params, body)
    body = _framed(params, body)
    if "change_case:english_capital" in params:
        body = body.upper()
    if "change_case:english_lowercase" in params:
        body = body.lower()
    if "detectable_format:json_format" in params:
        body = json.dumps({"text": body}, ensure_ascii=False)
    if "startend:quotation" in params:
        body = f'"{body}"'
    return body


def _words(params: Mapping[str, Params]) -> list[str]:
    """What the sentences are made of."""
    filler = _filler(params)
    words = [filler] * 4
    kind = params.get("length_constraints:number_words", {})
    if kind.get("relation") == "at least":
        words = [filler] * kind["num_words"]
    words += params.get("keywords:existence", {}).get("keywords", [])
    wanted = params.get("keywords:frequency", {})
    if wanted.get("relation") == "at least":
        words += [wanted["keyword"]] * wanted["frequency"]
    wanted = params.get("keywords:letter_frequency", {})
    if wanted.get("let_relation") == "at least":
        words += [wanted["letter"]] * wanted["let_frequency"]
    wanted = params.get("change_case:capital_word_frequency", {})
    if wanted.get("capital_relation") == "at least":
        words += ["TEA"] * wanted["capital_frequency"]
    return words


def _filler(params: Mapping[str, Params]) -> str:
    """A word that breaks nothing."""
    language = params.get("language:response_language", {}).get("language")
    if language:
        return IN_SCRIPT[language]
    banned = [
        *params.get("keywords:forbidden_words", {}).get("forbidden_words", ()),
        params.get("keywords:frequency", {}).get("keyword", " "),
        params.get("keywords:letter_frequency", {}).get("letter", " "),
    ]
    free = [f for f in FILLERS if not any(word.casefold() in f for word in banned)]
    return (free or FILLERS)[0]


def _paragraphs(params: Mapping[str, Params], words: Sequence[str]) -> str:
    sentences = params.get("length_constraints:number_sentences", {})
    at_least = sentences.get("relation") == "at least"
    text = " ".join(words) + "."
    if at_least:
        text += " " + " ".join([f"{words[0]}."] * sentences["num_sentences"])
    if "length_constraints:nth_paragraph_first_word" in params:
        nth = params["length_constraints:nth_paragraph_first_word"]
        blocks = [text, *[f"{words[0]}."] * (nth["num_paragraphs"] - 1)]
        at = nth["nth_paragraph"] - 1
        blocks[at] = f"{nth['first_word']} {blocks[at]}"
        return "\n\n".join(blocks)
    parts = params.get("length_constraints:number_paragraphs", {}).get("num_paragraphs", 1)
    return "\n***\n".join([text, *[f"{words[0]}."] * (parts - 1)])


def _extras(params: Mapping[str, Params], body: str) -> str:
    """Marks, lists and sections, each on lines of its own."""
    filler = _filler(params)
    lines = [body]
    marked = params.get("detectable_format:number_highlighted_sections")
    if marked:
        lines.append(" ".join([f"{filler} *{filler}*"] * marked["num_highlights"]))
    held = params.get("detectable_content:number_placeholders")
    if held:
        lines.append(" ".join([f"[{filler}]"] * held["num_placeholders"]))
    listed = params.get("detectable_format:number_bullet_lists")
    if listed:
        lines += [f"* {filler}"] * listed["num_bullets"]
    parted = params.get("detectable_format:multiple_sections")
    if parted:
        head = parted["section_spliter"]
        lines += [f"{head} {n}\n{filler}" for n in range(1, parted["num_sections"] + 1)]
    if "detectable_format:constrained_response" in params:
        lines.append("My answer is yes.")
    return "\n".join(lines)


def _framed(params: Mapping[str, Params], body: str) -> str:
    """What has to stand first or last."""
    if "detectable_format:title" in params:
        body = f"<<{_filler(params)}>>\n{body}"
    if "combination:two_responses" in params:
        body = f"{body}\n******\n{body} {_filler(params)}"
    if "combination:repeat_prompt" in params:
        body = f"{params['combination:repeat_prompt']['prompt_to_repeat']}\n{body}"
    if "detectable_content:postscript" in params:
        body = f"{body}\n{params['detectable_content:postscript']['postscript_marker']} ok"
    if "startend:end_checker" in params:
        body = f"{body}\n{params['startend:end_checker']['end_phrase']}"
    return body


ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SWAPGATE_SHARED", ROOT.parent / "shared")) / "evaldata"
FIRST = 500
NOW = datetime(2026, 1, 1, tzinfo=UTC)

OURS = {
    "arithmetic": SuiteSettings(
        "arithmetic", scorer="numeric", scorer_options={"final_line": "ANSWER:"}
    ),
    "extraction": SuiteSettings("extraction", scorer="json_fields"),
    "tickets": SuiteSettings("tickets", scorer="label"),
    "instructions": SuiteSettings("instructions", scorer="instructions"),
}


def spoken(suite: str, answer: object) -> str:
    """The answer as the suite's prompts ask for it."""
    if suite == "arithmetic":
        return f"Step by step.\nANSWER: {answer}"
    return answer if isinstance(answer, str) else json.dumps(answer)


def shipped_suite(name: str) -> Suite:
    settings = OURS[name]
    path = package_data.path("datasets") / f"{name}.jsonl"
    return load_suite(
        SuiteSettings(
            name, path=path, scorer=settings.scorer, scorer_options=settings.scorer_options
        )
    )


@pytest.mark.parametrize("name", OURS)
def test_in_our_sets_every_target_is_right_and_every_distractor_wrong(name: str) -> None:
    suite = shipped_suite(name)

    assert (len(suite.items) >= 400, suite.left_out) == (True, {})
    for item in suite.items.values():
        assert suite.score(spoken(name, item.target), item.id).strict == 1, item.id
        for wrong in item.metadata["distractors"]:
            assert suite.score(spoken(name, wrong), item.id).strict == 0, (item.id, wrong)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SuiteSettings]:
    """The first 500 items of GSM8K, and IFEval."""
    if not SHARED.is_dir():
        pytest.skip(f"no public eval data at {SHARED}; set SWAPGATE_SHARED to its folder")
    first = tmp_path_factory.mktemp("public") / "gsm8k.jsonl"
    lines = (SHARED / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()
    first.write_text("\n".join(lines[:FIRST]), encoding="utf-8")
    return {
        "gsm8k": SuiteSettings(
            "gsm8k",
            path=first,
            scorer="numeric",
            input_field="question",
            target_field="target",
        ),
        "ifeval": SuiteSettings(
            "ifeval",
            path=SHARED / "ifeval.jsonl",
            scorer="ifeval",
            input_field="prompt",
            target_field="instruction_id_list+kwargs",
            max_output_tokens=4096,
        ),
    }


def bank(public: dict[str, SuiteSettings]) -> ItemBank:
    """What simulated models know: worked solutions, and texts that follow instructions."""
    catalog = ConfiguredSuites(public)
    solved = {
        item["question"]: item["answer"]
        for item in map(json.loads, Path(str(public["gsm8k"].path)).read_text().splitlines())
    }
    sums = [
        SimItem("gsm8k", item.id, item.input, solved[item.input],
                distractors=(f"It is {float(str(item.target)) + 1:g}.",))
        for item in catalog.suite("gsm8k").items.values()
    ]  # fmt: skip
    texts = [
        SimItem("ifeval", item.id, item.input, follows(pairs(item)), distractors=("x, y.",))
        for item in catalog.suite("ifeval").items.values()
    ]
    return ItemBank([*sums, *texts])


BASE = Profile("base", {"gsm8k": 0.7, "ifeval": 0.8}, seed=3)
PROFILES = {
    profile.name: profile
    for profile in (
        BASE,
        Profile("better", {"gsm8k": 0.85, "ifeval": 0.93}, seed=5),
        Profile("worse", {"gsm8k": 0.55, "ifeval": 0.6}, seed=7),
        replace(BASE, name="chatty", habits=Habits(verbose=0.9)),
    )
}
Runs = Mapping[tuple[str, str], Sequence[Sample]]


# By Inspect over HTTP, every item; the others by its twin, in seconds.
BY_INSPECT = (("gsm8k", "better"), ("ifeval", "chatty"))


@pytest.fixture(scope="module")
def runs(public: dict[str, SuiteSettings]) -> Runs:
    """Every model on every item of a suite."""
    catalog, known = ConfiguredSuites(public), bank(public)
    sim = Simulator(PROFILES, known, unix_time=lambda: 0, time_scale=0)

    def script(target: Target, item: Item, _epoch: int) -> str:
        asked = known.find(item.input)
        assert asked is not None
        seen = sim.models[target.model].sit(asked)
        return answers.answer(seen, PROFILES[target.model], prompt=item.input)

    with serve_in_thread(sim) as url:
        jobs = [job(catalog, *pair, f"{url}/v1") for pair in BY_INSPECT]
        done = carry_out([Assignment(public, eval_job) for eval_job in jobs], timeout_s=600)
    by_twin = [(s, m) for s in public for m in PROFILES if (s, m) not in BY_INSPECT]
    twin = ScriptedRunner(public, script)
    done += [one(Assignment(public, job(catalog, *names, url)), twin, {}) for names in by_twin]
    assert [result["state"] for result in done] == ["done"] * len(done), done[0]["error"]
    return {
        key: [sample_of(sample) for sample in result["samples"]]
        for key, result in zip((*BY_INSPECT, *by_twin), done, strict=True)
    }


def sample_of(found: Mapping[str, Any]) -> Sample:
    error = SampleError(found["error"]) if found["error"] else None
    return Sample(**{**found, "error": error})


def job(catalog: ConfiguredSuites, suite: str, model: str, url: str) -> EvalJob:
    target = Target("sim", model)
    pin = catalog.pin(suite)
    made = replace(PLAIN_RUN, id=f"run-{suite}-{model}", target=target.id)
    run = replace(made, suite=suite, suite_digest=pin.digest, wanted=pin.items)
    return EvalJob(run, target, Provider("sim", "sim", url), None, max_connections=8)


def decided(runs: Runs, catalog: ConfiguredSuites, suite: str, candidate: str) -> Verdict:
    pin = catalog.pin(suite)
    plan = SuitePlan(
        suite=suite,
        suite_digest=pin.digest,
        role=SuiteRole.PRIMARY,
        claim=Claim.SUPERIOR,
        margin=0.05,
        alpha=0.05,
        n_max=pin.items,
        epochs=1,
        order_seed=1,
    )
    sides = {suite: (runs[suite, "base"], runs[suite, candidate])}
    verdict = decide_verdict("route", "t_base", f"t_{candidate}", [plan], sides, NOW, 3600)
    assert verdict is not None
    return verdict


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.req("A7", "A8")
def test_gsm8k_and_ifeval_run_through_inspect_to_a_verdict(
    public: dict[str, SuiteSettings], runs: Runs
) -> None:
    catalog = ConfiguredSuites(public)
    for (name, model), samples in runs.items():
        suite = catalog.suite(name)
        assert len(samples) == len(suite.items)
        for sample in samples:
            again = suite.score(sample.answer, sample.item)
            assert (sample.strict, sample.lenient) == (again.strict, again.lenient), sample.item
        if name == "gsm8k":
            right = sum(sample.strict or 0 for sample in samples)
            assert right == FIRST * PROFILES[model].skill_in(name)

    outcomes = {
        (name, model): decided(runs, catalog, name, model).outcome
        for name, model in runs
        if model != "base"
    }
    assert outcomes == {
        ("gsm8k", "better"): "passed",
        ("gsm8k", "worse"): "failed",
        # An opening sentence changes no sum: the same answers as the incumbent's.
        ("gsm8k", "chatty"): "inconclusive",
        ("ifeval", "better"): "passed",
        ("ifeval", "worse"): "failed",
        ("ifeval", "chatty"): "harness_mismatch",
    }
