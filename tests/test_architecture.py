"""The house: imports run one way, and nothing untrusted is unpickled or executed."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for room in ("app", "backend", "precompute") for path in (ROOT / room).rglob("*.py"))

RULES: list[tuple[str, str, str]] = [
    # (files whose path matches, may not import what matches, because)
    (r"backend/", r"(app|precompute)(\.|$)", "arrows run app → backend ← precompute"),
    (r"precompute/", r"app(\.|$)", "arrows run app → backend ← precompute"),
    (r"app/(?!cli/)", r"(precompute|torch|sqlalchemy|transformer_lens|transformers)(\.|$)", "the app only draws"),
    # A report takes errors of single tokens as the science does: that module needs NumPy alone. Names are read and
    # written in one place, which needs nothing.
    (
        r"app/(?!cli/)",
        r"backend\.(?!(client|schemas|glossary|incidents|core\.metrics\.jackknife|core\.neurons|core\.errors)$)",
        "the app sees the client and the wire",
    ),
    (r"app/notation/", r"app\.(?!notation\.)", "how numbers and names are written depends on no page"),
    (r"app/figures/", r"app\.(?!figures\.|notation\.)", "figures are drawn from answers alone"),
    (
        r"app/components/",
        r"app\.(pages|reproduce|dashboard|cli|asking)(\.|$)",
        "pages → components → figures → notation",
    ),
    (r"backend/core/", r"(fastapi|dash|plotly|sqlalchemy|typer|starlette)(\.|$)", "the science serves a notebook too"),
    (r"backend/core/", r"backend\.(atlas|live|routes|service|settings|schemas|client)", "the science knows no service"),
    (
        r"backend/core/(metrics|kernels)/",
        r"(transformers|transformer_lens|pathlib)(\.|$)",
        "metrics are tensors to tensors",
    ),
    (
        r"backend/core/metrics/",
        r"backend\.core\.(?!(metrics|errors|neurons|models\.readout)(\.|$))",
        "metrics define: kernels compute them",
    ),
    (
        r"backend/core/kernels/",
        r"backend\.core\.(?!(metrics|kernels|errors|neurons|toolchain|models\.readout)(\.|$))",
        "kernels are handed tensors, no model",
    ),
    (r"backend/core/models/readout\.py", r"backend(\.|$)", "the readout is data, below metrics and kernels"),
    (
        r"backend/core/models/",
        r"backend\.core\.(kernels|interventions|induction)(\.|$)",
        "models are below what uses them",
    ),
    (r"backend/atlas/", r"(torch|fastapi|dash)(\.|$)", "the atlas holds arrays, not tensors"),
    (r"backend/routes/", r"(torch|sqlalchemy|transformers|transformer_lens)(\.|$)", "routes parse, call, answer"),
    (r"", r"(pickle|cPickle|_pickle|dill|joblib|marshal|shelve|cloudpickle)(\.|$)", "nothing is unpickled"),
    (r"(?!backend/atlas/)", r"(sqlalchemy|alembic)(\.|$)", "SQL lives in the atlas"),
    (r"backend/live/", r"backend\.(routes|requests|answers|atlas|schemas|service|client)", "answers → live → core"),
    (r"backend/answers/", r"backend\.(routes|requests|service|client)", "routes → answers → live, atlas"),
    (r"backend/requests/", r"backend\.(routes|answers|service|client)", "routes → requests → live, atlas"),
    (r"backend/atlas/", r"backend\.(routes|requests|answers|live|schemas|service|client)", "answers → atlas"),
    (r"backend/(schemas/|glossary\.py)", r"backend\.(?!glossary$|schemas(\.|$))", "the contract depends on nothing"),
]


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            # `from backend import schemas` imports backend.schemas
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "backend")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    for where, what, because in RULES:
        if re.match(where, place):
            wrong = [name for name in _imports(path) if re.match(what, name)]
            assert not wrong, f"{place} imports {wrong}: {because}"


@pytest.mark.parametrize(("where", "what", "_because"), RULES)
def test_a_rule_covers_some_files(where: str, what: str, _because: str) -> None:
    """A rule for a folder that was renamed, or whose pattern is mistyped, would hold for ever."""
    assert [path for path in FILES if re.match(where, path.relative_to(ROOT).as_posix())]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("backend/service.py", "import precompute.pipeline as p"),
        ("precompute/worker.py", "from app import dashboard"),
        ("app/pages/lab/page.py", "def f():\n    import torch"),
        ("app/pages/lab/page.py", "from backend import core"),
        ("app/dashboard.py", "from backend.atlas.store import Atlas"),
        ("backend/core/models/analysis_model.py", "from fastapi import HTTPException"),
        ("backend/core/models/traced_text.py", "from backend.atlas import store"),
        ("backend/core/metrics/frequency.py", "from backend.core.kernels.problem import TILE"),
        ("backend/core/metrics/precision.py", "from backend.core.models.analysis_model import AnalysisModel"),
        ("backend/core/kernels/engine.py", "from backend.core.models.analysis_model import AnalysisModel"),
        ("backend/core/models/readout.py", "from backend.core.metrics.effects import Effects"),
        ("backend/core/models/traced_text.py", "from backend.core.kernels.problem import Before"),
        ("backend/atlas/store.py", "import torch.nn"),
        ("backend/routes/texts.py", "from sqlalchemy.orm import Session"),
        ("backend/live/engine.py", "import sqlalchemy as sa"),
        ("backend/core/models/sources.py", "import pickle as p"),
    ],
)
def test_a_broken_rule_is_noticed(place: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(line)
    assert any(re.match(where, place) and re.match(what, name) for where, what, _ in RULES for name in _imports(file))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_written_out(path: Path) -> None:
    """An import by a string would pass under the rules."""
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert not calls & {"__import__", "importlib.import_module", "import_module"}


def test_importing_every_module_reaches_no_network_and_writes_nothing(tmp_path: Path) -> None:
    names = [path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in FILES]
    names = [name.removesuffix(".__init__") for name in names if ".migrations" not in name and "__main__" not in name]
    check = (
        "import importlib, socket\n"
        "def refuse(*_, **__): raise SystemExit('an import opened a connection')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-B", "-c", check]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not [path for path in tmp_path.rglob("*") if "calibroscope" in path.name or path.suffix == ".db"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_untrusted_is_unpickled_or_executed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "yaml.load", "np.load"}
    assert "trust_remote_code=True" not in path.read_text()
    assert "dangerously_allow_html" not in path.read_text()


def _drawing_calls(path: Path) -> Iterator[tuple[str, str]]:
    """What draws a figure in a browser, with the configuration that it is given."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and re.search(r"(\bGraph|\bto_html|\bwrite_html)$", ast.unparse(node.func)):
            given = {one.arg: ast.unparse(one.value) for one in node.keywords}
            yield ast.unparse(node.func), given.get("config", "")


