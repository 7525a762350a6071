import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from deploy.kubernetes import manifests
from deploy.roles import (
    CONFIG,
    END_S,
    HOME,
    ROLES,
    SHUTDOWN_DELAY_S,
    UID,
    WORKER,
    Role,
)
from harness.interfaces.cli.program import program
from harness.routing.settings import RouterSettings
from router.recording.recorder import STOP_S
from router.workers.parent import STOP_TIMEOUT_S

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
STAGE = re.compile(r"^FROM (\S+) AS (\w+)\n(.*?)(?=^FROM|\Z)", re.MULTILINE | re.DOTALL)
STAGES = {name: (base, text) for base, name, text in STAGE.findall(DOCKERFILE)}
each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
UNITS = sorted(
    file.stem.removeprefix("swapproof-") for file in (DEPLOY / "systemd").glob("*.service")
)
each_unit = pytest.mark.parametrize("name", UNITS)
verified = pytest.mark.verify


def read_yaml(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text("utf-8"))


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(  # noqa: S603 - commands of this file
        command,
        cwd=cwd,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def deployment(role: Role) -> Any:
    [found] = [
        manifest
        for manifest in (
            *manifests.build_manifests(),
            *manifests.build_worker_manifests(),
        )
        if manifest["kind"] == "Deployment"
        and manifest["metadata"]["name"] == f"swapproof-{role.name}"
    ]
    return found["spec"]["template"]["spec"]


def test_the_manifests_file_is_what_its_table_writes() -> None:
    files = {
        manifests.FILE: manifests.build_manifests(),
        manifests.WORKERS_FILE: manifests.build_worker_manifests(),
    }
    for file, built in files.items():
        assert file.read_text("utf-8") == manifests.dump_manifests(built), (
            "write it anew: python -m deploy.kubernetes.manifests"
        )


@each_role
def test_image_service_and_unit_start_the_role_on_its_port(role: Role) -> None:
    base, stage = STAGES[role.name]
    service = read_yaml("compose/compose.yaml")["services"][role.name]

    assert base == "base"
    assert f"EXPOSE {role.port}\n" in stage
    assert f"HTTP://127.0.0.1:{role.port}/readyz".lower() in stage
    assert yaml.safe_load(stage.rsplit("CMD", 1)[1]) == role.command
    assert service["build"]["target"] == role.name
    assert service["ports"] == [f"127.0.0.1:{role.port}:{role.port}"]
    assert service["image"] == f"swapproof-{role.name}:{manifests.VERSION}"
    assert service["stop_grace_period"] == f"{END_S}s"


@each_role
def test_no_process_may_write_outside_its_volumes_or_become_root(role: Role) -> None:
    pod = deployment(role)
    [container] = pod["containers"]
    service = read_yaml("compose/compose.yaml")["services"][role.name]
    user = re.search(r"^USER (\d+):(\d+)$", STAGES["base"][1], re.MULTILINE)

    assert user is not None
    assert int(user[1]) == int(user[2]) == UID == pod["securityContext"]["runAsUser"]
    assert "USER" not in STAGES[role.name][1]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    writable = {
        mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")
    }
    assert writable == {HOME, "/tmp"}  # noqa: S108 - a volume of the pod's own


@pytest.mark.parametrize("role", [*ROLES, WORKER], ids=lambda role: role.name)
def test_secrets_are_named_and_a_router_holds_no_private_key(role: Role) -> None:
    [container] = deployment(role)["containers"]
    by_reference = {
        entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"]
        for entry in container["env"]
        if "valueFrom" in entry
    }

    assert by_reference == {"SWAPPROOF__DATABASE_URL": "url", **role.keys}
    assert ("signing.key" in by_reference.values()) == (role.name not in {"router", "worker"})
    assert "kind: Secret" not in manifests.FILE.read_text("utf-8")


def test_a_router_may_take_as_long_as_it_can_take_to_end() -> None:
    longest = SHUTDOWN_DELAY_S + RouterSettings().drain_s + STOP_TIMEOUT_S + STOP_S

    assert longest < END_S
    assert deployment(ROLES[0])["terminationGracePeriodSeconds"] == END_S


def test_policies_let_in_who_calls_a_role_and_nobody_else() -> None:
    policies = {
        manifest["metadata"]["name"]: manifest["spec"]
        for manifest in manifests.build_manifests()
        if manifest["kind"] == "NetworkPolicy"
    }
    labels = {
        name: [
            label
            for rule in spec.get("ingress", ())
            for source in rule["from"]
            for label in source.get("namespaceSelector", {}).get("matchLabels", {"": ""})
        ]
        for name, spec in policies.items()
    }

    monitoring = "kubernetes.io/metadata.name"
    assert labels == {
        "swapproof-deny": [],
        "swapproof-router": [monitoring, "swapproof-client", ""],  # the namespace itself
        "swapproof-control": [monitoring, "swapproof-operator"],
        "swapproof-ui": [],
    }
    for role in ROLES:
        out = {
            port["port"]
            for rule in policies[f"swapproof-{role.name}"]["egress"]
            for port in rule["ports"]
        }
        assert out == {53, 443, 5432}


def test_a_worker_runs_in_controls_image_and_is_asked_for_nothing() -> None:
    [container] = deployment(WORKER)["containers"]
    service = read_yaml("compose/compose.yaml")["services"]["worker"]

    assert container["args"] == service["command"] == WORKER.command
    assert container["image"] == service["image"] == f"swapproof-control:{manifests.VERSION}"
    assert not [name for name in container if name.endswith("Probe") or name == "ports"]
    assert service["healthcheck"] == {"disable": True}
    assert [m["kind"] for m in manifests.build_worker_manifests()] == [
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
    ]


def test_only_the_autoscaler_sets_the_number_of_routers() -> None:
    made = {(m["kind"], m["metadata"]["name"]): m for m in manifests.build_manifests()}

    assert "replicas" not in made["Deployment", "swapproof-router"]["spec"]
    scaler = made["HorizontalPodAutoscaler", "swapproof-router"]["spec"]
    assert scaler["minReplicas"] > 1
    assert made["PodDisruptionBudget", "swapproof-router"]["spec"]["maxUnavailable"] == 1


def test_every_file_that_a_service_mounts_is_shipped_or_the_users_own() -> None:
    compose = read_yaml("compose/compose.yaml")
    volumes = [v for s in compose["services"].values() for v in s.get("volumes", ())]
    mounted = [v.split(":")[0] for v in volumes if v.startswith(".")]
    lost = [
        path
        for path in mounted
        if not path.startswith(("./config", "./secrets/"))
        and not (DEPLOY / "compose" / path).exists()
    ]

    assert mounted
    assert lost == []


def read_unit(name: str) -> dict[str, list[str]]:
    """By setting its values, in their order."""
    settings: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / f"swapproof-{name}.service").read_text().splitlines():
        setting, is_set, value = line.partition("=")
        if is_set:
            settings.setdefault(setting, []).append(value)
    return settings


