"""`gate decide --from`: results of other tools become pairs, for a report alone."""

import ast
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.evals import export_decision, file_decision
from harness.cli.evals.export_decision import EXPORT_FORMATS, ExportChoice, read_exports
from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import (
    ExportedPairs,
    GapCount,
    ScoredRun,
    ScoredSample,
    pair_runs,
)

pytestmark = pytest.mark.req("G1", "F2")
ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "tests/support/evals/exports"
# The four sums: the incumbent is wrong about the third, the candidate fails at the last.
SUMS = [(1.0, 1.0), (1.0, 1.0), (0.0, 1.0), (1.0, None)]
SIDES = ("incumbent", "candidate")
EXAMPLES = {
    "promptfoo": ["promptfoo_both.json"],
    "braintrust": [f"braintrust_{side}.json" for side in SIDES],
    "langsmith": [f"langsmith_{side}.csv" for side in SIDES],
    "openai-evals": [f"openai_evals_{side}.jsonl" for side in SIDES],
    "inspect": [f"inspect_{side}.eval" for side in SIDES],
}
CHOICES = {
    "promptfoo": ExportChoice(
        "promptfoo", "openai:gpt-4o-mini", "anthropic:messages:claude-haiku-4-5"
    ),
    "langsmith": ExportChoice("langsmith", metric="correct"),
    "inspect": ExportChoice("inspect", metric="match"),
}


def paths(names: Sequence[str]) -> list[str]:
    return [str(FILES / name) for name in names]


def exported(format_name: str) -> ExportedPairs:
    choice = CHOICES.get(format_name, ExportChoice(format_name))
    return read_exports(paths(EXAMPLES[format_name]), choice)


@pytest.mark.parametrize("format_name", EXAMPLES)
def test_each_format_gives_the_same_pairs_with_its_error_counted(format_name: str) -> None:
    result = exported(format_name)

    epochs = 2 if format_name == "inspect" else 1
    wanted = [((ours,) * epochs, (theirs,) * epochs) for ours, theirs in SUMS]
    assert [(pair.incumbent, pair.candidate) for pair in result.pairs] == wanted
    assert result.candidate_gaps == GapCount(4 * epochs, failed=epochs, unscored=0, missing=0)
    assert result.incumbent_gaps.total == 0


def test_lm_evals_samples_are_paired_by_document() -> None:
    files = paths([f"lm_eval_{side}.jsonl" for side in SIDES])

    result = read_exports(files, ExportChoice("lm-eval"))

    assert result.metric == "acc"
    assert [pair.item for pair in result.pairs] == list("012345")
    assert [sum(pair.incumbent) for pair in result.pairs if None not in pair.incumbent]  # type: ignore[arg-type]
    assert read_exports(files, ExportChoice("lm-eval", metric="acc_norm")).metric == "acc_norm"


def test_output_items_of_the_evals_api_are_read_as_well() -> None:
    file = FILES / "openai_evals_items.json"

    (run,) = EXPORT_FORMATS["openai-evals"].parse(file.read_text())

    assert run.model == "gpt-4o-mini"
    assert [sample.scores["Exact match"] for sample in run.samples] == [1, 1, 0, 1]


def test_every_format_has_an_example_and_stands_in_the_help() -> None:
    assert set(EXPORT_FORMATS) == {*EXAMPLES, "lm-eval"} == set(file_decision.EXPORTS)


def test_the_command_reports_gaps_and_says_that_it_promotes_nothing() -> None:
    words = ["--from", "braintrust", *paths(EXAMPLES["braintrust"])]

    done = CliRunner().invoke(file_decision.gate_decide, [*words, "--json"])
    shown = CliRunner().invoke(file_decision.gate_decide, words)

    answer = json.loads(done.stdout)
    assert done.exit_code == 4
    assert (answer["verdict"], answer["wins"], answer["losses"]) == ("inconclusive", 1, 0)
    assert (answer["measured"], answer["bound_low"], answer["bound_high"]) == (3, 0.0, 0.25)
    assert answer["candidate_gaps"] == {"samples": 4, "failed": 1, "unscored": 0, "missing": 0}
    assert answer["use"] == export_decision.REPORT_ONLY
    assert "4 samples, 1 failed, 0 unscored, 0 missing" in shown.stdout
    assert "nothing is promoted by it" in shown.stdout


def test_no_code_of_exports_can_reach_a_verdict_or_the_database() -> None:
    """What promotes takes a `Passed` of a stored verdict: nothing here makes or stores one."""
    files = [*(ROOT / "harness/domain/evals/exports").glob("*.py")]
    files.append(Path(export_decision.__file__))
    imported = {
        (node.module, name.name)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }

    rooms = {module for module, _ in imported if module.startswith("harness")}
    assert all(
        module.startswith(("harness.domain.e", "harness.domain.s", "harness.cli.evals"))
        for module in rooms
    )
    assert not {name for _, name in imported} & {"Passed", "Verdict", "Store", "Context"}


