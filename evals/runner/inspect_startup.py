"""Starts Inspect without what our runs never use of it, and what would take a second of each:
vendors' SDKs, and the server by which people steer an agent while it is evaluated.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType

from inspect_ai.agent._acp.transport import _acp_live_active as is_below_a_session
from inspect_ai.model import _assistant_internal

AGENT_SERVER = "inspect_ai.agent._acp.server"


def leave_out_vendor_sdks() -> None:
    """Keeps Inspect from loading the SDKs of OpenAI and Anthropic before its first sample,
    where they are installed, for its own providers of these names. A suite of ours asks none,
    and loading takes seconds of every run. A user's task may ask them.
    """
    for flag in ("_HAS_OPENAI", "_HAS_ANTHROPIC"):
        setattr(_assistant_internal, flag, False)


def leave_out_agent_server() -> None:
    """Keeps Inspect from loading the module of a server that it starts only for who asks for
    one, which we never do: hundreds of Pydantic models, half a second of each run.
    """
    if AGENT_SERVER in sys.modules:
        return
    module = ModuleType(AGENT_SERVER, "Stands for the server that no eval of ours starts.")
    vars(module).update(acp_server=_start_no_server, acp_server_accepting_clients=lambda: False)
    sys.modules[AGENT_SERVER] = module


@asynccontextmanager
async def _start_no_server(**_: object) -> AsyncIterator[None]:
    yield None


def leave_out_agent_sessions() -> None:
    """Lets the samples of this context have no session of that server's: each would translate
    the events of its sample for clients that there are not.
    """
    # As if there were one above them: then each of theirs is one that does nothing.
    is_below_a_session.set(True)
