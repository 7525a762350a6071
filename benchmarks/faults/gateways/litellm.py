"""LiteLLM's proxy: a fallback, a retry, a cooldown for each model group, all by its docs.

Without `allowed_fails` a group of one deployment never cools down.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.faults.catalogue import rows
from benchmarks.faults.gateways import fallback_chain
from benchmarks.faults.routes import routes
from benchmarks.router.peers import litellm
from benchmarks.router.peers.peer import CACHE, Peer, Site, by_model


def group(name: str, model: str, url: str) -> Mapping[str, object]:
    parameters = {
        "model": f"openai/{model}",
        "api_base": url,
        "api_key": "none",
        "timeout": fallback_chain.LIMITS.answer_s,
        "stream_timeout": fallback_chain.LIMITS.first_token_s,
    }
    return {"model_name": name, "litellm_params": parameters}


def command(site: Site) -> Sequence[str]:
    where, all_ = fallback_chain.addresses(site), list(routes(rows()))
    document = {
        "model_list": [
            *(group(route.name, route.primary, where[route.variant.place]) for route in all_),
            *(group(route.spare, route.spare, where[fallback_chain.SPARE]) for route in all_),
        ],
        "router_settings": {
            "fallbacks": [{route.name: [route.spare]} for route in all_],
            "num_retries": 1,
            "retry_after": 0,
            "allowed_fails": 4,
            "cooldown_time": 120,
            "timeout": fallback_chain.LIMITS.answer_s,
            "stream_timeout": fallback_chain.LIMITS.first_token_s,
        },
        "litellm_settings": {
            "telemetry": False,
            "request_timeout": fallback_chain.LIMITS.answer_s,
        },
    }
    file = site.folder / "litellm.yaml"  # JSON is YAML
    file.write_text(json.dumps(document), encoding="utf-8")
    proxy = str(CACHE / "litellm/bin/litellm")
    listen = ["--host", "127.0.0.1", "--port", str(site.port), "--num_workers", "1"]
    return [proxy, "--config", str(file), *listen]


PEER: Peer = replace(litellm.PEER, command=command, ask=by_model)
