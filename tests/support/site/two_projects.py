"""Sets up an installation with two projects, each of which has one of each thing, and the
management API in front of it, with a key of each role of each project.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from harness.control.context import Context
from harness.control.operations import alerts, keys
from harness.domain.canary.observation import TrafficMinute
from harness.domain.drift.watch import DriftPolicy
from harness.domain.operations.access import SYSTEM, Role
from harness.domain.operations.alerts import AlertKind
from harness.domain.reliability.spend import KeySpend
from harness.domain.shadow.shadow import COST_USD, MIRRORED, ShadowTally
from tests.contract import test_store_captures as captures
from tests.integration.test_api_access import READS, ROLES, WRITES, world_of
from tests.support.control.control_plane import SECRET
from tests.support.site.management_api import Door

OURS: Final = "payments"
THEIRS: Final = "search"
SHADOW: Final = {"candidate": "sim/worse", "reason": "a look", "usd_per_day": None}
LAUNCH: Final = {"reason": "a launch", "ends_at": "2026-06-01T00:00:00Z"}
VERBS: Final[dict[str, Any]] = {f"GET {path}": None for path in READS} | {
    verb: body for verb, (body, _) in WRITES.items()
}
# Without a route they are about all routes.
OF_ONE_ROUTE: Final = ("POST /switches", "POST /freezes")
# What the clients of each project spent in this month.
CLIENTS_USD: Final = {OURS: 1.25, THEIRS: 40.5}


@dataclass
class Site:
    """An installation with two projects. names: of each project's things."""

    door: Door
    names: dict[str, dict[str, str]]

    def send(self, verb: str, role: str, names: dict[str, str]) -> httpx.Response:
        """verb: as in the tables of endpoints; it is asked about these things."""
        method, path = verb.split()
        body: Any = VERBS[verb]
        if isinstance(body, dict):
            route = names["route"]
            if "route" in body or verb in OF_ONE_ROUTE:
                body = {**body, "route": route}
            if verb == "POST /routes":
                body = {**body, "name": f"{route}-2"}
            if verb == "POST /evals":
                body = {**body, "suite": names["suite"]}
            if verb == "POST /keys":
                body = {**body, "project": route.partition("::")[0]}
        if verb.startswith("DELETE /captures"):
            path = "/captures?route={route}"
        path = path.replace("/chat", f"/{names['route']}")
        return self.door.send(method, path.format(**names), role=role, json=body)

    def last_event(self) -> int:
        with self.door.world.store.read() as tx:
            return tx.audit.tail(1)[0].number


def two_projects(folder: Path) -> Site:
    """Sets it up in the folder."""
    world = world_of(folder)
    for project in (OURS, THEIRS):
        name = f"{project}::colours"
        world.suites[name] = replace(world.suites["colours"], name=name)
        world.drift[name] = DriftPolicy()
    door = Door(world)
    held = door.app.state.installation
    held.__dict__["context"] = replace(held.context, projects=frozenset({OURS, THEIRS}))
    ctx = held.context
    made = {}
    for project in (OURS, THEIRS):
        route = f"{project}::chat"
        suite = f"{project}::colours"
        suites = [{"suite": suite}]
        door.post("/routes", {"name": route, "incumbent": "sim/base", "suites": suites})
        door.post(f"/shadows/{route}/start", SHADOW)
        door.post(f"/shadows/{route}/stop", {})
        force = {"force": "provider:sim", "reason": f"drill of {project}", "route": route}
        switch = door.post("/switches", force)
        broken = {"route": route, "target": "sim/worse", "reason": "a leak", "for_s": 3600}
        glass = door.post("/break-glass", broken, role="approver")
        door.post(f"/break-glass/{glass['id']}/end", {"reason": "over"})
        swap = {"route": route, "candidate": "sim/better"}
        proposal = door.world.until_decided(
            door.post("/proposals", swap, role="proposer")["id"]
        )
        assert proposal.verdict
        freeze = door.post("/freezes", {**LAUNCH, "route": route})
        capture = replace(captures.ONE, id=f"cap_{project}", route=route, at=ctx.clock.now())
        capture = replace(capture, expires_at=capture.at + timedelta(days=9))
        with ctx.store.write() as tx:
            tx.captures.add(capture, most_per_day=9)
        client, _ = keys.create_key(ctx, SYSTEM, "shop", secret=SECRET, project=project)
        record_money(ctx, route, client.id)
        raise_alerts(ctx, route, client.id)
        for role in ROLES:
            _, door.keys[f"{project}/{role}"] = keys.create_key(
                ctx,
                SYSTEM,
                f"{project} {role}",
                secret=SECRET,
                role=Role[role.upper()],
                project=project,
            )
        made[project] = {
            "route": route,
            "suite": suite,
            "proposal": proposal.id,
            "run": proposal.runs[suite].candidate,
            "verdict": proposal.verdict,
            "key": client.id,
            "switch": switch["id"],
            "freeze": freeze["id"],
            "glass": glass["id"],
            "capture": capture.id,
            "session": "ds_1",
            "request": "sw_1",
            "grant": "ag_1",
        }
    return Site(door, made)


def record_money(ctx: Context, route: str, key: str) -> None:
    """Records what the route's clients and its shadow cost in this month."""
    now, usd = ctx.clock.now(), CLIENTS_USD[route.partition("::")[0]]
    minute = now.replace(second=0, microsecond=0)
    with ctx.store.write() as tx:
        target = tx.routing.table().routes[route].incumbent
        of_arms = [
            TrafficMinute(route, minute, "w", arm, target, 1, 10, 0, 0, 0, 100, 10, cost_usd)
            for arm, cost_usd in (("canary", usd), ("incumbent", usd / 2))
        ]
        spent = KeySpend(key, now.date(), "w", 10, 110, usd, 0)
        tx.observations.append([], of_arms, [spent])
        (shadow,) = tx.shadows.list(route=route)
        tally = ShadowTally(shadow.shadow.id, now.date(), "w", {MIRRORED: 7}, {COST_USD: usd})
        tx.shadows.append([tally])


def raise_alerts(ctx: Context, route: str, key: str) -> None:
    """Raises an alert about each thing of the project that alerts are about."""
    abouts = (f"route {route}", f"route {route}, suite colours", f"key {key}")
    kinds = (AlertKind.CANARY_HELD, AlertKind.DRIFT, AlertKind.KEY_BUDGET)
    with ctx.store.write() as tx:
        for kind, subject in zip(kinds, abouts, strict=True):
            title = f"{subject} of {route} needs somebody"
            alerts.raise_alert(ctx, tx, kind, subject, subject=subject, title=title, text=title)
