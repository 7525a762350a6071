import sys
from pathlib import Path

import pytest

from tests.support.site.documented_commands import UNTIL_UP, DocumentedCommands

# Return at each question, but the simulator is on another port here.
ANSWERS = r"printf '\nhttp://127.0.0.1:9000/v1\n\n\n\n\n\n' | swapgate init --guided"


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_tutorial_ends_with_a_promoted_and_a_rolled_back_swap(tmp_path: Path) -> None:
    tutorial = DocumentedCommands(
        "tutorial.md",
        tmp_path,
        changes={
            "make setup\n": "",
            ". .venv/bin/activate": f". {sys.prefix}/bin/activate",
            "swapgate init --guided": ANSWERS,
            "swapgate doctor": f"{UNTIL_UP}\nswapgate doctor",
        },
    )

    said = tutorial.run(timeout_s=1100)

    assert "support: sim/sim-better is promoted" in said
    assert "PASSED" in said
    assert "drafts: sim/sim-fragile is rolled back" in said
    assert "requests, 0 failed" in said
    assert "rolled_back" in said
