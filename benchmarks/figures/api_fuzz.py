"""Generated requests over the management API:
`python -m benchmarks.figures.api_fuzz [--cases 50000]`.

Schemathesis, in a virtual environment of its own, sends requests to a real `swapgate serve
control` as each role and without a key, with ids that exist and with generated ones. A failure
is an answer of 500 or more, a broken connection, or a server that ended.

Without other networks, where the system allows it: generated providers have generated
addresses.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.figures.record import RunResult, record_run
from benchmarks.router.peers.peer import CACHE, wheel
from evals.sim import server as sim
from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.control.operations import keys
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import seed
from harness.domain.operations.access import SYSTEM, Actor, Role
from tests.support.providers import simulator_thread
from tests.support.site.processes import Site, site

VERSION: Final = "4.32.5"
NOBODY: Final = "nobody"
ROLES: Final = (*(role.name.lower() for role in Role), NOBODY)
# In a batch, of each operation. More batches follow until there are cases enough.
EXAMPLES: Final = 30
IN_NAMESPACE: Final = "SWAPGATE_FUZZ_NAMESPACE"
BATCH_S: Final = 3600.0


@dataclass
class FuzzedApi:
    """known: by path parameter an id that exists. keys: by role, none for nobody."""

    place: Site
    keys: Mapping[str, str]
    known: Mapping[str, str]
    cases: Counter[str] = field(default_factory=Counter)
    failed: int = 0  # cases with an answer of 500 or more, or without one
    faults: list[str] = field(default_factory=list)

    def batch(self, number: int, role: str, *, with_known_ids: bool) -> None:
        folder = self.place.folder / f"batch-{number}-{role}-{with_known_ids}"
        folder.mkdir()
        config = folder / "schemathesis.toml"
        ids = self.known if with_known_ids else {}
        lines = [f'"path.{name}" = {json.dumps(value)}\n' for name, value in ids.items()]
        config.write_text("[parameters]\n" + "".join(lines), encoding="utf-8")
        report = folder / "report.json"
        command = [
            str(CACHE / "schemathesis/bin/schemathesis"),
            *("--config-file", str(config), "run"),
            *(str(self.document()), "--url", self.place.url("control")),
            *("--checks", "not_a_server_error", "--max-examples", str(EXAMPLES)),
            *("--seed", str(number), "--continue-on-failure", "--no-shrink"),
            *("--suppress-health-check", "all", "--warnings", "off", "--no-color"),
            *("--generation-database", "none", "--request-timeout", "120"),
            *("--phases", "examples,coverage,fuzzing"),
            *("--report", "json", "--report-json-path", str(report)),
        ]
        if role != NOBODY:
            command += ["--header", f"Authorization: Bearer {self.keys[role]}"]
        done = subprocess.run(  # noqa: S603 - our own command
            command, cwd=folder, capture_output=True, text=True, timeout=BATCH_S, check=False
        )
        (folder / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
        found = json.loads(report.read_text(encoding="utf-8"))
        self.cases[role] += found["test_cases"]["generated"]
        self.failed += found["test_cases"]["with_failures"] + found["test_cases"]["errored"]
        self.faults += [f"{role}: {fault}" for fault in faults_of(found)]
        self._alive()

    def document(self) -> Path:
        """The API's own description, fetched as an admin: nobody else need see it."""
        file = self.place.folder / "openapi.json"
        if not file.exists():
            bearer = {"authorization": f"Bearer {self.keys['admin']}"}
            url = f"{self.place.url('control')}/api/v1/openapi.json"
            answer = httpx.get(url, headers=bearer, timeout=120).raise_for_status()
            file.write_bytes(answer.content)
        return file

    def _alive(self) -> None:
        if self.place.children["control"].poll() is not None:
            self.faults.append(f"the server ended:\n{self.place.log('control')[-4000:]}")
        else:
            answer = httpx.get(f"{self.place.url('control')}/healthz", timeout=120)
            if answer.status_code != httpx.codes.OK:
                self.faults.append(f"/healthz says {answer.status_code}")


def faults_of(report: Mapping[str, Any]) -> list[str]:
    """What a run found, of each kind once. A run that did not see its end is a fault."""
    found = [f"{row['title']}: {', '.join(row['operations'])}" for row in report["failures"]]
    found += [f"{row['title']} ({row['count']})" for row in report["errors"]]
    return found if report["complete"] else [*found, f"ended: {report['stop_reason']}"]


@contextmanager
def fuzzed_api(folder: Path) -> Iterator[FuzzedApi]:
    with ExitStack() as stack:
        provider = stack.enter_context(
            simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0))
        )
        place = stack.enter_context(site(folder, settings(provider)))
        installation = open_installation(place.config, create_secret=True)
        stack.callback(installation.close)
        upgrade_database(installation.settings)
        ctx = installation.context
        seed.apply_seed(ctx, installation.settings)
        made = {
            role.name.lower(): keys.create_key(
                ctx, SYSTEM, role.name.lower(), secret=installation.secret, role=role
            )[1]
            for role in Role
        }
        request = ProposalRequest("support", "sim/sim-better", "a figure")
        proposal = submission.create_proposal(ctx, Actor("ann", Role.PROPOSER, "p"), request)
        place.start("control", "serve", "control", wait_for="/readyz")
        known = {"route": "support", "proposal": proposal.id, "provider": "sim"}
        yield FuzzedApi(place, made, known)


def settings(provider: str) -> dict[str, object]:
    return {
        "control": {"reconcile_interval_s": 0.5, "eval_connections": 2},
        "providers": {"sim": {"kind": "sim", "api_base": f"{provider}/v1"}},
        "routes": {
            "support": {"incumbent": "sim/sim-base", "policy": "demo", "suites": ["tickets"]}
        },
    }


def run(cases: int, folder: Path) -> RunResult:
    wheel("schemathesis", f"schemathesis=={VERSION}")()
    with fuzzed_api(folder) as api:
        number = 0
        while api.cases.total() < cases:
            number += 1
            for role in ROLES:
                api.batch(number, role, with_known_ids=number % 2 == 1)
                print(f"{api.cases.total()} cases, {len(api.faults)} failures", flush=True)
        by_role = ", ".join(f"{count} as {role}" for role, count in api.cases.items())
        faults = list(dict.fromkeys(api.faults))
    return RunResult(
        api.cases.total(),
        max(api.failed, len(faults)),
        f"Schemathesis {VERSION}: {by_role}.",
        faults,
    )


def enter_namespace() -> None:
    """Starts this program again without any network but loopback, where that is allowed."""
    if IN_NAMESPACE in os.environ:
        return
    # Where uv is: beside our Python, if not elsewhere.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    wheel("schemathesis", f"schemathesis=={VERSION}")()
    unshare = ["unshare", "--net", "--map-root-user", "sh", "-c"]
    if subprocess.run([*unshare, "ip link set lo up"], capture_output=True).returncode:  # noqa: PLW1510, S603
        return
    os.environ[IN_NAMESPACE] = "1"
    again = 'ip link set lo up && exec "$@"'
    words = [sys.executable, "-m", "benchmarks.figures.api_fuzz", *sys.argv[1:]]
    os.execvp(unshare[0], [*unshare, again, "sh", *words])  # noqa: S606 - our own command


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=50_000)
    chosen = options.parse_args()
    enter_namespace()
    with tempfile.TemporaryDirectory(prefix="swapgate-fuzz-") as folder:
        return record_run("schemathesis", lambda: run(chosen.cases, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
