"""LiteLLM's proxy, one worker, without a database; in Python, and with its core in Rust."""

import json
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.router.peers.peer import CACHE, PLAIN, STREAMED, Peer, Site, by_model, wheel


def command(site: Site) -> Sequence[str]:
    models = [
        {
            "model_name": kind,
            "litellm_params": {
                "model": "openai/m",
                "api_base": f"http://127.0.0.1:{site.upstreams[kind]}/v1",
                "api_key": "none",
            },
        }
        for kind in (PLAIN, STREAMED)
    ]
    file = site.folder / "litellm.yaml"  # JSON is YAML
    settings = {"num_retries": 0, "telemetry": False}
    document = {"model_list": models, "litellm_settings": settings}
    file.write_text(json.dumps(document), encoding="utf-8")
    proxy = str(CACHE / "litellm/bin/litellm")
    where = ["--host", "127.0.0.1", "--port", str(site.port), "--num_workers", "1"]
    return [proxy, "--config", str(file), *where]


PEER = Peer(
    "LiteLLM",
    command,
    by_model,
    wheel("litellm", "litellm[proxy]==1.106.2"),
    env={
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
    },
    start_s=240,
    slow=True,
)
RUST = replace(PEER, name="LiteLLM, Rust core", env={**PEER.env, "LITELLM_RUST": "true"})
