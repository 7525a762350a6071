import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.domain.settings import SuiteSettings
from tests.integration.test_evals_runners import job, provider_says
from tests.support.evals.eval_process import Assignment, carry_out
from tests.support.providers.scripted_chat import serving
from tests.support.site.small_disk import small_disk

pytestmark = [pytest.mark.slow, pytest.mark.req("G5")]
ITEMS = 200


@pytest.fixture
def suites(tmp_path: Path) -> Mapping[str, SuiteSettings]:
    data = tmp_path / "colours.jsonl"
    padding = "x" * 4_000
    lines = [
        json.dumps({"input": f"Which colour has number {n}? {padding}", "target": "red"})
        for n in range(ITEMS)
    ]
    data.write_text("\n".join(lines), encoding="utf-8")
    return {"colours": SuiteSettings(name="colours", path=data, scorer="label")}


def sample_keys(result: Mapping[str, Any]) -> set[tuple[str, int]]:
    return {(sample["item"], sample["epoch"]) for sample in result["samples"]}


@pytest.mark.verify
def test_a_run_whose_disk_gets_full_says_so_and_goes_on_when_there_is_room(
    tmp_path: Path, suites: Mapping[str, SuiteSettings]
) -> None:
    with small_disk(tmp_path) as disk, serving(provider_says) as served:
        whole = job(suites, served.provider(), wanted=ITEMS)
        stopped, resumed = carry_out(
            [
                Assignment(suites, whole, fill=disk, fill_after=60),
                Assignment(suites, whole, resume=True),
            ],
            environment={"TMPDIR": str(disk)},
        )
        left = [file.name for file in disk.iterdir()]
    assert (stopped["state"], stopped["error"]) == ("failed", "")
    assert stopped["remark"].startswith(f"the disk of {disk} is full")
    # What was answered before is kept, and not asked again.
    first, rest = sample_keys(stopped), sample_keys(resumed)
    assert 60 <= len(first) < ITEMS
    assert (len(first) + len(rest), first & rest) == (ITEMS, set())
    assert (resumed["state"], resumed["remark"], left) == ("done", "", [])
