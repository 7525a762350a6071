"""Makes a request's plan: from what was worked out with the snapshot, and from what is now."""

from harness.domain.breaker import WhenAllOpen
from harness.domain.capabilities import Needs
from harness.domain.plan import Plan, Surroundings, plan_for
from harness.domain.routing import Arm
from harness.domain.switches import in_force
from harness.ports import Clock
from router.health import TargetHealth
from router.serving import ServedRoute


class Planner:
    def __init__(self, health: TargetHealth, clock: Clock, when_all_open: WhenAllOpen) -> None:
        self._health = health
        self._clock = clock
        self._when_all_open = when_all_open

    def plan(self, route: ServedRoute, arm: Arm) -> Plan:
        """Whom to ask now, in order."""
        well = route.plans[arm]
        # Switches are rare: without one, no request looks at the wall clock for them.
        live = in_force(route.switches, self._clock.now()) if route.switches else ()
        if not live and self._health.all_well(well.targets):
            return well
        around = Surroundings(
            health=self._health.of(well.targets),
            targets=route.names,
            switches=live,
            when_all_open=self._when_all_open,
        )
        return plan_for(route.targets, arm, Needs(), around)
