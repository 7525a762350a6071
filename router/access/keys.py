"""Finds the grant of a client's API key, and lists the models that a grant allows."""

import hmac
import json
from collections import OrderedDict
from typing import Final

from harness.frame.people.access import key_hash
from harness.routing.table import KeyGrant
from router.frame.replies import JSON, Reply, error_reply
from router.snapshot.compiled import CompiledSnapshot
from router.snapshot.route_names import RouteNames

MODELS: Final = "/v1/models"
FLAGS_PATH: Final = "/ofrep/v1/evaluate/flags"


def list_models(
    serving: CompiledSnapshot,
    grant: KeyGrant,
    path: str,
    aliases: RouteNames,
    *,
    anthropic: bool,
) -> Reply:
    """Lists the models that a key may ask, or shows the one that the path names."""

    def is_open(route: str) -> bool:
        return route in serving.routes and is_route_allowed(grant, route)

    others = {name for name, route in aliases.listed().items() if is_open(route)}
    names = sorted(others.union(filter(is_open, serving.routes)))
    wanted = path[len(MODELS) + 1 :]
    described = _anthropics if anthropic else _openais
    if wanted in names or (wanted and is_open(aliases.route_of(wanted))):
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


CACHED_KEYS: Final = 4096
_SCHEME: Final = b"bearer "


class KeyRing:
    """Remembers the hashes of accepted keys; grants are always the current snapshot's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._hashes: OrderedDict[bytes, str] = OrderedDict()

    def grant(self, authorization: bytes | None, serving: CompiledSnapshot) -> KeyGrant | None:
        """Finds the grant of the key in an `Authorization` header; None for none."""
        if authorization is None or authorization[:7].lower() != _SCHEME:
            return None
        return self.grant_of(authorization[7:], serving)

    def grant_of(self, bare: bytes | None, serving: CompiledSnapshot) -> KeyGrant | None:
        if bare is None:
            return None
        key = bare.strip()
        known = self._hashes.get(key)
        hashed = known or key_hash(key.decode("latin-1"), self._secret)
        grant = serving.grants.get(hashed)
        if grant is None or not hmac.compare_digest(grant.hash.encode(), hashed.encode()):
            self._hashes.pop(key, None)
            return None
        if known is None:
            self._hashes[key] = hashed
            if len(self._hashes) > CACHED_KEYS:
                self._hashes.popitem(last=False)
        return grant


def is_route_allowed(grant: KeyGrant, route: str) -> bool:
    return not grant.routes or route in grant.routes
