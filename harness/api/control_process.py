"""The control process: upgrades the database, adds what the file seeds, runs the control jobs,
and serves the management API until a signal ends it.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import structlog
import uvicorn

from harness.api.app import build_app
from harness.api.frame.access import SERVER
from harness.app.control_schedule import RECONCILE_JOB, control_schedule
from harness.app.database import upgrade_database
from harness.app.eval_workers import open_with_workers
from harness.app.installation import Installation
from harness.control.routing import seed
from harness.domain.errors import SignatureInvalid
from harness.imports import leave_alone_what_serves

log = structlog.get_logger("swapgate.control")

METRICS_TOKEN = "SWAPGATE_METRICS_TOKEN"  # noqa: S105 - a name, not a secret


def _seed(installation: Installation) -> None:
    """Add what the file seeds. Where a forged row stops that, control starts all the same."""
    try:
        seed.apply_seed(installation.context, installation.settings)
    except SignatureInvalid as error:
        log.error("seeded_nothing", reason=str(error), next="swapgate db check")  # noqa: TRY400 - the reason is the whole story


def run_control(config: Path | None) -> None:
    """Blocks until SIGTERM or Ctrl-C; eval workers end with it and go on after a restart."""
    # uvicorn raises the signal again at its end: without a handler nothing below would run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    installation = open_with_workers(config)
    upgrade_database(installation.settings)
    _seed(installation)
    schedule = control_schedule(installation)
    where = installation.settings.control
    app = build_app(
        installation,
        metrics_token=os.environ.get(METRICS_TOKEN) or None,
        turn_age_s=partial(schedule.age_s, RECONCILE_JOB),
    )
    leave_alone_what_serves()
    schedule.start()
    try:
        uvicorn.run(app, host=where.host, port=where.port, **SERVER)
    finally:
        schedule.stop()
        installation.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the control process: `python -m harness.api.control_process [--config FILE]`."""
    parser = argparse.ArgumentParser(prog="swapgate serve control")
    parser.add_argument("--config", type=Path)
    run_control(parser.parse_args(arguments).config)


if __name__ == "__main__":
    main()
