"""Simulated providers: `swapproof sim` of the wheel, over real HTTP."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import yaml

from tests.acceptance.installation import (
    START_S,
    Installation,
    Process,
    eventually,
)
from tests.support.site.processes import free_port


class Simulator:
    """A simulator's process. installation: whose folder has its log, and which ends it."""

    def __init__(
        self,
        installation: Installation,
        *,
        name: str = "sim",
        profiles: Mapping[str, Any] | None = None,
        time_scale: float = 0.0,
        env: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.installation = installation
        self.name = name
        self.port = free_port()
        self._env = env
        self._client = installation.client
        words = [
            "--port",
            str(self.port),
            "--time-scale",
            str(time_scale),
            *options,
        ]
        if profiles is not None:
            file = installation.folder / f"{name}.yaml"
            file.write_text(yaml.safe_dump(dict(profiles)), encoding="utf-8")
            words += ["--profiles", str(file)]
        self._words = words
        self.process: Process | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Also after it was killed: at the same address."""
        self.process = self.installation.start(
            "sim",
            *self._words,
            name=self.name,
            env=self._env,
        )
        process = self.process

        def answers() -> bool:
            assert process.is_up(), process.log[-4000:]
            try:
                return self._client.get(f"{self.url}/healthz").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        eventually(answers, "the simulator does not answer", wait_s=START_S)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def settings(self, kind: str = "sim", **more: Any) -> dict[str, Any]:
        """What stands below `providers.NAME`."""
        return {
            "kind": kind,
            "api_base": f"{self.url}/v1",
            **more,
        }

    def fault(
        self,
        model: str,
        kind: str,
        **settings: Any,
    ) -> None:
        """See docs/reference/simulator.md, §Fault switches."""
        body = json.dumps({"kind": kind, **settings})
        self._client.put(f"{self.url}/sim/faults/{model}", content=body).raise_for_status()

    def heal(self, model: str | None = None) -> None:
        """End the model's faults, or all."""
        path = "/sim/faults" if model is None else f"/sim/faults/{model}"
        self._client.delete(self.url + path).raise_for_status()

    def profile(self, model: str, **changes: Any) -> None:
        """Change what answers behind the model's name."""
        answer = self._client.post(
            f"{self.url}/sim/profiles/{model}", content=json.dumps(changes)
        )
        answer.raise_for_status()

    def stats(self) -> Any:
        return self._client.get(f"{self.url}/sim/stats").raise_for_status().json()

    def reset_stats(self) -> None:
        self._client.delete(f"{self.url}/sim/stats").raise_for_status()
