"""Writes swapproof.yaml, the Kubernetes manifests, from the table of roles, and workers.yaml,
those of eval workers: `python -m deploy.kubernetes.manifests`.

Secrets and the configuration are named, and never part of the file.
"""

import tomllib
from pathlib import Path
from typing import Any, Final

import yaml

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

FILE: Final = Path(__file__).with_name("swapproof.yaml")
WORKERS_FILE: Final = Path(__file__).with_name("workers.yaml")
HEADER: Final = (
    "# Written by `python -m deploy.kubernetes.manifests`; do not edit.\n"
    "# docs/how-to/kubernetes.md says what has to be there before.\n"
)
IMAGE: Final = "swapproof"
PROJECT: Final = Path(__file__).parents[2] / "pyproject.toml"
VERSION: Final = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"]
MOST_ROUTERS: Final = 10
BUSY_PERCENT: Final = 60
# The label of the namespaces whose pods may call a role.
CALLERS: Final = {
    "router": "swapproof-client",
    "control": "swapproof-operator",
}
Manifest = dict[str, Any]


def build_manifests() -> list[Manifest]:
    return [
        deny_all(),
        *(manifest for role in ROLES for manifest in build_role(role)),
        build_autoscaler(),
    ]


def build_worker_manifests() -> list[Manifest]:
    return build_role(WORKER)


def build_role(role: Role) -> list[Manifest]:
    manifests = [build_deployment(role), allow_traffic(role)]
    if role.port and not role.loopback:
        manifests.append(build_service(role))
    if role.replicas > 1:
        manifests.append(build_disruption_budget(role))
    return manifests


def metadata(name: str) -> Manifest:
    return {"name": name, "labels": {"app.kubernetes.io/name": "swapproof"}}


def labels(role: Role) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "swapproof",
        "app.kubernetes.io/component": role.name,
    }


def build_deployment(role: Role) -> Manifest:
    template = {
        "metadata": {"labels": labels(role)},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": END_S,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": UID,
                "runAsGroup": UID,
                "fsGroup": UID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": labels(role)},
                }
            ],
            "containers": [build_container(role)],
            "volumes": [
                {"name": "config", "configMap": {"name": "swapproof-config"}},
                {"name": "home", "emptyDir": {"sizeLimit": "4Gi"}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            ],
        },
    }
    spec: Manifest = {
        "selector": {"matchLabels": labels(role)},
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template,
    }
    if role.name != "router":  # the autoscaler sets the routers' number
        spec["replicas"] = role.replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(f"swapproof-{role.name}"),
        "spec": spec,
    }


def build_container(role: Role) -> Manifest:
    settings = {"SWAPPROOF__HOME": HOME, "HOME": HOME}
    if role.port:
        host = "127.0.0.1" if role.loopback else "0.0.0.0"  # noqa: S104 - within the pod
        settings = {f"SWAPPROOF__{role.section}__HOST": host, **settings}
    if role.name == "router":
        settings["SWAPPROOF__ROUTER__SHUTDOWN_DELAY_S"] = str(SHUTDOWN_DELAY_S)
    secrets = [
        ("SWAPPROOF__DATABASE_URL", "swapproof-database", "url"),
        *((variable, "swapproof-keys", key) for variable, key in role.keys.items()),
    ]
    return {
        "name": role.name,
        "image": f"{IMAGE}-{role.image}:{VERSION}",
        "args": role.command,
        **({"ports": [{"name": "http", "containerPort": role.port}]} if role.port else {}),
        "env": [
            *({"name": name, "value": value} for name, value in settings.items()),
            *(
                {
                    "name": name,
                    "valueFrom": {"secretKeyRef": {"name": secret, "key": key}},
                }
                for name, secret, key in secrets
            ),
        ],
        # Of providers, by the names that swapproof.yaml gives their variables.
        "envFrom": [{"secretRef": {"name": "swapproof-providers", "optional": True}}],
        **(build_probes(role) if role.port else {}),
        "resources": {
            "requests": {"cpu": role.cpu, "memory": role.memory},
            "limits": {"memory": role.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {
                "name": "config",
                "mountPath": str(Path(CONFIG).parent),
                "readOnly": True,
            },
            {"name": "home", "mountPath": HOME},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
    }


def build_probes(role: Role) -> Manifest:
    return {
        "startupProbe": {
            **probe(role, "/healthz"),
            "periodSeconds": 2,
            "failureThreshold": 90,
        },
        "readinessProbe": {**probe(role, "/readyz"), "periodSeconds": 2},
        "livenessProbe": {**probe(role, "/healthz"), "periodSeconds": 10},
    }


def probe(role: Role, path: str) -> Manifest:
    """Asks over HTTP. What listens on loopback is asked from within its container."""
    if not role.loopback:
        return {
            "httpGet": {"path": path, "port": "http"},
            "timeoutSeconds": 5,
        }
    url = f"http://127.0.0.1:{role.port}{path}"
    script = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=4)"
    return {
        "exec": {"command": ["python", "-c", script]},
        "timeoutSeconds": 5,
    }


def build_service(role: Role) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(f"swapproof-{role.name}"),
        "spec": {
            "selector": labels(role),
            "ports": [
                {
                    "name": "http",
                    "port": role.port,
                    "targetPort": "http",
                }
            ],
        },
    }


