"""Chooses the override of a suite's item, by the rules that serve clients' requests."""

import json

from harness.evals.ports import ItemRequest
from harness.frame.errors import InputError
from harness.providers.models.capabilities import Endpoint
from harness.routing.route_settings import Overrides
from harness.routing.table import list_predicates
from router.frame.body import read_request
from router.request.client_directives import KIND, KINDS, find_override


def choose_override(overrides: Overrides, request: ItemRequest) -> str | None:
    """Returns the predicate of the override that answers the item's request; None for the route
    itself. Raises InputError for an unknown endpoint or kind.
    """
    if request.endpoint not in list(Endpoint):
        raise InputError(
            f"metadata.endpoint: {request.endpoint!r} is no endpoint; write one of "
            f"{', '.join(Endpoint)}"
        )
    body = json.dumps(dict(request.body)).encode()
    declared = request.headers.get(KIND.decode())
    kind = KINDS.get(declared.encode()) if declared is not None else None
    if declared is not None and kind is None:
        raise InputError(f"metadata.headers: {KIND.decode()}: {declared!r} is no kind")
    return find_override(
        overrides,
        list_predicates(overrides),
        read_request(body, Endpoint(request.endpoint)),
        kind,
        request.headers.get,
    )
