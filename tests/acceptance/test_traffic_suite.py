"""A team without evals swaps a model by the log of its LiteLLM proxy and by a person's labels,
with the commands of docs/how-to/no-evals.md. No logged write happens again.
"""

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance import labeller
from tests.acceptance.installation import Database, Document, Installation
from tests.acceptance.providers import Simulator
from tests.acceptance.spend_logs import MODEL, WRITE, written_log
from tests.support.site.documented_commands import DOCS, UNTIL_UP, DocumentedCommands

PAGE: Final = "how-to/no-evals.md"
SHORT: Final = "Parcel $n is on its way."
DATED: Final = f"Parcel $n left the depot in Leeds. It {labeller.PREFERRED}."


def answering(by_last_digit: dict[str, str]) -> Document:
    lines = [
        {"newest": rf"parcel (?P<n>\d*[{digits}])\b", "text": text}
        for digits, text in by_last_digit.items()
    ]
    return {"script": lines}


# The truth that the labels have to find: people prefer the candidate's answer to half of the
# callers, and the incumbent's to three tenths. Others get equal answers.
PROFILES: Final[Document] = {
    MODEL: answering({"0-6": SHORT, "7-9": DATED}),
    "gpt-6-luna": answering({"0-4": DATED, "5-9": SHORT}),
    # The judge prefers the longer answer, and is wrong about 15 % of the pairs.
    "claude-sonnet-5-5": {"skill": {"judge": 0.85}},
}
# Bash prints the time at the beginning of each step, and at the end of the last step.
STEP: Final = re.compile(r"^STEP (\d+\.\d+) (.+)$", re.MULTILINE)
EXPORT: Final = re.compile(r"^psql .+$", re.MULTILINE)
AFTER: Final = """\
echo "STEP $EPOCHREALTIME end"
swapproof proposal list
"""


def begin(step: str) -> str:
    return f'echo "STEP $EPOCHREALTIME {step}"\n'


def play(
    folder: Path,
    sim: Simulator,
    program: Path,
    *,
    export: str = "",
    settings: str = "",
    tools: str = "",
    **variables: str,
) -> str:
    """Runs the page's commands by the installed program. Returns what they printed.

    Args:
        export: writes the log, in the place of the page's command.
        settings: further settings of the policy `quick`.
    """
    (psql,) = EXPORT.findall((DOCS / PAGE).read_text(encoding="utf-8"))
    until_answered = (
        "until swapproof proposal list --json | grep -q 'waits for people'; do sleep 1; done\n"
        f"curl -s {sim.url}/sim/stats > stats.json\n"
    )
    scripted = f"{sys.executable} {labeller.__file__} swapproof label"
    changes = {
        psql: f"{begin('export the log')}{export or psql}",
        "swapproof attach": f"{begin('attach')}swapproof attach",
        "swapproof init": f"{begin('set up')}swapproof init",
        "kind: openai,": f"kind: openai, api_base: {sim.url}/v1,",
        "kind: anthropic,": f"kind: anthropic, api_base: {sim.url},",
        "margin: 0.1}": f"margin: 0.1}}{settings}",
        "serve all &": f"serve all &\n{UNTIL_UP}",
        "swapproof suite draw": f"{begin('draw')}swapproof suite draw",
        "swapproof proposal create": f"{begin('compare')}swapproof proposal create",
        "swapproof label": f"{until_answered}{begin('label')}{scripted}",
        "export SWAPPROOF_KEY": f"{begin('canary')}export SWAPPROOF_KEY",
    }
    commands = DocumentedCommands(PAGE, folder, changes=changes, after=AFTER)
    return commands.run(
        timeout_s=800,
        PATH=f"{program.parent}:{tools}:{os.environ['PATH']}",
        OPENAI_API_KEY="sk-simulated",
        ANTHROPIC_API_KEY="sk-simulated",
        **variables,
    )


def measure_steps(said: str) -> dict[str, float]:
    """Returns the seconds of each step, from its first command to the next step's."""
    found = STEP.findall(said)
    return {
        step: float(end) - float(began) for (began, step), (end, _) in itertools.pairwise(found)
    }


@pytest.fixture
def sim(swapproof: Path, tmp_path: Path) -> Iterator[Simulator]:
    place = Installation(swapproof, tmp_path / "providers", {})
    yield Simulator(place, profiles=PROFILES)
    place.close()


def check(folder: Path, said: str, callers: int) -> None:
    """Checks that labels proved the swap, and that no logged write was sent."""
    times = measure_steps(said).items()
    sys.stdout.write("".join(f"{step}: {taken_s:.1f} s\n" for step, taken_s in times))
    assert f"suite support-traffic: {callers} records" in said
    assert "not drawn: 1 with a tool that the provider runs" in said
    assert "support: openai/gpt-6-luna is promoted" in said
    assert "requests, 0 failed" in said

    database = Database(f"sqlite:///{folder}/.swapproof/swapproof.db")
    (verdict,) = database.rows("SELECT * FROM verdict")
    assert verdict["outcome"] == "passed"
    assert "By local's preference" in verdict["reason"]
    sys.stdout.write(f"{verdict['reason']}\n")
    # The incumbent's arm is the log.
    rows = database.rows(
        "SELECT s.strict, s.error FROM eval_run r JOIN sample s ON s.run = r.id"
        " WHERE r.target = :incumbent",
        incumbent=verdict["incumbent"],
    )
    assert {(one["strict"], one["error"]) for one in rows} == {(0.5, None)}
    counted = json.loads((folder / "stats.json").read_text(encoding="utf-8"))["models"]
    assert counted[MODEL]["requests"] >= 60
    assert all(not model["tools"] for model in counted.values())
    prompts = database.rows("SELECT prompt FROM sample")
    assert not [one for one in prompts if WRITE in str(one["prompt"])]
    assert WRITE not in (folder / "suites/support-traffic.jsonl").read_text(encoding="utf-8")


# A third of the callers that `quick` asks for, and a window of a second.
FASTER: Final = ", canary: {window_s: 1, steps: [{weight_bps: 5000, min_exposures: 50}]}"


@pytest.mark.req("F2", "F9", "F13", "D8")
def test_a_spend_log_and_labels_prove_a_swap_and_a_logged_write_is_never_sent_again(
    sim: Simulator, swapproof: Path, tmp_path: Path
) -> None:
    written_log(tmp_path / "written.jsonl", f"{sim.url}/v1", 60)
    sim.reset_stats()

    said = play(
        tmp_path, sim, swapproof, export="mv written.jsonl spend.jsonl", settings=FASTER
    )

    check(tmp_path, said, 60)
