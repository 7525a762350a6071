import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner

from deploy.roles import HOME, ROLES, UID, Role
from harness.interfaces.cli.program import program

# What a test needs for it; `missing` names the first that is not here.
PROGRAMS: Final = (
    "unshare",
    "nsenter",
    "setpriv",
    "mount",
    "chroot",
    "ip",
    "cp",
)
_INSTRUCTION: Final = re.compile(r"^([A-Z]+) (.*?[^\\])$", re.MULTILINE | re.DOTALL)
# Instructions whose value is a list, and where an image has it.
_LISTS: Final = {
    "VOLUME": "volumes",
    "ENTRYPOINT": "entrypoint",
    "CMD": "command",
    "HEALTHCHECK": "health",
}
_MOUNTS: Final = """
set -eu
for name in bin sbin lib lib64; do
    if [ -L /$name ] && [ ! -e "$ROOT/$name" ]; then cp -P /$name "$ROOT/"; fi
done
mount --bind "$ROOT" "$ROOT"
mount --rbind /usr "$ROOT/usr"
mount --bind "$PYTHON" "$ROOT/usr/local"
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
"""
_READ_ONLY: Final = """
for volume in $VOLUMES; do mount --bind "$STATE$volume" "$ROOT$volume"; done
mount --bind -o ro "$CONFIG" "$ROOT/etc/swapproof"
for place in / /usr /usr/local; do mount -o remount,bind,ro "$ROOT$place"; done
ip link set lo up
"""


def missing() -> str:
    """Says why images cannot be run here; empty where they can."""
    if os.geteuid() != 0:
        return "only root may mount and chroot"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{lacking[0]} is not here" if lacking else ""


@dataclass(frozen=True)
class Image:
    """What a stage of the Dockerfile made. root: its file system."""

    root: Path
    environment: dict[str, str]
    user: str = "0:0"
    folder: str = "/"
    volumes: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()


def build(
    dockerfile: str,
    context: Path,
    place: Path,
) -> dict[str, Image]:
    """Carries out a Dockerfile; returns its stages by name.

    Args:
        place: of the roots.

    A stage that runs and copies nothing shares the root of the one that it is made from.
    """
    stages: dict[str, Image] = {}
    stage = ""
    for word, rest in _INSTRUCTION.findall(
        re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE)
    ):
        if word == "FROM":
            base, stage = rest.split(" AS ")
            stages[stage] = stages.get(base) or _base_image(place / stage)
        elif word != "ARG":
            stages[stage] = _carry_out(stages[stage], word, rest, context, stages)
    return stages


