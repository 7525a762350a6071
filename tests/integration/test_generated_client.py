"""A client that `openapi-python-client` generates from the OpenAPI documents."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.app.agents import TurnService
from harness.interfaces.api.agents.process import build_agents_app
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.short_policies import approved
from tests.support.site.management_api import Door, installation, served

GENERATE_S = 120.0


def generate(document: dict[str, Any], package: Path) -> None:
    """Fails if the generator cannot read a part of the document."""
    source = package.with_suffix(".json")
    settings = package.with_suffix(".yaml")
    source.write_text(json.dumps(document))
    settings.write_text(yaml.safe_dump({"post_hooks": []}))
    command = [
        "generate",
        "--meta",
        "none",
        "--fail-on-warning",
        "--config",
        str(settings),
    ]
    command += ["--path", str(source), "--output-path", str(package)]
    done = subprocess.run(  # noqa: S603 - a command of this file
        [sys.executable, "-m", "openapi_python_client", *command],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=GENERATE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    made = SmallInstallation(tmp_path, policy=approved())
    made.set_up()
    return made


@pytest.mark.req("A7", "F1")
def test_a_generated_client_swaps_a_model_with_proof(
    world: SmallInstallation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door(world)
    generate(door.document, tmp_path / "generated_control")
    monkeypatch.syspath_prepend(tmp_path)
    models: Any = import_module("generated_control.models")
    client_class = import_module("generated_control.client").AuthenticatedClient

    with served(door.app) as url:

        def call(
            role: str,
            operation: str,
            *names: str,
            **given: Any,
        ) -> Any:
            """The parsed answer of an operation, such as `routing.create_route`."""
            send: Callable[..., Any] = import_module(f"generated_control.api.{operation}").sync
            with client_class(base_url=url, token=door.keys[role]) as client:
                answer = send(*names, client=client, **given)
            assert not isinstance(answer, models.Error), answer
            return answer

        provider = models.ProviderBody(kind="sim", api_base="http://127.0.0.1:9/v1")
        added = call("admin", "providers.put_provider", "lab", body=provider)
        assert added.name == "lab"
        settings = models.RouteBody(
            "support",
            "lab/base",
            suites=[models.SuiteBody("colours")],
            task="support",
        )
        created = call("admin", "routing.create_route", body=settings)
        assert created.name == "support"

        wanted = models.AcceptingProposalBody("support", "lab/better", "it is better")
        preview = models.ProposalBody("support", "lab/better", "it is better")
        planned = call("proposer", "proposals.preview_proposal", body=preview)
        assert [plan.suite for plan in planned.plans] == ["colours"]
        swap = call("proposer", "proposals.create_proposal", body=wanted).id
        runs = []
        while not call("viewer", "proposals.get_proposal", swap).verdict:
            world.run_once()
            runs = call("viewer", "evals.list_evals").items
        ended = {call("viewer", "evals.get_eval", run.id).run.state for run in runs}
        assert ended == {models.EvalRunState.DONE}

        compared = call("viewer", "proposals.compare_proposal", swap)
        assert isinstance(compared.verdict, models.Passed)
        assert compared.proposal.phase == models.ProposalViewPhase.AWAITING_APPROVAL
        approval = models.ApprovalBody(verdict=compared.verdict.id)
        call("approver", "proposals.approve_proposal", swap, body=approval)
        world.run_once()

        canary = call("viewer", "canaries.get_canary", "support")
        assert (canary.candidate.name, canary.rollback) == (
            "lab/better",
            None,
        )
        shown = call("viewer", "routing.get_route", "support")
        assert shown.canary.weight_bps == 100


def test_the_document_of_the_agents_can_be_generated_too(
    world: SmallInstallation, tmp_path: Path
) -> None:
    made = installation(world)
    document = build_agents_app(made, TurnService(made)).openapi()

    generate(document, tmp_path / "generated_agents")
