"""The only importer of litellm: JSON in, JSON out, without its network access and logs.

Importing it takes seconds and 190 MB: call `load_translation` where no client waits.
"""

import logging
import os
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from harness.domain.errors import ConfigError
from router.upstream.translate.anthropic import AnthropicTranslation
from router.upstream.translate.bedrock import BedrockTranslation
from router.upstream.translate.gemini import GeminiTranslation, VertexTranslation
from router.upstream.translate.translation import Translation

_ENVIRONMENT: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network at its import
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",  # else it reads a .env file
}
_KINDS: Final[Mapping[str, Callable[[Any, Callable[[str], Any]], Translation]]] = {
    "anthropic": AnthropicTranslation,
    "bedrock": BedrockTranslation,
    "gemini": GeminiTranslation,
    "vertex": VertexTranslation,
}


def load_translation(kind: str) -> Translation:
    """Imports litellm on the first call. Raises ConfigError where that does not work."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own classes', about one another
        try:
            library: Any = import_module("litellm")
        except ImportError as error:
            raise ConfigError(
                f"providers of kind {kind} need the package litellm, which cannot be imported "
                f"({error}); install Swapgate with all it depends on"
            ) from error
        _silence(library)
        library.telemetry = False
        library.num_retries = 0
        library.callbacks = []
        found = _KINDS[kind](library, lambda module: import_module(f"litellm.{module}"))
        found.rehearse()
    return found


def _silence(library: Any) -> None:
    """What it logs and prints may hold what clients said, whatever LITELLM_LOG asks for."""
    library.suppress_debug_info = True
    library.set_verbose = False
    for name in list(logging.root.manager.loggerDict):
        if name.lower().startswith("litellm"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = False
            logger.disabled = True
