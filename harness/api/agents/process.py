"""The agents process: serves the agents API and runs the turns of sessions until a signal ends
it. Answers that are under way then may come to their end, and are interrupted after a while.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn

from harness.api.agents.app import build_agents_app
from harness.api.frame.access import SERVER
from harness.app.agents.turn_service import TurnService, open_agents
from harness.imports import leave_alone_what_serves

# For the last bytes of answers, after the turns have ended.
LAST_BYTES_S: Final = 5


class AgentsServer(uvicorn.Server):
    """Tells the turns of a signal, so that those who wait for their answers get one."""

    def __init__(self, config: uvicorn.Config, end_turns: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_turns = end_turns

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._end_turns()
        super().handle_exit(sig, frame)


def run_agents(config: Path | None) -> None:
    """Blocks until SIGTERM or Ctrl-C."""
    # uvicorn raises the signal again at its end: without a handler nothing below would run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    installation = open_agents(config)
    where = installation.settings.agents
    turns = TurnService(installation)
    server = uvicorn.Config(
        build_agents_app(installation, turns),
        host=where.host,
        port=where.port,
        timeout_graceful_shutdown=round(turns.drain_s) + LAST_BYTES_S,
        **SERVER,
    )
    leave_alone_what_serves()
    try:
        # Before anything else: who has the port ends what ran where it was before.
        listener = server.bind_socket()
        AgentsServer(server, turns.end_turns).run(sockets=[listener])
    finally:
        installation.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m harness.api.agents.process [--config FILE]`."""
    parser = argparse.ArgumentParser(prog="swapgate serve agents")
    parser.add_argument("--config", type=Path)
    run_agents(parser.parse_args(arguments).config)


if __name__ == "__main__":
    main()
