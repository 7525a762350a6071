"""Starts and asks processes of this machine: runs several commands under one supervisor, serves
simulated models, makes sure that a port is free, and says whether a server answers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from harness.domain.settings import ControlSettings, Settings, http_url


class ListenAddress(Protocol):
    """Says where one of our servers listens, by the configuration."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


def require_port(where: ListenAddress, *, what: str, setting: str) -> None:
    """Checks that a port is free. Raises ConfigError that names its holder and the setting that
    moves the port.
    """
    from harness.runtime.processes.tcp_ports import require_free  # noqa: PLC0415 - psutil

    require_free(where.host, where.port, what=what, setting=setting)


def supervise(
    commands: Mapping[str, Sequence[str]], settings: Settings, say: Callable[[str], None]
) -> int:
    """Run the commands together until a signal comes; the exit code."""
    from harness.runtime.processes.supervisor import LAST_WORDS_S, Supervisor  # noqa: PLC0415

    # The router's requests may take as long as they are allowed to.
    where = settings.router
    stop_s = where.shutdown_delay_s + where.drain_s + LAST_WORDS_S
    return Supervisor(commands, say, stop_s=stop_s).run()


def simulate(host: str, port: int, **options: Any) -> None:
    """Serve simulated models; the options are those of `evals.sim.server.serve_forever`."""
    from evals.sim.server import serve_forever  # noqa: PLC0415 - only this command needs it

    serve_forever(host, port, **options)


def control_answers(settings: ControlSettings) -> bool:
    """Whether a control process answers where the configuration says."""
    return answers_http(settings.host, settings.port, "/healthz")


def answers_http(host: str, port: int, path: str) -> bool:
    """Whether an HTTP server there says 200."""
    try:
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"{http_url(host, port)}{path}", timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError, ValueError):
        return False
