"""The same items as an eval worker of ours asks them: from the lease to the last stored sample.

python benchmarks/evals/swapgate.py CONFIG RUN FOLDER [--profile]
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from harness.app.eval_workers import run_worker
from harness.app.installation import open_installation


def main() -> None:
    config, run, folder = sys.argv[1:4]
    run_worker(Path(config), run, owner="benchmark", parent=os.getppid())
    installation = open_installation(Path(config))
    with installation.store.read() as tx:
        samples = tx.runs.samples(run)
    right = sum(sample.strict or 0.0 for sample in samples)
    installation.close()
    Path(folder, "result").write_text(f"{len(samples)} {right:.0f}", encoding="utf-8")


if __name__ == "__main__":
    if "--profile" in sys.argv:
        from benchmarks.evals.sampling import profiled

        profiled(main, Path(sys.argv[3], "profile.json"))
    else:
        main()
