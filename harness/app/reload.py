"""Reads the configuration and `.env` again after a SIGHUP. The router starts new workers with
the new settings. The other processes end, as after Ctrl-C, and start again with the same pid
(`reloading`). After a reload of an invalid file, each process continues with the old settings
and logs the reason.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from harness.app.configuration.model import Settings
from harness.app.installation import load_settings
from harness.frame.errors import ConfigError
from harness.frame.runtime.supervisor import (
    RELOAD,
    ends_with_terminal,
    has_terminal,
    reload_at_hangup,
)

log = structlog.get_logger("swapproof.reload")

FixedSettings = Mapping[str, Callable[[Settings], object]]
# Settings that each process uses until it ends.
FIXED: Final[FixedSettings] = {
    "home": lambda settings: settings.home,
    "database_url": lambda settings: settings.database_url,
}


def reload_settings(
    config_path: Path | None,
    old: Settings,
    *,
    fixed: FixedSettings = FIXED,
    check: Callable[[Settings], object] | None = None,
) -> Settings:
    """Loads the current configuration and `.env`. Raises ConfigError, and leaves the
    environment unchanged, for an invalid file or a changed fixed setting.

    Args:
        fixed: the settings that need a restart.
        check: a further check of the new settings.
    """
    former_environment = dict(os.environ)
    try:
        new = load_settings(config_path)
        _require_unchanged(old, new, fixed)
        if check is not None:
            check(new)
    except ConfigError:
        # Restores without `clear`, because other threads read the environment.
        os.environ.update(former_environment)
        for name in set(os.environ) - set(former_environment):
            del os.environ[name]
        raise
    return new


def _require_unchanged(
    old: Settings,
    new: Settings,
    fixed: FixedSettings,
) -> None:
    """Raises ConfigError if one of the fixed settings has changed."""
    for name, value in fixed.items():
        if value(old) != value(new):
            raise ConfigError(
                f"{new.source}: {name} changed, which needs a restart; the old configuration "
                "continues to serve"
            )


@contextmanager
def reloading(
    command: Sequence[str],
    config_path: Path | None,
    old: Settings,
) -> Iterator[None]:
    """Replaces this process with `command`, with the same pid, on a RELOAD signal.

    The block ends like on Ctrl-C. If the configuration is invalid, the block continues.
    """
    reload_requested = threading.Event()
    signal_pipe, signal_writer = os.pipe()
    load = partial(reload_settings, config_path, old)
    watch = partial(
        _watch, signal_pipe, reload_requested, load, on_terminal=ends_with_terminal()
    )
    signal.signal(RELOAD, lambda *_: os.write(signal_writer, b"."))
    reload_at_hangup()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {RELOAD, signal.SIGHUP})
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if not reload_requested.is_set():
            raise
    if reload_requested.is_set():
        # A blocked signal waits until `command` can handle it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {RELOAD, signal.SIGHUP})
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(command[0], list(command))  # noqa: S606 - our own command


def _watch(
    signal_pipe: int,
    reload_requested: threading.Event,
    load: Callable[[], Settings],
    *,
    on_terminal: bool,
) -> None:
    """Waits for RELOAD signals in a thread. A signal handler must not load the settings,
    because the code that it interrupts may hold a lock.
    """
    while os.read(signal_pipe, 1):
        if on_terminal and not has_terminal():
            os.kill(os.getpid(), signal.SIGTERM)
            return
        try:
            load()
        except ConfigError as error:
            log.error("reload_refused", reason=str(error))  # noqa: TRY400 - the message names the cause
            continue
        log.info("reloads")
        reload_requested.set()
        os.kill(os.getpid(), signal.SIGINT)
        return
