"""The images of deploy/Dockerfile are built step by step, and run as the manifests run them: as
an unprivileged user, on a read-only root, with the keys of their role in variables.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.roles import HOME, ROLES, UID, Role
from harness.cli.program import program
from tests.support.site import container
from tests.support.site.container import Container, Image

pytestmark = [pytest.mark.verify, pytest.mark.req("G6"), pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
STARTS_S = 240.0


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    if problem := container.missing():
        pytest.skip(f"no image can be built: {problem}")
    context = tmp_path_factory.mktemp("context")
    (context / "requirements").mkdir()
    for lock in (ROOT / "requirements").glob("*.lock"):
        (context / "requirements" / lock.name).write_bytes(lock.read_bytes())
    dist = str(context / "dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)  # noqa: S603
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
    return container.build(dockerfile, context, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with a database, the folder `config`, and beside them `keys`, the secret."""
    folder = tmp_path_factory.mktemp("state")
    config = folder / "config" / "swapgate.yaml"
    home, keys = folder / HOME[1:], folder / "keys"
    for place in (config.parent, home, keys):
        place.mkdir(parents=True)
    config.write_text(f"home: {home}\nrouter: {{workers: 1}}\n")
    made = CliRunner().invoke(program, ["--config", str(config), "init"])
    assert made.exit_code == 0, made.output
    config.write_text("router: {workers: 1}\n")
    for file in home.iterdir():
        os.chown(file, UID, UID)
        if not file.name.startswith("swapgate.db"):
            file.rename(keys / file.name)
    os.chown(home, UID, UID)
    return folder


def test_every_image_serves_without_rights_on_a_read_only_root(
    images: dict[str, Image], state: Path
) -> None:
    """One test, so that the images are built once."""
    for role in ROLES:
        serve(role, images[role.name], state)


def serve(role: Role, image: Image, state: Path) -> None:
    # As a secret of Kubernetes has them: the whole files, with their last newlines.
    keys = {name: (state / "keys" / file).read_text() for name, file in role.keys.items()}
    box, log = Container(image, state, state / "config", keys), state / f"{role.name}.log"
    process = box.start(log)
    try:
        until = time.monotonic() + STARTS_S
        while not box.check_health(process.pid):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(1)
        written = box.run(process.pid, "touch", "/opt/swapgate/x", "/usr/x", "/etc/swapgate/x")
        assert written.stderr.count("Read-only file system") == 3
        rights = box.run(
            process.pid, "grep", "-E", "^(Uid|CapBnd|NoNewPrivs)", "/proc/self/status"
        )
        extras = "import authlib, opentelemetry.exporter.otlp.proto.http, procrastinate"
        assert box.run(process.pid, "python", "-c", extras).returncode == 0
        uids = [str(UID)] * 4
        assert rights.stdout.split() == ["Uid:", *uids, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(STARTS_S)
    # The dashboard's server ends in its turn, and then by the signal.
    assert code in {0, -signal.SIGTERM}, log.read_text()