def exec_start(name: str) -> list[str]:
    [command] = read_unit(name)["ExecStart"]
    return command.split()


def test_there_is_a_unit_for_each_role_and_for_the_eval_workers_of_a_host() -> None:
    commands = {role.name: role.command for role in (*ROLES, WORKER)}

    assert {name: exec_start(name)[1:] for name in UNITS} == commands


@each_unit
def test_a_unit_starts_a_command_that_exists_as_a_user_and_in_a_home_of_its_own(
    name: str,
) -> None:
    unit = read_unit(name)
    program_file, *words = exec_start(name)
    done = CliRunner().invoke(program, [*words, "--help"], prog_name="swapproof")

    assert program_file == "/opt/swapproof/bin/swapproof"
    assert words[:2] == ["--config", CONFIG]
    assert f"Usage: swapproof {' '.join(words[2:4]).partition(' --')[0]}" in done.output
    assert done.exit_code == 0
    # Control's key is control's and the dashboard's alone (SECURITY.md).
    own = "" if name in ("control", "ui") else f"-{name}"
    [user] = unit["User"]
    [folder] = unit["StateDirectory"]
    assert user == folder == f"swapproof{own}"
    assert f"SWAPPROOF__HOME=/var/lib/{folder} HOME=/var/lib/{folder}" in unit["Environment"]


@each_unit
def test_a_unit_may_write_nowhere_else_and_ends_in_time(name: str) -> None:
    unit = read_unit(name)
    control = read_unit("control")
    shared = control.keys() - {
        "Description",
        "ExecStart",
        "User",
        "StateDirectory",
    }
    shared -= {"Environment"}

    assert {setting: unit.get(setting) for setting in shared} == {
        setting: control[setting] for setting in shared
    }
    assert control["TimeoutStopSec"] == [str(END_S)]
    assert control["NoNewPrivileges"] == ["true"]
    assert control["ProtectSystem"] == ["strict"]


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here; the units were only read")
    for unit in (DEPLOY / "systemd").glob("*.service"):
        # It also looks whether the program is there.
        text = unit.read_text("utf-8").replace("/opt/swapproof/bin/swapproof", sys.executable)
        (tmp_path / unit.name).write_text(text)

    said = run(analyze, "verify", *sorted(tmp_path.glob("*.service")))

    assert said == ""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bin_folder = tmp_path_factory.mktemp("release") / "venv" / "bin"
    uv = Path(sys.executable).with_name("uv")
    run(uv, "venv", "--quiet", "--python", sys.executable, bin_folder.parent)
    install = (
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        bin_folder / "python",
    )
    run(
        *install,
        "--require-hashes",
        "-r",
        ROOT / "requirements" / "release.lock",
    )
    return bin_folder


@verified
def test_hadolint_finds_nothing_in_the_dockerfile(tools: Path) -> None:
    assert run(tools / "hadolint", DEPLOY / "Dockerfile") == ""


@verified
def test_compose_itself_could_read_the_compose_file(tools: Path) -> None:
    """What it merges (`<<`) is merged before, as its own reader does."""
    merged = {
        name: part
        for name, part in read_yaml("compose/compose.yaml").items()
        if not name.startswith("x-")
    }
    script = (
        "import sys, compose_spec; compose_spec.PyCompose.from_json(sys.argv[1]).validate()"
    )
    run(tools / "python", "-c", script, json.dumps(merged))


@verified
def test_zizmor_finds_nothing_in_the_release_workflow_and_the_action(tools: Path) -> None:
    places = (ROOT / ".github" / "workflows", ROOT / ".github" / "actions")
    assert "No findings" in run(tools / "zizmor", "--offline", *places)


@verified
@pytest.mark.parametrize("version", ["1.29", "1.35"])
def test_kubernetes_own_schemas_accept_the_manifests(tools: Path, version: str) -> None:
    files = (manifests.FILE, manifests.WORKERS_FILE)
    said = run(tools / "kubernetes-validate", "--strict", "-k", version, *files)

    built = (
        *manifests.build_manifests(),
        *manifests.build_worker_manifests(),
    )
    assert said.count("passed") == len(built), said
