"""Saves the last good snapshot to a file and loads it, so that a router starts without its
database. JSON with a checksum.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from harness.domain.agents.grant import AgentGrant, GrantKind
from harness.domain.canary.guardrails import UnitRule
from harness.domain.content_hash import canonical_json, hash_content
from harness.domain.errors import SnapshotInvalid
from harness.domain.operations.access import OptOut
from harness.domain.operations.row_signatures import Revocations, SignedRows
from harness.domain.providers.credentials import StoredKey
from harness.domain.reliability.rate_limits import KeyLimits
from harness.domain.routing.capabilities import Capabilities
from harness.domain.routing.kill_switch import Force, ForceKind, KillSwitch, SwitchSource
from harness.domain.routing.table import (
    Canary,
    Handover,
    KeyGrant,
    Route,
    RouteSettings,
    RoutingTable,
    Snapshot,
)
from harness.domain.routing.target import Price, Provider, RequestPatch, Target
from harness.domain.shadow.shadow import Shadow, ShadowLimits

FORMAT: Final = 1


def save_snapshot(snapshot: Snapshot, file: Path) -> None:
    """Atomically: after a crash there is the old file or the new one. Raises OSError."""
    content = canonical_json(snapshot_to_json(snapshot))
    whole = {
        "format": FORMAT,
        "sha256": hash_content(content),
        "snapshot": content,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(json.dumps(whole).encode())
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
    _sync_folder(file.parent)


def load_snapshot(file: Path) -> Snapshot:
    """Loads a snapshot from its file. Raises SnapshotInvalid: not there, not readable, torn, of
    another format.
    """
    try:
        whole = json.loads(file.read_bytes())
        if whole["format"] != FORMAT:
            raise SnapshotInvalid(f"{file} has format {whole['format']}, not {FORMAT}")
        content: str = whole["snapshot"]
        found = hash_content(content)
        if found != whole["sha256"]:
            raise SnapshotInvalid(f"{file} is damaged: its checksum does not fit")
        return snapshot_from_json(json.loads(content))
    except OSError as error:
        raise SnapshotInvalid(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotInvalid(f"{file} is not a snapshot: {error}") from error


def _sync_folder(folder: Path) -> None:
    # Without it the new name itself may be lost with the power.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def snapshot_to_json(snapshot: Snapshot) -> dict[str, object]:
    table = snapshot.table
    return {
        "revision": table.revision,
        "routes": [_route_json(route) for route in table.routes.values()],
        "targets": {id_: target.as_json() for id_, target in table.targets.items()},
        "providers": [_provider_json(provider) for provider in snapshot.providers.values()],
        "keys": [
            {
                "id": key.id,
                "hash": key.hash,
                "routes": sorted(key.routes),
                "limits": asdict(key.limits) if key.limits else None,
                "opt_outs": sorted(key.opt_outs),
            }
            for key in snapshot.keys
        ],
        "etag": snapshot.etag,
        "switches": [_switch_json(switch) for switch in snapshot.switches],
        "shadows": [_shadow_json(shadow) for shadow in snapshot.shadows],
        "stored_keys": [asdict(key) for key in snapshot.stored_keys],
        "signed": asdict(snapshot.signed) if snapshot.signed else None,
        "agent_grants": [_agent_grant_json(grant) for grant in snapshot.agent_grants],
    }


def _route_json(route: Route) -> dict[str, object]:
    return asdict(route)


def _agent_grant_json(grant: AgentGrant) -> dict[str, object]:
    times = ("created_at", "expires_at")
    return {**asdict(grant), **{name: getattr(grant, name).isoformat() for name in times}}


def _switch_json(switch: KillSwitch) -> dict[str, object]:
    expires_at = switch.expires_at
    return {
        **asdict(switch),
        "created_at": switch.created_at.isoformat(),
        "expires_at": expires_at and expires_at.isoformat(),
    }


def _shadow_json(shadow: Shadow) -> dict[str, object]:
    return {
        **asdict(shadow),
        "candidate": shadow.candidate.as_json(),
        "started_at": shadow.started_at.isoformat(),
        "expires_at": shadow.expires_at.isoformat(),
    }


def _provider_json(provider: Provider) -> dict[str, object]:
    return {
        "name": provider.name,
        "kind": provider.kind,
        "api_base": provider.api_base,
        "api_key_env": provider.api_key_env,
        "extra_headers": dict(provider.extra_headers),
        "prices": {model: price.as_json() for model, price in provider.prices.items()},
        "more_api_key_envs": list(provider.more_api_key_envs),
        "models": {model: asdict(can) for model, can in provider.models.items()},
        "extra_body": dict(provider.extra_body),
        "sealed_headers": dict(provider.sealed_headers),
    }


def snapshot_from_json(data: Mapping[str, Any]) -> Snapshot:
    routes = [_route(entry) for entry in data["routes"]]
    providers = [_provider(entry) for entry in data["providers"]]
    return Snapshot(
        table=RoutingTable(
            revision=data["revision"],
            routes={route.name: route for route in routes},
            targets={id_: _target(entry) for id_, entry in data["targets"].items()},
        ),
        providers={provider.name: provider for provider in providers},
        keys=tuple(_grant(key) for key in data["keys"]),
        etag=data["etag"],
        switches=tuple(map(_switch, data["switches"])),
        shadows=tuple(map(_shadow, data["shadows"])),
        stored_keys=tuple(StoredKey(**key) for key in data["stored_keys"]),
        signed=_signed(data["signed"]) if data["signed"] else None,
        agent_grants=tuple(map(_agent_grant, data["agent_grants"])),
    )


def _agent_grant(data: Mapping[str, Any]) -> AgentGrant:
    read = {
        "kind": GrantKind(data["kind"]),
        "created_at": datetime.fromisoformat(data["created_at"]),
        "expires_at": datetime.fromisoformat(data["expires_at"]),
    }
    return AgentGrant(**{**data, **read})


def _signed(data: Mapping[str, Any]) -> SignedRows:
    former = tuple(Revocations(**entry) for entry in data["former"])
    return SignedRows(**{**data, "former": former})


def _grant(data: Mapping[str, Any]) -> KeyGrant:
    limits = data["limits"]
    routes = frozenset(data["routes"])
    opt_outs = frozenset(OptOut(name) for name in data["opt_outs"])
    return KeyGrant(
        data["id"],
        data["hash"],
        routes,
        KeyLimits(**limits) if limits else None,
        opt_outs,
    )


def _switch(data: Mapping[str, Any]) -> KillSwitch:
    expires_at = data["expires_at"]
    read = {
        "force": Force(ForceKind(data["force"]["kind"]), data["force"]["name"]),
        "created_at": datetime.fromisoformat(data["created_at"]),
        "expires_at": datetime.fromisoformat(expires_at) if expires_at else None,
        "source": SwitchSource(data["source"]),
    }
    return KillSwitch(**{**data, **read})


def _shadow(data: Mapping[str, Any]) -> Shadow:
    read = {
        "candidate": _target(data["candidate"]),
        "limits": ShadowLimits(**data["limits"]),
        "started_at": datetime.fromisoformat(data["started_at"]),
        "expires_at": datetime.fromisoformat(data["expires_at"]),
    }
    return Shadow(**{**data, **read})


def _route(data: Mapping[str, Any]) -> Route:
    canary = data["canary"]
    return Route(
        name=data["name"],
        version=data["version"],
        incumbent=data["incumbent"],
        canary=_canary(canary) if canary else None,
        fallbacks=tuple(data["fallbacks"]),
        settings=RouteSettings.from_json(data["settings"]),
        holdback=_canary(data["holdback"]) if data["holdback"] else None,
        break_glass=data["break_glass"],
    )


def _canary(data: Mapping[str, Any]) -> Canary:
    handover = Handover(**data["handover"]) if data.get("handover") else None
    rule = UnitRule.from_json(data["unit_rule"])
    return Canary(**{**data, "unit_rule": rule, "handover": handover})


def _target(data: Mapping[str, Any]) -> Target:
    return Target(
        provider=data["provider"],
        model=data["model"],
        parameters=data["parameters"],
        request_patch=RequestPatch(**data["request_patch"]),
    )


def _provider(data: Mapping[str, Any]) -> Provider:
    read = {
        "prices": {model: Price(**price) for model, price in data["prices"].items()},
        "more_api_key_envs": tuple(data["more_api_key_envs"]),
        "models": {model: Capabilities(**can) for model, can in data["models"].items()},
    }
    return Provider(**{**data, **read})
