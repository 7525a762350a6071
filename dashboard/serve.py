"""Serves the dashboard: Streamlit's app under uvicorn, on loopback alone, with `/healthz` and
`/readyz`. `python -m dashboard.serve` is what `swapgate serve ui` starts.
"""

import argparse
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import streamlit as st
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from streamlit.web import bootstrap as streamlit_bootstrap

from dashboard import theme
from harness.app import installation
from harness.domain.errors import ConfigError, SwapgateError

SCRIPT: Final = Path(__file__).with_name("main.py")
GRACE_S: Final = 3
PING_S: Final = 30.0
PONG_S: Final = 90.0


def run(config: Path | None, host: str, port: int) -> None:
    """Serves the dashboard until SIGTERM or Ctrl-C.

    Raises ConfigError for a host beyond loopback: whoever reaches the dashboard can read it
    without signing in.
    """
    require_loopback(host)
    if config is not None:
        os.environ[installation.CONFIG_VARIABLE] = str(config.resolve())
    streamlit_bootstrap.load_config_options(options(host, port))
    health = [Route("/readyz", readyz), Route("/healthz", healthz)]
    app = st.App(SCRIPT.resolve(), routes=health)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
        # A browser on a busy machine may answer late; that is no reason to drop its page.
        ws_ping_interval=PING_S,
        ws_ping_timeout=PONG_S,
    )


def options(host: str, port: int) -> dict[str, object]:
    """Returns Streamlit's options; they win over any config.toml that lies around."""
    return {
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "runner.magicEnabled": False,
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        # No page of another site may reach the buttons, by whatever name it found us.
        "server.allowedHosts": sorted({host, "localhost", "127.0.0.1", "::1"}),
        **theme.streamlit_options(),
    }


def require_loopback(host: str) -> None:
    try:
        safe = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        safe = False
    if not safe:
        raise ConfigError(
            f"the dashboard has no login, so it listens on loopback only, not on {host!r}: "
            "set ui.host to 127.0.0.1 and reach it by an SSH tunnel or a proxy with a login"
        )


def healthz(_request: Request) -> Response:
    """Answers that the server lives."""
    return JSONResponse({"status": "ok"})


def readyz(_request: Request) -> Response:
    """The database answers as well: 200, or 503 with the reason."""
    from dashboard.page_frame import context  # noqa: PLC0415 - Streamlit's options come first

    try:
        with context().store.read() as tx:
            tx.routing.table()
    except SwapgateError as error:
        return JSONResponse({"status": "not ready", "reason": str(error)}, status_code=503)
    return JSONResponse({"status": "ready"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves the dashboard: `python -m dashboard.serve [--config FILE] [--host HOST] [--port
    PORT]`.
    """
    parser = argparse.ArgumentParser(prog="swapgate serve ui")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    given = parser.parse_args(arguments)
    where = installation.load_settings(given.config).ui
    run(given.config, given.host or where.host, given.port or where.port)


if __name__ == "__main__":
    main()
