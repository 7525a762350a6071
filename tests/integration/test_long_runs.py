"""The long runs of docs/reference/figures.md, whole; each writes its own result (make soak)."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FIGURES = yaml.safe_load((ROOT / "benchmarks/figures/figures.yaml").read_text("utf-8"))


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.req("F1", "F3", "F5")
@pytest.mark.parametrize("figure", FIGURES)
def test_a_long_run_reaches_its_goal(figure: str) -> None:
    _, *words = FIGURES[figure]["command"].split()

    assert subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode == 0  # noqa: S603
