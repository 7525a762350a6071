"""Builds the management API's ASGI app: error guard, authentication and strict body around the
routers under /api/v1, and an OpenAPI document that has the answers.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from harness.api import (
    canary,
    captures,
    credentials,
    drift,
    evals,
    health,
    operations,
    people,
    privacy,
    proposals,
    providers,
    routing,
    shadow,
    switch_requests,
)
from harness.api.frame.access import AccessRules, Authenticated
from harness.api.frame.error_status import (
    ErrorGuard,
    answer_http_error,
    answer_validation_error,
)
from harness.api.frame.openapi import ERROR, DocumentedApi, add_answers, add_errors_and_keys
from harness.api.frame.request_body import StrictBody
from harness.api.health import TurnAge
from harness.app.installation import Installation
from harness.domain.operations.access import MANAGEMENT_KEY_PREFIX

PREFIX: Final = "/api/v1"
# By their tags in the OpenAPI document, which are part of the API.
ROUTERS: Final[Mapping[str, APIRouter]] = {
    "routing": routing.router,
    "providers": providers.router,
    "evals": evals.router,
    "proposals": proposals.router,
    "canaries": canary.router,
    "shadows": shadow.router,
    "switches": routing.switches_router,
    "freezes": routing.freezes_router,
    "break-glass": routing.break_glasses_router,
    "alerts": operations.alerts_router,
    "drift": drift.router,
    "captures": captures.router,
    "credentials": credentials.router,
    "agents": switch_requests.router,
    "operations": operations.router,
    "people": people.router,
    "privacy": privacy.router,
}


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    add_answers(document, documented_answers())
    add_errors_and_keys(document, ERROR, f"a management key, {MANAGEMENT_KEY_PREFIX}…")
    return document


def build_app(
    installation: Installation,
    *,
    metrics_token: str | None = None,
    turn_age_s: TurnAge | None = None,
) -> FastAPI:
    """Builds the ASGI app. metrics_token: opens /metrics beside a viewer's key. turn_age_s:
    seconds since the last reconcile turn, for /metrics.
    """
    app = DocumentedApi("Swapgate", f"{PREFIX}/openapi.json", _complete)
    app.state.installation = installation
    app.state.turn_age_s = turn_age_s
    app.include_router(health.probes)
    app.include_router(health.router)
    for tag, router in ROUTERS.items():
        app.include_router(router, prefix=PREFIX, tags=[tag])
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    locks = AccessRules(
        installation.store, installation.secret, installation.clock, metrics_token
    )
    # The last one added is the outermost.
    app.add_middleware(StrictBody)
    app.add_middleware(Authenticated, locks=locks)
    app.add_middleware(ErrorGuard, chance=installation.context.chance)
    return app


def documented_answers() -> Mapping[tuple[str, str], Any]:
    """(path, method in lower case) to the type of the answer."""
    return {
        (PREFIX + route.path_format, method.lower()): route.endpoint.__annotations__["return"]
        for router in ROUTERS.values()
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