def _base_image(root: Path) -> Image:
    for name in ("usr", "dev", "proc", "opt", "tmp", "run", "var/lib"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copytree("/etc", root / "etc", symlinks=True)
    image = Image(root, {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin"})
    _run(image, "ldconfig")  # for the libraries of a Python in /usr/local
    return image


def _carry_out(
    image: Image,
    word: str,
    rest: str,
    context: Path,
    stages: dict[str, Image],
) -> Image:
    if word == "RUN":
        _run(image, "/bin/sh", "-ec", rest)
    elif word == "COPY":
        _copy(image, rest.split(), context, stages)
    elif word == "WORKDIR":
        (image.root / rest[1:]).mkdir(parents=True, exist_ok=True)
        return replace(image, folder=rest)
    elif word == "ENV":
        pairs = re.findall(r"(\w+)=(\S+)", rest)
        known = {n: Template(v).safe_substitute(image.environment) for n, v in pairs}
        return replace(image, environment={**image.environment, **known})
    elif word == "USER":
        return replace(image, user=rest)
    elif word in _LISTS:
        words: Any = {_LISTS[word]: tuple(yaml.safe_load(rest.rpartition("CMD ")[2]))}
        return replace(image, **words)
    else:
        assert word == "EXPOSE", f"nothing here carries out {word}"
    return image


def _copy(
    image: Image,
    words: list[str],
    context: Path,
    stages: dict[str, Image],
) -> None:
    origin = context
    if words[0].startswith("--from="):
        origin = stages[words.pop(0).removeprefix("--from=")].root
    *sources, target = words
    place = image.root / target[1:]
    place.parent.mkdir(parents=True, exist_ok=True)
    if target.endswith("/"):
        place.mkdir(exist_ok=True)
    for source in sources:
        found = sorted(origin.glob(source.removeprefix("/")))
        assert found, f"nothing to copy: {source}"
        for path in found:
            # By links: it is some hundred MiB.
            subprocess.run(["cp", "-al", path, place], check=True)  # noqa: S603, S607


def _run(image: Image, *command: str) -> None:
    done = subprocess.run(  # noqa: S603 - a step of the Dockerfile
        ["unshare", "--mount", "sh", "-c", f'{_MOUNTS}exec chroot "$ROOT" "$@"', "-", *command],  # noqa: S607
        env=os.environ | image.environment | _places(image),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def _places(image: Image) -> dict[str, str]:
    return {"ROOT": str(image.root), "PYTHON": sys.base_prefix}


@dataclass
class Container:
    """A running image. state: the folder of its volumes, which outlive it. config: what is
    mounted at /etc/swapproof. variables: those that are given to it.
    """

    image: Image
    state: Path
    config: Path
    variables: dict[str, str] = field(default_factory=dict)

    def start(self, log: Path, *command: str) -> "subprocess.Popen[bytes]":
        for volume in self.image.volumes:
            if not (self.state / volume[1:]).exists():
                (self.state / volume[1:]).parent.mkdir(parents=True, exist_ok=True)
                inside = self.image.root / volume[1:]
                outside = self.state / volume[1:]
                subprocess.run(["cp", "-a", inside, outside], check=True)  # noqa: S603, S607
        known = {"STATE": self.state, "CONFIG": self.config}
        script = f'{_MOUNTS}{_READ_ONLY}cd /; exec "$@"'
        words = command or (*self.image.entrypoint, *self.image.command)
        with log.open("ab") as out:
            return subprocess.Popen(  # noqa: S603 - our own command
                [  # noqa: S607
                    "unshare",
                    "--mount",
                    "--net",
                    "sh",
                    "-c",
                    script,
                    "-",
                    *self._inside("chroot", str(self.image.root)),
                    *words,
                ],
                env={
                    **{name: str(path) for name, path in known.items()},
                    **_places(self.image),
                    "VOLUMES": " ".join(self.image.volumes),
                    "PATH": os.environ["PATH"],
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def check_health(self, process: int) -> bool:
        return self.run(process, *self.image.health).returncode == 0

    def run(self, process: int, *command: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command beside a running process, with its rights."""
        enter = (
            "nsenter",
            "--mount",
            "--net",
            "--root",
            f"--target={process}",
        )
        return subprocess.run(  # noqa: S603 - our own command
            [*self._inside(*enter), *command],
            capture_output=True,
            check=False,
            text=True,
        )

    def _inside(self, *enter: str) -> tuple[str, ...]:
        user, group = self.image.user.split(":")
        variables = {**self.image.environment, **self.variables}
        return (
            *enter,
            "setpriv",
            f"--reuid={user}",
            f"--regid={group}",
            "--clear-groups",
            "--no-new-privs",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "env",
            "-i",
            f"--chdir={self.image.folder}",
            *(f"{name}={value}" for name, value in variables.items()),
        )


pytestmark = [
    pytest.mark.verify,
    pytest.mark.req("G6"),
    pytest.mark.timeout(1800),
]
ROOT = Path(__file__).parents[2]
STARTS_S = 240.0


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    if problem := missing():
        pytest.skip(f"no image can be built: {problem}")
    context = tmp_path_factory.mktemp("context")
    (context / "requirements").mkdir()
    for lock in (ROOT / "requirements").glob("*.lock"):
        (context / "requirements" / lock.name).write_bytes(lock.read_bytes())
    command = ["/bin/sh", "deploy/wheels.sh", str(context / "dist")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: S603
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
    return build(dockerfile, context, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with a database, the folder `config`, and beside them `keys`, the secret."""
    folder = tmp_path_factory.mktemp("state")
    config = folder / "config" / "swapproof.yaml"
    home = folder / HOME[1:]
    keys = folder / "keys"
    for place in (config.parent, home, keys):
        place.mkdir(parents=True)
    config.write_text(f"home: {home}\nrouter: {{workers: 1}}\n")
    made = CliRunner().invoke(program, ["--config", str(config), "init"])
    assert made.exit_code == 0, made.output
    config.write_text("router: {workers: 1}\n")
    for file in home.iterdir():
        os.chown(file, UID, UID)
        if not file.name.startswith("swapproof.db"):
            file.rename(keys / file.name)
    os.chown(home, UID, UID)
    return folder


def test_every_image_serves_without_rights_on_a_read_only_root(
    images: dict[str, Image], state: Path
) -> None:
    """One test, so that the images are built once."""
    for role in ROLES:
        serve(role, images[role.name], state)


def serve(
    role: Role,
    image: Image,
    state: Path,
) -> None:
    # As a secret of Kubernetes has them: the whole files, with their last newlines.
    keys = {name: (state / "keys" / file).read_text() for name, file in role.keys.items()}
    box = Container(image, state, state / "config", keys)
    log = state / f"{role.name}.log"
    process = box.start(log)
    try:
        until = time.monotonic() + STARTS_S
        while not box.check_health(process.pid):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(1)
        written = box.run(
            process.pid,
            "touch",
            "/opt/swapproof/x",
            "/usr/x",
            "/etc/swapproof/x",
        )
        assert written.stderr.count("Read-only file system") == 3
        rights = box.run(
            process.pid,
            "grep",
            "-E",
            "^(Uid|CapBnd|NoNewPrivs)",
            "/proc/self/status",
        )
        extras = "import authlib, opentelemetry.exporter.otlp.proto.http, procrastinate"
        assert box.run(process.pid, "python", "-c", extras).returncode == 0
        uids = [str(UID)] * 4
        assert rights.stdout.split() == [
            "Uid:",
            *uids,
            "CapBnd:",
            "0" * 16,
            "NoNewPrivs:",
            "1",
        ]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(STARTS_S)
    # The dashboard's server ends in its turn, and then by the signal.
    assert code in {0, -signal.SIGTERM}, log.read_text()
