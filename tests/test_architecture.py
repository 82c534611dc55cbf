"""The layout is a promise: one direction of imports, one user of each library, no torch to read a run, small pieces."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "profiler").rglob("*.py"))
LONGEST_FUNCTION, LARGEST_ROOM = 60, 14
HEAVY = ("torch", "transformers", "transformer_lens", "datasets")
USERS = {
    "transformer_lens": {
        "model/load.py",
        "model/steps/as_network.py",
        "bench/patching.py",  # beside ours
        "bench/script.py",  # as a user would write it
    },
    "ray": {"recording/ray/engine.py"},
    "datasets": {
        "text/corpus/stream.py",  # shuffles
        "text/corpus/hub.py",  # reads the hub
        "cli/terminal/libraries.py",  # the command line only silences its progress bars
    },
}
WRITERS = {
    "recording/write.py",  # the pass
    "behaviours/additions.py",  # what a user adds to a finished run: classes, behaviours
    "behaviours/views.py",
    "patching/experiment_store.py",  # patching and circuits, beside the tables of the pass
    "effects/store.py",  # total effects
    "generality/store.py",  # checks, the role catalogue and predictions
}
WRITES = ("INSERT", "CREATE TABLE", "COMMENT ON", "ATTACH", "UPDATE ", "DELETE ")
READERS = (
    "profiler",
    "profiler.database.query",
    "profiler.run",
    "profiler.reading",
    "profiler.results",
    "profiler.pages.build",
    "profiler.pages.site",
    "profiler.database.assets",
    "profiler.model.components",
    "profiler.generality.role_catalogue",
)


def name(file: Path) -> str:
    return file.relative_to(ROOT / "profiler").as_posix()


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(module: ast.AST) -> set[str]:
    """Top-level names of everything a module imports, inside functions too."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def code_lines(function: ast.AST) -> int:
    """Lines with code: no docstring, comment or blank line."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return len({node.lineno for statement in body for node in ast.walk(statement) if hasattr(node, "lineno")}) + 1


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in memory after a statement, in a process of its own."""
    script = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.split())


