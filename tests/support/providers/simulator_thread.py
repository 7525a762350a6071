"""Serves the simulator in a thread of the test's own process (`serve_in_thread`)."""

import contextlib
import threading
from collections.abc import Iterator

from evals.sim.server import (
    SimServer,
    build_app,
    listener_url,
    open_listener,
    server,
)
from evals.sim.simulator import Simulator


@contextlib.contextmanager
def serve_in_thread(sim: Simulator) -> Iterator[str]:
    """The simulator in a thread of this process on a free loopback port: its base URL."""
    with open_listener("127.0.0.1", 0) as listener:
        serving: SimServer = server(build_app(sim))
        thread = threading.Thread(
            target=serving.run,
            kwargs={"sockets": [listener]},
            name="swapproof-sim",
        )
        thread.start()
        try:
            yield listener_url(listener)
        finally:
            serving.should_exit = True
            thread.join()