def test_every_figure_is_drawn_in_the_house_configuration() -> None:
    """Plotly's own uploads a figure at a click, links to its maker, and may do more in its next version."""
    drawn = {path.relative_to(ROOT).as_posix(): list(_drawing_calls(path)) for path in FILES}
    wrong = [
        (place, call, config)
        for place, calls in drawn.items()
        for call, config in calls
        if not (
            config == "GRAPH_CONFIG" or (place, call, config) == ("app/components/layout.py", "dcc.Graph", "config")
        )
    ]
    assert not wrong, "draw it with app.components.layout.graph, or give it app.figures.theme.GRAPH_CONFIG"
    assert sum(map(len, drawn.values())) >= 3


@pytest.mark.parametrize(
    "module", ["app.dashboard", "app.pages.lab.page", "backend.client", "app.cli", "backend.core.metrics.jackknife"]
)
def test_importing_the_app_loads_no_model_library(module: str) -> None:
    check = f"import sys, {module}; print([m for m in ('torch', 'transformer_lens', 'sqlalchemy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_every_class_name_has_one_home() -> None:
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
    assert len(homes) > 100


LEANING = (
    r"^(The same\b|…|\.\.\.|As `|As in\b|Like\b|Likewise\b|Also\b)"
    r"|\b(SPEC|likewise|ditto|(as|like|see) above|as before)\b"
)
"""What a docstring says that cannot be read by itself, or that cites what is not in the repository."""


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            written = ast.get_docstring(node)
            if written is not None:
                yield getattr(node, "name", "the module"), written
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield f"line {node.lineno}", node.value.value  # below a field or a constant


def test_docstrings_stand_alone() -> None:
    files = [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]
    written = [(path, *one) for path in files for one in _docstrings(ast.parse(path.read_text()))]
    wrong = [
        f"{path.relative_to(ROOT)}: {name}: {text[:60]}" for path, name, text in written if re.search(LEANING, text)
    ]
    assert wrong == []
    assert len(written) > 1000


@pytest.mark.parametrize("leaning", ["The same of a neuron.", "… and more", "As `frozen`, but not", "Rows, likewise."])
def test_a_docstring_that_leans_is_noticed(leaning: str) -> None:
    _, text = next(_docstrings(ast.parse(f"def f():\n    '''{leaning}'''")))
    assert re.search(LEANING, text)


def test_hook_points_are_named_in_one_place() -> None:
    named = r"['\"](\{\w+\})?blocks\.|\.hook_\w+['\"]"
    assert re.search(named, (ROOT / "backend/core/models/hook_points.py").read_text())
    places = [path.relative_to(ROOT).as_posix() for path in FILES if re.search(named, path.read_text())]
    assert places == ["backend/core/models/hook_points.py"]


def test_a_pages_scripts_use_what_all_share_and_no_other_pages() -> None:
    """Scripts share one namespace, that of the window: who uses whom is seen from the names."""
    homes: dict[str, str] = {}
    uses: list[tuple[str, str, str]] = []
    for path in sorted((ROOT / "static").glob("*.js")):
        room = re.match(r"base_|shell_|page_[a-z]+", path.stem)
        assert room, f"static/{path.name} is for all pages (base_, shell_) or for one (page_)"
        written = path.read_text()
        homes |= dict.fromkeys(re.findall(r"window\.(calibroscope\w+) = ", written), room[0])
        uses += [(path.name, room[0], used) for used in set(re.findall(r"window\.(calibroscope\w+)", written))]
    above = {"base_": {"base_"}, "shell_": {"base_", "shell_"}}
    wrong = [
        (name, used) for name, room, used in uses if homes.get(used) not in above.get(room, {"base_", "shell_", room})
    ]
    assert wrong == []
    assert len(homes) > 15
