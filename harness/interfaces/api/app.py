"""Runs the control process: the control jobs and the management API."""

import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from harness.app import seed
from harness.app.control_schedule import RECONCILE_JOB, control_schedule
from harness.app.database import upgrade_database
from harness.app.eval_workers.run import open_with_workers
from harness.app.installation import Installation
from harness.frame.calm_server import run_app
from harness.frame.errors import SignatureInvalid
from harness.frame.imports import freeze_application
from harness.frame.people.access import MANAGEMENT_KEY_PREFIX
from harness.interfaces.api import (
    canary,
    evals,
    health,
    holds,
    operations,
    proposals,
    providers,
    routing,
    switch_requests,
)
from harness.interfaces.api.agents.process import SignsForAgents
from harness.interfaces.api.frame.access import (
    SERVER,
    AccessRules,
    Authenticated,
)
from harness.interfaces.api.frame.error_status import (
    ErrorGuard,
    answer_http_error,
    answer_validation_error,
)
from harness.interfaces.api.frame.openapi import (
    ERROR,
    DocumentedApi,
    add_answers,
    add_errors_and_keys,
)
from harness.interfaces.api.frame.request_body import StrictBody
from harness.interfaces.api.health import TurnAge

PREFIX: Final = "/api/v1"
# The keys are tags in the OpenAPI document, which clients may rely on.
ROUTERS: Final[Mapping[str, APIRouter]] = {
    "routing": routing.router,
    "providers": providers.router,
    "evals": evals.router,
    "proposals": proposals.router,
    "canaries": canary.router,
    "switches": holds.switches_router,
    "break-glass": holds.break_glasses_router,
    "alerts": operations.alerts_router,
    "captures": operations.captures_router,
    "credentials": providers.credentials_router,
    "agents": switch_requests.router,
    "operations": operations.router,
}


def _complete_document(document: dict[str, Any]) -> dict[str, Any]:
    add_answers(document, documented_answers())
    add_errors_and_keys(document, ERROR, f"a management key, {MANAGEMENT_KEY_PREFIX}…")
    return document


def build_app(
    installation: Installation,
    *,
    metrics_token: str | None = None,
    turn_age_s: TurnAge | None = None,
) -> FastAPI:
    app = DocumentedApi("Swapproof", f"{PREFIX}/openapi.json", _complete_document)
    app.state.installation = installation
    app.state.turn_age_s = turn_age_s
    app.include_router(health.probes)
    app.include_router(health.router)
    for tag, router in ROUTERS.items():
        app.include_router(router, prefix=PREFIX, tags=[tag])
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    rules = AccessRules(
        installation.store,
        installation.secret,
        installation.clock,
        metrics_token,
    )
    # The middleware added last runs first.
    app.add_middleware(StrictBody)
    app.add_middleware(Authenticated, rules=rules)
    app.add_middleware(ErrorGuard, chance=installation.context.chance)
    return app


def documented_answers() -> Mapping[tuple[str, str], Any]:
    return {
        (
            PREFIX + route.path_format,
            method.lower(),
        ): route.endpoint.__annotations__["return"]
        for router in ROUTERS.values()
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }


log = structlog.get_logger("swapproof.control")

METRICS_TOKEN = "SWAPPROOF_METRICS_TOKEN"  # noqa: S105 - a variable's name, not a secret


def _apply_seed(installation: Installation) -> None:
    try:
        seed.apply_seed(installation.context, installation.settings)
    except SignatureInvalid as error:
        log.error("seeded_nothing", reason=str(error), next="swapproof db check")  # noqa: TRY400 - the reason needs no traceback


def run_control(config: Path | None) -> None:
    """Blocks until SIGTERM or Ctrl-C. Then the eval workers stop too; their runs continue after
    a restart.
    """
    # At its end, uvicorn raises the signal again. Without this handler, `finally` would not
    # run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    installation = open_with_workers(config)
    upgrade_database(installation.settings)
    _apply_seed(installation)
    schedule = control_schedule(installation)
    address = installation.settings.control
    app = build_app(
        installation,
        metrics_token=os.environ.get(METRICS_TOKEN) or None,
        turn_age_s=partial(schedule.age_s, RECONCILE_JOB),
    )
    freeze_application()
    schedule.start()
    try:
        run_app(
            SignsForAgents(app, installation),
            host=address.host,
            port=address.port,
            **SERVER,
        )
    finally:
        schedule.stop()
        installation.close()