def run(*scores: tuple[str, float | None], failed: str = "") -> ScoredRun:
    samples = [ScoredSample(item, {"m": score}, item == failed) for item, score in scores]
    return ScoredRun.from_samples("", samples)


def test_what_only_one_run_has_counts_as_missing_and_is_never_dropped() -> None:
    ours = run(("a", 1), ("b", 0), ("b", 1), ("c", None))
    theirs = run(("b", 1), ("c", 1), ("d", 1), failed="c")

    result = pair_runs(ours, theirs, "m")

    assert [pair.item for pair in result.pairs] == ["a", "b", "c", "d"]
    assert result.pairs[0].candidate == (None,)
    assert result.pairs[1].candidate == (1, None)
    assert result.incumbent_gaps == GapCount(4, failed=0, unscored=1, missing=1)
    assert result.candidate_gaps == GapCount(3, failed=1, unscored=0, missing=2)


@pytest.mark.parametrize(
    ("format_name", "text", "message"),
    [
        ("promptfoo", "{}", "has no results.results"),
        ("promptfoo", "{", "line 1: not JSON"),
        ("braintrust", "[1]", "has no list of rows"),
        ("braintrust", '{"input": 1}', "has no rows with `scores`"),
        ("langsmith", "a,b\n1,2\n", "has no columns feedback.NAME"),
        ("langsmith", "feedback.m\n1\n", "has rows with neither an example_id"),
        ("openai-evals", '{"a": 1}\n[2]\n', "line 2: not a JSON object"),
        ("openai-evals", '{"a": 1}', "has neither the events of oaieval"),
        ("lm-eval", '{"a": 1}', "line 1: has no doc_id"),
        ("inspect", '{"samples": []}', "has no samples"),
        ("promptfoo", f'{{"score": {"9" * 5_000}}}', "has a number of more digits"),
        ("lm-eval", f'{{"score": {"9" * 5_000}}}', "line 1: not a JSON object"),
    ],
)
def test_a_file_of_another_form_is_refused_with_what_is_wrong(
    tmp_path: Path, format_name: str, text: str, message: str
) -> None:
    file = tmp_path / "results"
    file.write_text(text)

    with pytest.raises(InputError) as refusal:
        read_exports([str(file), str(file)], ExportChoice(format_name))

    assert str(refusal.value).startswith(f"{file}: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--from", "promptfoo", *paths(["promptfoo_both.json"])],
            "by --incumbent and --candid",
        ),
        (["--from", "langsmith", *paths(EXAMPLES["langsmith"])], "by --metric: correct, short"),
        (["--metric", "x", "pairs.csv"], "belong to --from"),
        (["a.csv", "b.csv"], "say which, by --from"),
        (["--from", "lm-eval", "--cluster", "c", "a"], "without --from"),
        (["--from", "inspect", str(FILES / "README.md"), "b"], "README.md: line 1: not JSON"),
    ],
)
def test_what_is_not_said_clearly_is_bad_input(words: list[str], message: str) -> None:
    done = CliRunner().invoke(file_decision.gate_decide, words)

    assert done.exit_code == 2
    assert message in done.stderr


def test_no_file_of_another_tool_breaks_the_program_or_the_terminal(tmp_path: Path) -> None:
    archive = tmp_path / "log.eval"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as parts:
        for name in export_decision._PARTS:
            parts.writestr(name, json.dumps({"eval": list(range(500))}))
    content = bytearray(archive.read_bytes())
    content[60:90] = bytes(30)
    archive.write_bytes(bytes(content))
    with pytest.raises(InputError, match="convert it by"):
        read_exports([str(archive), str(archive)], ExportChoice("inspect"))

    text = (FILES / EXAMPLES["promptfoo"][0]).read_text(encoding="utf-8")
    hostile = tmp_path / "both.json"
    hostile.write_text(text.replace("openai:gpt-4o-mini", "a\\u001b[2Jb"), encoding="utf-8")
    names = ["--incumbent", "a\x1b[2Jb", "--candidate", CHOICES["promptfoo"].candidate]
    done = CliRunner().invoke(
        file_decision.gate_decide, ["--from", "promptfoo", *names, str(hostile)]
    )
    assert "\N{REPLACEMENT CHARACTER}[2Jb" in done.stdout, done.output
    assert "\x1b" not in done.stdout


def test_scores_beyond_0_to_1_are_refused() -> None:
    with pytest.raises(InputError, match="m of item 'a' is 7: scores are from 0 to 1"):
        pair_runs(run(("a", 7)), run(("a", 1)), "m")
