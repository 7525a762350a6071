"""Portkey's gateway from npm, on node."""

from collections.abc import Sequence

from benchmarks.router.peers.peer import CACHE, Ask, Peer, Site, run

FOLDER = CACHE / "portkey"
SERVER = FOLDER / "node_modules/@portkey-ai/gateway/build/start-server.js"
# It listens on every interface; here it may listen on loopback alone.
LOOPBACK = """
const net = require("net"), listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (first, ...rest) {
  if (typeof first === "number") return listen.call(this, {port: first, host: "127.0.0.1"},
    ...rest.filter((each) => typeof each === "function"));
  if (first && typeof first === "object" && "port" in first) first.host = "127.0.0.1";
  return listen.call(this, first, ...rest);
};
"""


def install() -> None:
    if not SERVER.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        quiet = ["--no-audit", "--no-fund", "--silent"]
        run(["npm", "install", "--prefix", str(FOLDER), *quiet, "@portkey-ai/gateway"])


def command(site: Site) -> Sequence[str]:
    preload = site.folder / "loopback.cjs"
    preload.write_text(LOOPBACK, encoding="utf-8")
    return ["node", "-r", str(preload), str(SERVER), f"--port={site.port}", "--headless"]


def ask(site: Site, kind: str) -> Ask:
    return Ask(
        headers={
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{site.upstreams[kind]}/v1",
        }
    )


PEER = Peer("Portkey", command, ask, install, env={"NODE_ENV": "production"})