def build_disruption_budget(role: Role) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(f"swapproof-{role.name}"),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels(role)},
        },
    }


def build_autoscaler() -> Manifest:
    [router] = [role for role in ROLES if role.name == "router"]
    name = f"swapproof-{router.name}"
    target = {"type": "Utilization", "averageUtilization": BUSY_PERCENT}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(name),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": name,
            },
            "minReplicas": router.replicas,
            "maxReplicas": MOST_ROUTERS,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": target},
                }
            ],
            # Streams take minutes: a short lull ends no router.
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
        },
    }


def deny_all() -> Manifest:
    everything = {"matchLabels": {"app.kubernetes.io/name": "swapproof"}}
    return build_network_policy(
        "swapproof-deny",
        {"podSelector": everything, "policyTypes": ["Ingress", "Egress"]},
    )


def allow_traffic(role: Role) -> Manifest:
    """Out: names, PostgreSQL, and providers over TLS. In: monitoring to both; to the router,
    applications of this namespace and of those with the label `swapproof-client`; to the
    control plane, operators and CI of namespaces with the label `swapproof-operator`; to the
    dashboard nobody (`kubectl port-forward` is not held back by a policy).
    """
    spec: Manifest = {
        "podSelector": {"matchLabels": labels(role)},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [
            {
                "ports": [
                    {"protocol": "UDP", "port": 53},
                    {"protocol": "TCP", "port": 53},
                ]
            },
            {"ports": [{"protocol": "TCP", "port": port} for port in (443, 5432)]},
        ],
    }
    if role.name in CALLERS:
        monitoring = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
        callers = {"matchLabels": {CALLERS[role.name]: "true"}}
        sources: list[Manifest] = [
            {"namespaceSelector": monitoring},
            {"namespaceSelector": callers},
        ]
        if role.name == "router":
            sources.append({"podSelector": {}})
        spec["ingress"] = [
            {
                "from": sources,
                "ports": [{"protocol": "TCP", "port": role.port}],
            }
        ]
    return build_network_policy(f"swapproof-{role.name}", spec)


def build_network_policy(name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(name),
        "spec": spec,
    }


class _WithoutAnchors(yaml.SafeDumper):
    """What occurs twice is written twice: people read this file."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - yaml's signature
        return True


def dump_manifests(manifests: list[Manifest]) -> str:
    return HEADER + yaml.dump_all(manifests, Dumper=_WithoutAnchors, sort_keys=False)


if __name__ == "__main__":
    FILE.write_text(dump_manifests(build_manifests()), encoding="utf-8")
    WORKERS_FILE.write_text(dump_manifests(build_worker_manifests()), encoding="utf-8")