def test_imports_go_one_way():
    """The contracts of pyproject.toml, [tool.importlinter]."""
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("import-linter is not installed (pip install import-linter)")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=lambda arguments: arguments[0])
def test_the_linter_has_nothing_to_say(arguments):
    """The rules of pyproject.toml, [tool.ruff], over all Python files, and its formatter."""
    program = Path(sys.executable).with_name("ruff")
    if not program.exists():
        pytest.skip("ruff is not installed (pip install ruff)")
    done = subprocess.run([program, *arguments, "--no-cache", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_types_hold_strictly(tmp_path):
    """[tool.mypy] of pyproject.toml, over the whole package."""
    pytest.importorskip("mypy", reason="mypy is not installed (pip install 'generality-profiler[test]')")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), str(ROOT / "profiler")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_classes_have_one_name():
    classes = Counter(node.name for file in FILES for node in ast.walk(tree(file)) if isinstance(node, ast.ClassDef))
    assert {name: n for name, n in classes.items() if n > 1} == {}


@pytest.mark.parametrize("library", list(USERS))
def test_a_library_has_one_user(library):
    assert {name(file) for file in FILES if library in imported(tree(file))} <= USERS[library]


def test_one_module_opens_duckdb():
    """So that no connection to a run file is open to other files; sql of a user's is run there too."""
    for file in FILES:
        called = {ast.unparse(node.func) for node in ast.walk(tree(file)) if isinstance(node, ast.Call)}
        assert "duckdb.connect" not in called or name(file) == "database/connections.py", name(file)
        assert not called & {"duckdb.sql", "duckdb.query", "duckdb.execute", "connect"}, name(file)


def test_models_are_loaded_in_few_places():
    """By the loader that looks at a model's files first; the bundled model needs none."""
    loaders = {
        "model/weight_files.py",
        "bundled/training/export.py",
        "bundled/training/train.py",
        "actions.py",
        "bench/shapes.py",
    }
    users = {name(file) for file in FILES if ".from_pretrained(" in file.read_text(encoding="utf-8")}
    assert users <= loaders, users - loaders
    for file in ("actions.py", "bench/shapes.py"):
        calls = [
            ast.unparse(n)
            for n in ast.walk(tree(ROOT / "profiler" / file))
            if isinstance(n, ast.Call) and ast.unparse(n.func).endswith("from_pretrained")
        ]
        assert all("BUNDLED" in call for call in calls), calls


def test_few_modules_write_duckdb():
    users = [file for file in FILES if "duckdb" in imported(tree(file)) and name(file) not in WRITERS]
    assert users
    for file in users:
        strings = [n.value for n in ast.walk(tree(file)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        writing = [text for text in strings for word in WRITES if text.lstrip().startswith(word)]
        assert not [text for text in writing if not text.endswith("(READ_ONLY)")], name(file)


@pytest.mark.parametrize("module", READERS)
def test_reading_a_run_loads_no_model_library(module):
    loaded = loaded_after(f"import {module}")
    assert "profiler" in loaded
    assert not loaded & set(HEAVY)


def test_the_check_of_loaded_modules_sees_what_is_loaded():
    """The test of the test: a module that needs torch is seen to load it."""
    assert "torch" in loaded_after("import profiler.recording.accumulators.bins")


def test_every_public_name_is_there():
    import profiler

    assert all(callable(getattr(profiler, name)) for name in profiler.PUBLIC)
    assert set(profiler.__all__) == {"__version__", *profiler.PUBLIC}
    assert profiler.__version__[0].isdigit()


def test_importing_the_package_is_light():
    assert not loaded_after("import profiler") & {"duckdb", "polars", "altair", "numpy", *HEAVY}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_module_is_small_and_says_what_it_is(file):
    text = file.read_text(encoding="utf-8")
    if not text.strip():
        return
    module = ast.parse(text)
    assert ast.get_docstring(module), "no module docstring"
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {f.name: code_lines(f) for f in functions if code_lines(f) > LONGEST_FUNCTION} == {}


def test_no_room_is_a_dumping_ground():
    rooms = Counter(file.parent for file in FILES if file.name not in ("__init__.py", "__main__.py"))
    assert {str(room): n for room, n in rooms.items() if n > LARGEST_ROOM} == {}


def test_code_lines_are_counted_without_docstring_comments_and_blanks():
    source = 'def f(x):\n    """Text.\n\n    More."""\n    # comment\n\n    y = (\n        x\n    )\n    return y\n'
    assert code_lines(ast.parse(source).body[0]) == 4
    assert code_lines(ast.parse("def f():\n" + "    a = 1\n" * 60).body[0]) == LONGEST_FUNCTION + 1


def test_the_direction_of_a_logit_is_defined_once() -> None:
    """A row of the unembedding less the mean row, through the final norm: of a model in `direct`, of a network of plain
    tensors in `network`, both by `norms.before_norm`."""
    own = {"model/direct.py", "model/steps/modules.py", "model/steps/plain.py", "model/norms.py"}
    written = re.compile(r"unembed(_mean|\.mean)|norm_final\.(weight|gain)\b")
    elsewhere = [
        f"{path.relative_to(ROOT / 'profiler')}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if written.search(line) and str(path.relative_to(ROOT / "profiler")) not in own
    ]
    assert elsewhere == []


def test_no_module_is_a_piece_cut_off_another() -> None:
    """A module that begins with a sibling's name and is imported by that sibling alone was split by length, not by
    topic."""
    importers: dict[str, set[str]] = {}
    for path in FILES:
        importer = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    importers.setdefault(name, set()).add(importer)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    importers.setdefault(alias.name, set()).add(importer)
    cut = []
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for sibling in path.parent.glob("*.py"):
            whole = ".".join(sibling.relative_to(ROOT).with_suffix("").parts)
            if path.stem.startswith(f"{sibling.stem}_") and importers.get(name) == {whole}:
                cut.append(f"{name} of {whole}")
    assert cut == []
