"""What people feel when many read and some paste texts: `python -m tests.load --atlas atlas.db --readers 50`.

Starts the service on this machine's own address, asks it for a bounded time, and prints how long answers took. A reader
goes from page to page as a browser would and asks for what each needs; a writer pastes a text that nobody has pasted,
reads the answer and pastes the next. Nothing beyond this machine is asked.
"""

import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

V1 = "/api/v1"
_METRICS = ["weight_norm", "logit_var", "null_fraction", "total_effect", "ln_mediated", "abs_delta_entropy"]
_WORDS = ["the", "of", "and", "lamp", "river", "was", "in", "to", "brass", "hook", "under", "paper", "morning", "quiet"]


@dataclass
class Asked:
    """Seconds and status of every request of one kind."""

    seconds: list[tuple[int, float]] = field(default_factory=list)

    def add(self, status: int, seconds: float) -> None:
        self.seconds.append((status, seconds))

    def took(self, status: int) -> list[float]:
        """Sorted."""
        return sorted(seconds for found, seconds in self.seconds if found == status)

    def told(self, name: str) -> str:
        lines = []
        for status, count in sorted(Counter(found for found, _ in self.seconds).items()):
            took = self.took(status)
            quantiles = [took[min(int(share * len(took)), len(took) - 1)] for share in (0.5, 0.95)]
            words = "no answer" if status == 0 else str(status)
            lines.append(
                f"{name:<8} {words:>9}: {count:>6} requests, median {quantiles[0]:.2f} s, 95th percentile "
                f"{quantiles[1]:.2f} s, longest {took[-1]:.2f} s"
            )
        return "\n".join(lines) or f"{name}: nothing was asked"


@dataclass(frozen=True)
class Load:
    """Who asks, and for how long."""

    readers: int
    writers: int
    seconds: float
    thinking: float
    """Mean seconds between two pages of a reader, and between two texts of a writer."""
    words: int
    """Of each text."""


async def _ask(http: httpx.AsyncClient, asked: Asked, method: str, path: str, body: object = None) -> httpx.Response:
    began = time.monotonic()
    try:
        answer = await http.request(method, path, json=body)
    except httpx.HTTPError:
        asked.add(0, time.monotonic() - began)
        await asyncio.sleep(0.2)
        raise
    asked.add(answer.status_code, time.monotonic() - began)
    return answer


async def _read(
    http: httpx.AsyncClient, asked: Asked, load: Load, until: float, seed: int, run: int, neurons: list[str]
) -> None:
    rng = random.Random(seed)
    at = f"{V1}/runs/{run}"
    while time.monotonic() < until:
        neuron = rng.choice(neurons)
        page = rng.choice(
            [
                [f"{V1}/models", at, f"{at}/columns?" + "&".join(f"name={name}" for name in _METRICS)],
                [f"{at}/neurons?limit=100&sort=-null_fraction"],
                [f"{at}/neurons/{neuron}{part}" for part in ("", "/histogram", "/contexts", "/logits", "/similar")],
                [f"{at}/neurons/{neuron}/effects", f"{at}/spectrum?neuron={neuron}"],
                [f"{at}/positions", f"{at}/frequencies"],
            ]
        )
        for path in page:
            try:
                await _ask(http, asked, "GET", path)
            except httpx.HTTPError:
                break
        await asyncio.sleep(rng.expovariate(1 / load.thinking) if load.thinking else 0)


async def _write(http: httpx.AsyncClient, asked: Asked, load: Load, until: float, seed: int, model: str) -> None:
    rng = random.Random(-1 - seed)
    while time.monotonic() < until:
        text = " ".join(rng.choices(_WORDS, k=load.words))
        try:
            answer = await _ask(http, asked, "POST", f"{V1}/models/{model}/texts", {"text": text})
        except httpx.HTTPError:
            continue
        wait = float(answer.headers.get("retry-after", 0))
        await asyncio.sleep(wait + (rng.expovariate(1 / load.thinking) if load.thinking else 0))


async def measure(address: str, load: Load) -> tuple[Asked, Asked]:
    """Answers to readers and to writers; the model has been loaded before the first counts."""
    limits = httpx.Limits(max_connections=load.readers + load.writers)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
        found = (await http.get(f"{V1}/models")).json()["models"][0]
        (await http.post(f"{V1}/models/{found['id']}/texts", json={"text": "To begin with."})).raise_for_status()
        run = found["latest_run"]
        neurons = (await http.get(f"{V1}/runs/{run}/columns?name=total_effect")).json()["neuron"]
        reading, writing = Asked(), Asked()
        until = time.monotonic() + load.seconds
        readers = (_read(http, reading, load, until, seed, run, neurons) for seed in range(load.readers))
        writers = (_write(http, writing, load, until, seed, found["id"]) for seed in range(load.writers))
        await asyncio.gather(*readers, *writers)
        return reading, writing


def _serve(atlas: str) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "serve", "--atlas", atlas, "--port", str(port)]
    service, address = subprocess.Popen(command), f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            httpx.get(f"{address}{V1}/health", timeout=5).raise_for_status()
            return service, address
        except httpx.HTTPError:
            if service.poll() is not None:
                raise SystemExit("The service did not start: its reason stands above.") from None
            time.sleep(0.2)
    service.kill()
    raise SystemExit("The service did not answer within two minutes.")


def main() -> None:
    """Run the load that the command line asks for, and print what it met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", required=True, help="an atlas with a finished run of a model that can be loaded")
    parser.add_argument("--readers", type=int, default=50, choices=range(201), metavar="0..200")
    parser.add_argument("--writers", type=int, default=4, choices=range(51), metavar="0..50")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--thinking", type=float, default=1.0, help="mean seconds between two pages or two texts")
    parser.add_argument("--words", type=int, default=100, choices=range(1, 1001), metavar="1..1000")
    given = parser.parse_args()
    load = Load(given.readers, given.writers, min(given.seconds, 300), given.thinking, given.words)
    service, address = _serve(given.atlas)
    try:
        began = time.monotonic()
        reading, writing = asyncio.run(measure(address, load))
        print(
            f"{load.readers} readers, {load.writers} writers of {load.words} words, {load.thinking:g} s between pages, "
            f"{time.monotonic() - began:.0f} s, {os.cpu_count()} cores"
        )
        print(reading.told("pages"))
        print(writing.told("texts"))
    finally:
        service.send_signal(signal.SIGINT)
        try:
            service.wait(20)
        except subprocess.TimeoutExpired:
            service.kill()


if __name__ == "__main__":
    main()
