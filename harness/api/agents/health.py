"""Endpoints of the agents process for health and readiness."""

import structlog
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from harness.api.agents.request import AgentsService

log = structlog.get_logger("swapgate.agents")
router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz() -> Response:
    """The process answers; asks nobody else."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
def readyz(request: Request) -> Response:
    """The database answers and has our tables. Says no more than yes or no."""
    service: AgentsService = request.app.state.service
    try:
        service.ctx.store.etag()
    except Exception as error:  # noqa: BLE001 - whatever it is, we are not ready
        log.warning("not_ready", error=str(error))
        return JSONResponse({"status": "not ready"}, status_code=503)
    return JSONResponse({"status": "ok"})
