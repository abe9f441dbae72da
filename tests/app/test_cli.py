"""The command line, as a person types it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app import cli
from app.cli import serving
from backend.atlas.store import Atlas
from backend.core.models.sources import ModelFiles
from tests.conftest import TinyAtlas, tiny_checkpoints

ROOT = Path(__file__).parents[2]


def _calibroscope(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, check=False, timeout=120
    )


def test_help_names_the_commands() -> None:
    done = _calibroscope("--help")
    for command in ("demo", "precompute", "serve", "export", "models", "doctor"):
        assert command in done.stdout


def test_the_doctor_counts_what_is_wrong_in_english(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("precompute.installation.inspect_installation", lambda *_: [])
    with pytest.raises(SystemExit) as ended:
        cli.app(["doctor", "--atlas", str(tmp_path / "none.db")], standalone_mode=True)
    assert ended.value.code == 1
    assert "1 thing is wrong." in capsys.readouterr().out


def test_models_lists_what_needs_no_hub() -> None:
    done = _calibroscope("models")
    assert "smollm2-135m" in done.stdout
    assert "lee-news" in done.stdout
    lines = done.stdout.splitlines()
    gpt2 = next(place for place, line in enumerate(lines) if line.startswith("  gpt2-small "))
    assert "100 sequences, k = 12: openai-community/gpt2" in lines[gpt2]
    llama = next(place for place, line in enumerate(lines) if line.startswith("  llama-2-7b "))
    assert "HF_TOKEN" in " ".join(lines[llama : llama + 3])


def test_checkpoints_from_the_terminal_and_a_run_of_each(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles]
) -> None:
    trained = tiny_checkpoints(tmp_path / "trained", tiny_files("gpt2"))
    (tmp_path / "text.txt").write_text("The lamp is lit, and the lamp is not lit. " * 40)
    out, cache = str(tmp_path / "a.db"), {"CALIBROSCOPE_CACHE_DIR": str(tmp_path / "cache")}
    arguments = ["--effects", "--dataset", str(tmp_path / "text.txt"), "--sequences", "2", "--seq-len", "24"]
    done = _calibroscope(
        "checkpoints", "--model", str(trained), "--revisions", "all", "--out", out, *arguments, **cache
    )
    assert done.returncode == 0, done.stderr
    assert "3 checkpoints of trained are in" in done.stderr
    with Atlas.open(out, read_only=True) as atlas:
        steps = atlas.training.get("trained")
        assert [step.step for step in steps] == [0, 10, 2000]
        assert len(atlas.training.runs_of(steps)) == 3
        assert [model.slug for model in atlas.models.all()] == ["trained-step0", "trained-step10", "trained-step2000"]


def test_a_run_from_the_terminal_and_its_export(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> None:
    (tmp_path / "text.txt").write_text("The lamp is lit, and the lamp is not lit. " * 40)
    out, cache = str(tmp_path / "a.db"), {"CALIBROSCOPE_CACHE_DIR": str(tmp_path / "cache")}
    model = str(tiny_files("gpt2").folder)
    arguments = ["--dataset", str(tmp_path / "text.txt"), "--sequences", "3", "--seq-len", "24", "--out", out]
    done = _calibroscope("precompute", "--model", model, *arguments, **cache)
    assert done.returncode == 0, done.stderr
    assert "Run 1 is finished" in done.stderr
    again = _calibroscope("precompute", "--model", model, *arguments, **cache)
    assert "finished already" in again.stderr
    table = tmp_path / "neurons.csv"
    done = _calibroscope("export", "--atlas", out, "--format", "csv", "--out", str(table))
    assert done.returncode == 0, done.stderr
    assert table.read_text().startswith('"neuron","layer","index"')
    assert len(table.read_text().splitlines()) == 1 + 44


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["precompute", "--model", "/no/such/model"], "no model folder"),
        (["precompute"], "Name a model with --model, or one of the paper's with --preset"),
        (["precompute", "--preset", "gpt-5"], "no preset 'gpt-5'"),
        (["checkpoints", "--model", "gpt2", "--revisions", "main"], "has no number"),
        (["export", "--atlas", "/no/such/atlas.db", "--out", "x.csv"], "calibroscope precompute"),
        (["precompute", "--model", "gpt2", "--sequences", "0"], "--sequences"),
        (["serve", "--port", "70000"], "--port"),
        (
            ["precompute", "--model", "no-model", "--counts", "a.npy", "--frequency", "corpus"],
            "leave --frequency out",
        ),
    ],
)
def test_errors_are_sentences_and_not_tracebacks(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = _calibroscope(*arguments, CALIBROSCOPE_ATLAS=str(tmp_path / "a.db"))
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("CALIBROSCOPE_API_KEY", "schlüssel", "ASCII letters"),
        ("CALIBROSCOPE_PORT", "many", "valid integer"),
        ("CALIBROSCOPE_EMBED_ORIGINS", "lab.example", "https://lab.example"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name: str, value: str, sentence: str) -> None:
    done = _calibroscope("serve", **{name: value})
    assert done.returncode == 1
    assert name in done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_says_to_take_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = _calibroscope("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "--port" in done.stderr


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_demo_stops_its_analysis(sign: signal.Signals) -> None:
    program = (
        "import sys, time\nfrom app.cli.serving import analysis_beside\n"
        "with analysis_beside([sys.executable, '-c', 'import time; time.sleep(60)']):\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    child = int(children.read_text().split()[0]) if children.exists() else None
    parent.send_signal(sign)
    parent.wait(timeout=20)
    if child is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


OUTSIDE = {"CALIBROSCOPE_ALLOWED_HOSTS": "atlas.example.org"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listening", "environment", "name"), [([], {}, "127.0.0.1"), (["--host", "0.0.0.0"], OUTSIDE, "atlas.example.org")]
)
def test_serve_answers_on_its_port(
    listening: list[str], environment: dict[str, str], name: str, tiny_atlas: TinyAtlas
) -> None:
    import httpx

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "serve", "--atlas", str(tiny_atlas.path), "--port", str(port)]
    server = subprocess.Popen(
        [*command, *listening], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    address, host = f"http://127.0.0.1:{port}", {"host": name}
    try:
        assert server.stdout is not None
        assert f":{port}/" in server.stdout.readline()
        for _ in range(60):
            try:
                page = httpx.get(f"{address}/m/llama/n/1/3", headers=host, timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.25)
        assert page.status_code == 200
        assert "calibroscope.css" in page.text, "a deep link that comes first has its styles"
        assert httpx.get(f"{address}/api/v1/health", headers=host, timeout=5).json()["status"] == "ok"
        strange = httpx.get(f"{address}/api/v1/health", headers={"host": "evil.example"}, timeout=5)
        assert strange.status_code == 400
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.mark.parametrize(("ends", "told"), [("raise SystemExit(1)", True), ("pass", False)])
def test_an_analysis_that_fails_is_announced(ends: str, told: bool) -> None:
    with serving.analysis_beside([sys.executable, "-c", ends]) as analysis:
        said: list[str] = []
        serving.announce_failure(analysis, said.append)
    assert bool(said) == told
    assert all("terminal" in sentence for sentence in said)
