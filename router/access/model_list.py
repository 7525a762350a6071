"""`/v1/models`: the routes that a key may use, as OpenAI's clients or Anthropic's know them."""

import json
from typing import Final

from harness.domain.routing.table import KeyGrant
from router.access.keys import is_route_allowed
from router.server.replies import JSON, Reply, error_reply
from router.snapshot.compiled import CompiledSnapshot

MODELS: Final = "/v1/models"


def list_models(
    serving: CompiledSnapshot, grant: KeyGrant, path: str, *, anthropic: bool
) -> Reply:
    """All of them, or the one that the path names."""
    names = [name for name in sorted(serving.routes) if is_route_allowed(grant, name)]
    wanted = path[len(MODELS) + 1 :]
    described = _anthropics if anthropic else _openais
    if wanted in names:
        return Reply(200, (JSON,), json.dumps(described(wanted)).encode())
    if wanted:
        message = f"there is no route {wanted!r}"
        return error_reply(404, message, "model_not_found", param="model")
    listed: dict[str, object] = {"data": [described(name) for name in names]}
    if anthropic:
        listed |= {"has_more": False, "first_id": _at(names, 0), "last_id": _at(names, -1)}
    else:
        listed["object"] = "list"
    return Reply(200, (JSON,), json.dumps(listed).encode())


def _openais(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "swapgate"}


def _anthropics(name: str) -> dict[str, object]:
    return {
        "id": name,
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
    }


def _at(names: list[str], place: int) -> str | None:
    return names[place] if names else None
