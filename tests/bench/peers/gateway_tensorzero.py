"""TensorZero embedded, run by the bench-only environment's Python: its client called in a loop, in this very process.

Arguments: the address of the upstream, and a folder for its configuration. Reads commands `{clients, seconds, warm}`,
a JSON object a line, and prints `{rows: [...]}` as `gateway_load` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path

import uvloop

_CONFIG = """
[gateway]
observability.enabled = false

[models.stub]
routing = ["anthropic"]

[models.stub.providers.anthropic]
type = "anthropic"
model_name = "claude-sonnet-5-5"
api_base = "{url}/v1/"
api_key_location = "env::ANTHROPIC_API_KEY"
"""


async def open_gateway(url: str, folder: Path):
    """Return the embedded gateway, without a database, before the upstream."""
    os.environ["TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS"] = "1"
    os.environ["ANTHROPIC_API_KEY"] = "sk-ant-bench"
    from tensorzero import AsyncTensorZeroGateway

    config = folder / "tensorzero.toml"
    config.write_text(_CONFIG.format(url=url), "utf-8")
    opening = AsyncTensorZeroGateway.build_embedded(config_file=str(config))
    return await opening


async def run(gateway, command: dict) -> dict[str, float]:
    """Keep `clients` inferences in flight for a while."""
    seconds: list[float] = []
    query = {"messages": [{"role": "user", "content": command["content"]}]}

    async def ask() -> None:
        begun = time.perf_counter()
        answer = await gateway.inference(model_name="stub", input=query, params=command["params"])
        seconds.append(time.perf_counter() - begun)
        if "Paris" not in answer.content[0].text:
            raise ValueError(f"an unexpected answer: {answer}")

    for _ in range(command["warm"]):
        await ask()
    seconds.clear()
    begun = time.perf_counter()
    limit = begun + command["seconds"]

    async def work() -> None:
        while time.perf_counter() < limit:
            await ask()

    await asyncio.gather(*(work() for _ in range(command["clients"])))
    wall = time.perf_counter() - begun
    return {
        "requests": len(seconds),
        "per_second": len(seconds) / wall,
        "p50_ms": statistics.median(seconds) * 1e3,
        "p99_ms": statistics.quantiles(seconds, n=100)[98] * 1e3,
        "first_p50_ms": 0.0,
    }


def main() -> None:
    """Serve commands until standard input is closed."""
    url, folder = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        gateway = runner.run(open_gateway(url, Path(folder)))
        for line in sys.stdin:
            try:
                result: object = {"rows": [runner.run(run(gateway, json.loads(line)))]}
            except (OSError, ValueError) as error:
                result = {"error": str(error)}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
