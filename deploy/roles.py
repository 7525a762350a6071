"""The processes of an installation, in one table: what each runs, listens on and holds.

`python -m deploy.kubernetes.manifests` writes the Kubernetes manifests from it. The stages of
deploy/Dockerfile, the services of deploy/compose and the units of deploy/systemd are held
against it by a test.
"""

from typing import Final, NamedTuple

UID: Final = 10001
HOME: Final = "/var/lib/swapproof"
CONFIG: Final = "/etc/swapproof/swapproof.yaml"
# How long a router may take to end: its delay, its drain, a worker's last words, and what the
# parent still writes.
SHUTDOWN_DELAY_S: Final = 5
END_S: Final = 75

# Variable → key in the secret `swapproof-keys`, named as `swapproof init` names its file.
_VERIFYING: Final = {
    "SWAPPROOF_SECRET": "secret.key",
    "SWAPPROOF_SIGNING_KEYRING": "signing.pub",
    "SWAPPROOF_ENCRYPTION_KEYS": "encryption.keys",
}
_DECIDING: Final = {**_VERIFYING, "SWAPPROOF_SIGNING_KEY": "signing.key"}


class Role(NamedTuple):
    """One kind of process. section: of the configuration. port: 0 for one that listens nowhere.
    keys: see SECURITY.md.
    """

    name: str
    section: str
    port: int
    keys: dict[str, str]
    replicas: int
    cpu: str
    memory: str
    # The dashboard listens beyond loopback only with single sign-on.
    loopback: bool = False
    words: tuple[str, ...] = ()  # of its command, where it is not `serve` and its name
    image_of: str = ""  # another role, whose image it runs in

    @property
    def command(self) -> list[str]:
        return ["--config", CONFIG, *(self.words or ("serve", self.name))]

    @property
    def image(self) -> str:
        return self.image_of or self.name


ROLES: Final = (
    Role("router", "ROUTER", 8080, _VERIFYING, 3, "1", "512Mi"),
    Role(
        "control",
        "CONTROL",
        8081,
        {**_DECIDING, "SWAPPROOF_WORKER_SIGNING_KEY": "worker-signing.key"},
        2,
        "1",
        "2Gi",
    ),
    Role("ui", "UI", 8501, _DECIDING, 1, "500m", "1Gi", loopback=True),
)
# Takes eval runs from the queue, where `control.queue` is `procrastinate`: never control's key.
WORKER: Final = Role(
    "worker",
    "",
    0,
    {**_VERIFYING, "SWAPPROOF_WORKER_SIGNING_KEY": "worker-signing.key"},
    2,
    "1",
    "2Gi",
    words=("worker", "--slots", "2"),
    image_of="control",
)
