"""The real run: `python -m benchmarks.real [--keep FOLDER] [--only ACT]`; `make real` calls it.

Swaps a route between two small real models behind llama.cpp's own server. The swap to the
better model is promoted, and the swap back is rejected. Labels of another route's own traffic
decide a third swap, and a canary rolls back after its server is killed. Ends with 0 if all
checks pass, 1 if not, 77 if this machine cannot run it.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.real import servers

CANNOT: Final = 77


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--page", type=Path, help="file for the page of results")
    options.add_argument("--only", default="", help="an act, such as 'prove by own traffic'")
    options.add_argument("--keep", type=Path, help="folder for models, logs and records")
    chosen = options.parse_args()
    if reason := servers.missing():
        print(f"skipped: {reason}", file=sys.stderr)
        return CANNOT
    from benchmarks.real import schema_judge, story  # noqa: PLC0415 - not where it cannot run

    with (
        schema_judge.serve_judge() as judge_url,
        tempfile.TemporaryDirectory(prefix="swapproof-real-") as made,
    ):
        folder = chosen.keep or Path(made)
        folder.mkdir(exist_ok=True)
        played = story.stage(folder, Path(sys.executable).with_name("swapproof"), judge_url)
        try:
            checks = played.play(chosen.only)
        finally:
            played.place.close()
            for server in (played.gemma, played.smollm, played.spare):
                server.kill()
    if chosen.page and chosen.only:
        page = story.replace_act(chosen.page.read_text("utf-8"), played, chosen.only)
        chosen.page.write_text(page, "utf-8")
    elif chosen.page:
        chosen.page.write_text(story.describe_run(played), "utf-8")
    return int(not all(check.good for check in checks))


if __name__ == "__main__":
    sys.exit(main())
