"""`try` finds lm-eval's rows of documents in folders and beside totals, of every version."""

import json
import shutil
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result

from harness.interfaces.cli.program import program

pytestmark = pytest.mark.req("G1", "F2", "H1")

BESIDE: Final = Path(__file__).parent.parent / "support/evals/exports/lm_eval_beside"
TIMES: Final = ("2026-11-29T16-29-37.914056", "2026-11-29T16-29-58.946011")


def tried(*words: Path | str) -> Result:
    return CliRunner().invoke(program, ["try", *map(str, words)])


def samples(score: int) -> str:
    rows = [
        {"doc_id": n, "doc": {"q": f"q{n}"}, "arguments": [[f"q{n}"]], "acc": score}
        for n in range(40)
    ]
    return json.dumps(rows, indent=2)


def newest_folder(folder: Path, model: str, tasks: dict[str, int]) -> Path:
    """Writes a run as lm-eval does since 0.4.3: a folder for each model."""
    place = folder / model
    place.mkdir(parents=True)
    for task, score in tasks.items():
        rows = "\n".join(map(json.dumps, json.loads(samples(score))))
        (place / f"samples_{task}_{TIMES[0]}.jsonl").write_text(rows)
    return folder


def test_totals_and_folders_stand_for_the_samples_of_their_run(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("base", "tuned")]
    for folder, time in zip(folders, TIMES, strict=True):
        (folder / "org__model").mkdir(parents=True)
        for file in BESIDE.glob(f"*_{time}.json*"):
            shutil.copy(file, folder / "org__model")
    files = [BESIDE / f"samples_sums_{time}.jsonl" for time in TIMES]
    totals = [BESIDE / f"results_{time}.json" for time in TIMES]
    words = ("--metric", "exact_match", "--partial", "a", "--asked-differently", "b", "--json")

    answers = [json.loads(tried(*pair, *words).stdout) for pair in (files, totals, folders)]

    commands = [answer.pop("next_command") for answer in answers]
    assert answers[0] == answers[1] == answers[2]
    assert commands[0] == commands[1]
    assert answers[0]["items"] == 3


def test_several_tasks_are_listed_with_a_command_for_each(tmp_path: Path) -> None:
    ours = newest_folder(tmp_path / "ours", "m", {"arc": 0, "gsm8k": 0, "piqa": 0})
    theirs = newest_folder(tmp_path / "theirs", "n", {"gsm8k": 1, "arc": 1})

    done = tried(ours, theirs)

    assert done.exit_code == 2
    assert "2 tasks have results" in done.stderr
    command = next(line for line in done.stderr.splitlines() if "samples_gsm8k" in line)
    assert tried(*command.split()[2:]).exit_code == 0


def test_each_older_version_is_read_from_its_own_files(tmp_path: Path) -> None:
    for side, score in (("ours", 0), ("theirs", 1)):
        folder = tmp_path / side
        folder.mkdir()
        totals = {"results": {"arc_easy": {"acc": score}}, "versions": {}, "configs": {}}
        (folder / "results.json").write_text(json.dumps(totals))
        (folder / f"pretrained__{side}_arc_easy.jsonl").write_text(samples(score))
        old = [
            {"doc_id": n, "prompt_0": f"q{n}", "truth": "a", "acc": str(score)}
            for n in range(40)
        ]
        (tmp_path / f"old_{side}").mkdir()
        (tmp_path / f"old_{side}/piqa_write_out_info.json").write_text(json.dumps(old))

    newer = tried(tmp_path / "ours", tmp_path / "theirs/results.json", "--json")
    older = tried(tmp_path / "old_ours", tmp_path / "old_theirs", "--json")

    for done in (newer, older):
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["wins"] == 40


def test_totals_alone_are_refused_with_the_option_that_writes_the_rows(tmp_path: Path) -> None:
    totals = {"results": {"arc": {"acc": 0.4}}, "versions": {"arc": 0}, "config": {}}
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(totals))

    done = tried(tmp_path / "a.json", tmp_path / "b.json")

    assert done.exit_code == 2
    assert "without a row for each document: give `samples_TASK_….jsonl` of" in done.stderr


def test_a_folder_without_results_and_runs_of_other_tasks_are_refused(tmp_path: Path) -> None:
    ours = newest_folder(tmp_path / "ours", "m", {"arc": 0})
    theirs = newest_folder(tmp_path / "theirs", "m", {"piqa": 0})
    (tmp_path / "empty").mkdir()

    assert "is a folder without lm-eval's" in tried(tmp_path / "empty", ours).stderr
    assert "the runs have no task in common" in tried(ours, theirs).stderr
