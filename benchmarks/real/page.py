"""The page that says what the real run saw, and on which machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from benchmarks.real.story import Story

ROOT = Path(__file__).parents[2]
INTRODUCTION = """# The real run

`make real` writes this page. It plays the main job between two small real models, without
the simulator: Gemma 3 270M and SmolLM2 135M Instruct, served by llama.cpp's own server. The
suite has 120 orders in one sentence, from which a model has to extract three fields by a JSON
schema. Users stream answers through the official `openai` client.

The models come from the package index (340 MB), not with Swapgate. Gemma's weights come
under [Google's Gemma terms](https://ai.google.dev/gemma/terms), SmolLM2's under Apache 2.0.
"""


def describe_run(story: Story) -> str:
    """Returns the page, in Markdown."""
    commit = subprocess.run(
        ("git", "rev-parse", "--short", "HEAD"),  # noqa: S607 - of the checkout
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.strip()  # fmt: skip
    wrong = sum(not check.good for check in story.checks)
    lines = [
        INTRODUCTION,
        "Commit "
        + ", ".join(
            (
                commit,
                f"{platform.system()} on {platform.machine()} with {os.cpu_count()} cores",
                f"xllamacpp {version('xllamacpp')}",
                f"{sum(story.took_s.values()) / 60:.0f} minutes",
                f"{len(story.checks)} checks",
                f"{wrong} of them not as expected.",
            )
        ),
    ]
    for act, checks in groupby(story.checks, key=lambda check: check.act):
        lines += [f"\n## {act.capitalize()}\n", f"{story.took_s[act]:.0f} s.\n"]
        lines += [
            f"- {'' if check.good else '**Not as expected:** '}{check.claim}: {check.seen}"
            for check in checks
        ]
    return "\n".join(lines) + "\n"
