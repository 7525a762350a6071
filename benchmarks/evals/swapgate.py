"""The same items as an eval worker of ours asks them: from the lease to the last stored sample.

python -m benchmarks.evals.swapgate CONFIG RUN FOLDER
"""

import os
import sys
from pathlib import Path

from harness.app.eval_workers import run_worker
from harness.app.installation import open_installation
from harness.routing.records.runs import EvalRuns


def main() -> None:
    config, run, folder = sys.argv[1:4]
    run_worker(Path(config), run, owner="benchmark", parent=os.getppid())
    installation = open_installation(Path(config))
    with installation.store.read() as tx:
        samples = EvalRuns(tx).samples(run)
    right = sum(sample.strict or 0.0 for sample in samples)
    installation.close()
    Path(folder, "result").write_text(f"{len(samples)} {right:.0f}", encoding="utf-8")


if __name__ == "__main__":
    main()
