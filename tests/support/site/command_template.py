"""Forks `swapproof` processes for tests: `python -m tests.support.site.command_template FD`.

Four fifths of the CPU of a `swapproof` process in a test went into imports, the same ones each
time. This process imports the modules once, and forks itself for each command, as `swapproof
serve all` does for its parts. In all other respects the fork runs `python -m swapproof WORDS`:
its own pid, folder, environment, streams and exit code. `tests.support.site.forked_commands`
asks for the forks. tests/unit/test_cli_start_up.py and tests/acceptance try cold starts.
"""

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
from importlib import import_module
from typing import Any, Final

from harness.frame.imports import import_plain_structlog
from harness.interfaces.cli.program import VERBS

REQUEST_BYTES: Final = 1 << 17
STREAMS: Final = 3
PR_SET_PDEATHSIG: Final = 1  # from linux/prctl.h
# What the parts import before they serve, and a command before it reads the configuration.
PRELOADED: Final = (
    "dotenv",
    "harness.app.configuration.configuration",
    "harness.app.data_plane",
    "harness.app.doctor",
    "harness.app.installation",
    "harness.app.processes",
    "harness.app.router_process",
    "harness.app.store.store",
    "harness.interfaces.api.agents.process",
    "harness.interfaces.api.app",
)


def preload() -> None:
    """Imports what the parts and commands need, without running any of it."""
    import_plain_structlog()
    for name in PRELOADED:
        import_module(name)
    for verb in VERBS.values():
        verb.load()


def serve(asking: socket.socket) -> dict[str, Any] | None:
    """Forks a process for each request until the asking process ends: then returns None.

    In a fork, returns its request. Tells the pid of each fork, and later its exit code.
    """
    poll = select.poll()
    poll.register(asking, select.POLLIN)
    pids: dict[int, int] = {}
    template = os.getpid()
    while True:
        for ready, _ in poll.poll():
            if ready != asking.fileno():
                poll.unregister(ready)
                os.close(ready)
                pid = pids.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                asking.send(json.dumps([pid, code]).encode())
                continue
            data, streams, _, _ = socket.recv_fds(asking, REQUEST_BYTES, STREAMS)
            if not data:
                return None
            if pid := os.fork():
                for stream in streams:
                    os.close(stream)
                watched = os.pidfd_open(pid)
                pids[watched] = pid
                poll.register(watched, select.POLLIN)
                asking.send(json.dumps([pid, None]).encode())
                continue
            # Nobody else could end a fork of a template that has crashed.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
            if os.getppid() != template:  # it crashed before it could be noticed
                os._exit(1)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            os.closerange(STREAMS, os.sysconf("SC_OPEN_MAX"))
            asking.detach()
            request: dict[str, Any] = json.loads(data)
            return request


def become(request: dict[str, Any]) -> None:
    """Runs `python -m swapproof` with the request's words, folder and environment."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    sys.path[0] = request["folder"]
    sys.argv[1:] = request["words"]
    gc.enable()
    runpy.run_module("swapproof", run_name="__main__", alter_sys=True)


def main() -> None:
    gc.disable()
    preload()
    gc.freeze()
    asking = socket.socket(fileno=int(sys.argv[1]))
    request = serve(asking)
    if request is not None:
        become(request)


if __name__ == "__main__":
    main()
