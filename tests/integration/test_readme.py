"""Every command of the README is run, in its order, in one shell, as a reader would.

`make test` itself is excepted, and `make demo` runs with ONCE=1 (test_demo.py).
"""

import re
import sys
from pathlib import Path

import pytest

from tests.support.site.documented_commands import UNTIL_UP, DocumentedCommands

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# The same path at a smaller scale: a quarter of the users that the canary otherwise asks for.
SMALLER = """\
policies:
  quick: {canary: {steps: [{weight_bps: 5000, min_exposures: 50}]}}
EOF
swapgate sim --port"""


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_readme_works_in_its_order(tmp_path: Path) -> None:
    (python,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    propose = "swapgate proposal create"
    page = DocumentedCommands(
        "../README.md",
        tmp_path,
        changes={
            "make demo\n": "",
            "make test\n": "",
            ". .venv/bin": f". {sys.prefix}/bin",
            "EOF\nswapgate sim --port": SMALLER,
            "swapgate doctor": f"{UNTIL_UP}\nswapgate doctor",
            propose: f"python - <<'PY'\n{python}PY\n{propose}",
        },
    )

    said = page.run(timeout_s=800)

    assert "PASSED" in said
    assert "support: sim/sim-better is promoted" in said
    assert "requests, 0 failed" in said
    assert f"dashboard  http://127.0.0.1:{page.ports['8501']}" in said


def test_the_readme_names_no_file_that_is_not_there() -> None:
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_two_commands_of_the_readme_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)$", README, flags=re.MULTILINE)
    assert commands == ["demo", "test"]
    assert all(f"\n{command}:" in makefile for command in commands)
