"""Portkey: fallback, retry, Retry-After and a timeout for each request, sent as its config.

It has no breaker of its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.faults.catalogue import rows
from benchmarks.faults.gateways import fallback_chain
from benchmarks.faults.routes import Route, routes
from benchmarks.router.peers import portkey
from benchmarks.router.peers.peer import Ask, Peer, Site

# Its server replaces `Response`, and then cannot add to the headers of a stream: every
# stream ends as 500 (1.15.2 on node 20). The server has an option against it that Portkey
# does not set; this does the same.
KEEP_RESPONSE = """
const define = Object.defineProperty;
Object.defineProperty = (target, name, ...rest) =>
  target === globalThis && name === "Response" ? target : define(target, name, ...rest);
"""


def command(site: Site) -> Sequence[str]:
    node, *words = portkey.command(site)
    preload = site.folder / "response.cjs"
    preload.write_text(KEEP_RESPONSE, encoding="utf-8")
    return [node, "-r", str(preload), *words]


def target(url: str, model: str) -> Mapping[str, object]:
    return {
        "provider": "openai",
        "api_key": "none",
        "custom_host": url,
        "override_params": {"model": model},
        "request_timeout": int(fallback_chain.LIMITS.answer_s * 1000),
        "retry": {
            "attempts": 1,
            "on_status_codes": fallback_chain.REPEATABLE,
            "use_retry_after_header": True,
        },
    }


def config(site: Site, route: Route) -> Mapping[str, object]:
    where = fallback_chain.addresses(site)
    return {
        "strategy": {"mode": "fallback", "on_status_codes": fallback_chain.FAILOVER_STATUSES},
        "targets": [
            target(where[route.variant.place], route.primary),
            target(where[fallback_chain.SPARE], route.spare),
        ],
    }


def ask(site: Site, route: str) -> Ask:
    (found,) = (row for row in routes(rows()) if row.name == route)
    return Ask(model=route, headers={"x-portkey-config": json.dumps(config(site, found))})


PEER: Peer = replace(portkey.PEER, command=command, ask=ask)
