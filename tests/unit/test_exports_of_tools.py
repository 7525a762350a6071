"""Each file that an eval tool wrote is read with the figures that the tool printed."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.evals.scored_run import GapCount, mean_known
from harness.interfaces.cli.evals.export_decision import (
    ExportChoice,
    read_exports,
    recognise_files,
)

pytestmark = pytest.mark.req("G1", "F2")
FILES = Path(__file__).parent.parent / "support/evals/exports"


@dataclass(frozen=True)
class Sample:
    files: tuple[str, ...]
    metric: str
    items: int
    epochs: int
    means: tuple[float, float]  # as the tool printed them, without failed answers
    failed: tuple[int, int] = (0, 0)
    unscored: tuple[int, int] = (0, 0)
    grader_failed: tuple[int, int] = (0, 0)
    names: tuple[str, str] = ("", "")


SIDES = ("base", "better")
SAMPLES = {
    "promptfoo repeats, JSON lines": Sample(
        ("promptfoo_repeats.jsonl",),
        "score",
        items=3,
        epochs=2,
        means=(2.5 / 6, 4 / 4),
        failed=(0, 2),
        names=("base", "better"),
    ),
    "promptfoo, named score": Sample(
        ("promptfoo_repeats.jsonl",),
        "exact",
        items=3,
        epochs=2,
        means=(2 / 6, 4 / 4),
        failed=(0, 2),
        names=("base", "better"),
    ),
    "promptfoo, YAML": Sample(
        ("promptfoo_repeats.yaml", "promptfoo_repeats.yaml"),
        "pass",
        items=2,
        epochs=2,
        means=(0.5, 0.5),
    ),
    "lm-eval, a filter of three": Sample(
        tuple(f"lm_eval_repeats_{side}.jsonl" for side in SIDES),
        "exact_match,digits",
        items=7,
        epochs=1,
        means=(0.4286, 0.2857),
    ),
    "OpenAI evals": Sample(
        tuple(f"openai_evals_fuzzy_{side}.jsonl" for side in SIDES),
        "f1_score",
        items=7,
        epochs=1,
        means=(0.5714, 0.7143),
    ),
    "Inspect, a scorer of words that leaves an item out": Sample(
        tuple(f"inspect_epochs_{side}.eval" for side in SIDES),
        "words",
        items=3,
        epochs=2,
        means=(0.5, 1.0),
        failed=(0, 2),
        unscored=(2, 0),
    ),
    "Inspect, a part of a scorer": Sample(
        tuple(f"inspect_epochs_{side}.eval" for side in SIDES),
        "parts.ok",
        items=3,
        epochs=2,
        means=(0.6667, 1.0),
        failed=(0, 2),
    ),
    "DeepEval, a metric that failed": Sample(
        ("deepeval_latest_base.json", "deepeval_run_better.json"),
        "Exact",
        items=7,
        epochs=2,
        means=(0.75, 0.6667),
        grader_failed=(2, 2),
    ),
}


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_run_has_the_figures_that_its_tool_printed(sample: Sample) -> None:
    files = [str(FILES / name) for name in sample.files]
    tool = recognise_files(files)[files[0]]

    read = read_exports(files, ExportChoice(tool, *sample.names, metric=sample.metric))

    assert len(read.pairs) == sample.items
    assert {len(row.incumbent) for row in read.pairs} == {sample.epochs}
    total = sample.items * sample.epochs
    assert [read.incumbent_gaps, read.candidate_gaps] == [
        GapCount(total, failed, unscored, 0, broken)
        for failed, unscored, broken in zip(
            sample.failed, sample.unscored, sample.grader_failed, strict=True
        )
    ]
    sides = [row.incumbent for row in read.pairs], [row.candidate for row in read.pairs]
    for scores, printed in zip(sides, sample.means, strict=True):
        mean = mean_known(map(mean_known, scores))
        assert mean is not None
        assert math.isclose(read.file_score(mean), printed, abs_tol=5e-4)


def test_cost_and_time_of_promptfoos_answers_are_read() -> None:
    names = ExportChoice("promptfoo", "base", "better")

    read = read_exports([str(FILES / "promptfoo_repeats.jsonl")], names)

    # promptfoo's totals of `base`: $0.00023 and 1,480 ms for six answers.
    assert read.incumbent_mean.usd == pytest.approx(0.00023 / 6)
    assert read.incumbent_mean.latency_ms == pytest.approx(1480 / 6)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_run_compared_with_itself_is_a_tie(sample: Sample) -> None:
    file = str(FILES / sample.files[0])
    tool = recognise_files([file])[file]
    choice = ExportChoice(tool, sample.names[0], sample.names[0], metric=sample.metric)

    read = read_exports([file, file], choice)

    assert all(row.incumbent == row.candidate for row in read.pairs)
