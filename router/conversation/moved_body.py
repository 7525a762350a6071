"""`MovedBody` is a request's body as its target takes it, with the names of what was left
out.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

NO_NAMES: Final[Mapping[str, str]] = {}


class MovedBody(NamedTuple):
    """A body, ready to send. dropped: fields, as `x-swapgate-degraded` names them. tool_names:
    as the target knows them → as the client calls them.
    """

    body: bytes
    dropped: tuple[str, ...] = ()
    tool_names: Mapping[str, str] = NO_NAMES
