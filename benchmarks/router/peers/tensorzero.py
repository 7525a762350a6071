"""TensorZero's gateway (Rust) from its wheel, without its database: it records nothing."""

from collections.abc import Sequence

from benchmarks.router.peers.peer import CACHE, PLAIN, STREAMED, Ask, Peer, Site, wheel

START = """
import sys, time, tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None,
    async_setup=False)
print(gateway.base_url, flush=True)
while True:
    time.sleep(60)
"""
MODEL = """
[models.{kind}]
routing = ["up"]
[models.{kind}.providers.up]
type = "openai"
model_name = "m"
api_base = "http://127.0.0.1:{port}/v1/"
api_key_location = "none"
"""


def command(site: Site) -> Sequence[str]:
    models = [MODEL.format(kind=k, port=site.upstreams[k]) for k in (PLAIN, STREAMED)]
    file = site.folder / "tensorzero.toml"
    text = "[gateway]\nobservability.enabled = false\n" + "".join(models)
    file.write_text(text, encoding="utf-8")
    return [str(CACHE / "tensorzero/bin/python"), "-c", START, str(file)]


def ask(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask("/openai/v1/chat/completions", f"tensorzero::model_name::{kind}")


PEER = Peer(
    "TensorZero",
    command,
    ask,
    wheel("tensorzero", "tensorzero"),
    env={"TOKIO_WORKER_THREADS": "1"},
    announces=True,
)
