"""Imports what the pages need, tables and charts, once somebody comes to look at one: it takes
a second and 90 MiB, which an installation that nobody looks at does without.
"""

import gc
import importlib
import logging
import threading
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from harness.imports import pause_garbage_collection

PAGE_IMPORTS: Final = (
    ".charts.canary_timeline",
    ".data.queries",
    ".downloads",
    ".text.comparison_text",
)
PROBES: Final = frozenset({"/healthz", "/readyz", "/_stcore/health"})
CACHE_LOGGER: Final = "streamlit.runtime.caching.cache_data_api"

_importing = threading.Lock()


class PageImports:
    """Wraps the whole application. A browser's first request starts the imports in a thread:
    they run while the browser loads the frame of its page.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._thread = threading.Thread(target=import_pages, name="page-imports", daemon=True)
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._begun and scope["type"] != "lifespan" and scope["path"] not in PROBES:
            self._begun = True
            self._thread.start()
        await self._app(scope, receive, send)


def import_pages() -> None:
    """Imports all modules of pages that take long, and leaves them out of all collections."""
    # Streamlit warns of each cached function that is there before its runtime.
    logging.getLogger(CACHE_LOGGER).setLevel(logging.ERROR)
    with _importing, pause_garbage_collection():
        for name in PAGE_IMPORTS:
            importlib.import_module(name, __package__)
    gc.freeze()


def wait_for_imports() -> None:
    """Waits while they run: a page that imports the same at the same time could meet a module
    that is not whole.
    """
    with _importing:
        pass
