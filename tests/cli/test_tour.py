"""The notebook of docs/ runs as it is: its code cells in order, in a process of its own, without Jupyter."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
SHOW = """
def show(value):
    for name in ("_repr_mimebundle_", "_repr_html_"):
        if hasattr(value, name):
            getattr(value, name)()
            break
    else:
        repr(value)
"""


def cells() -> list[str]:
    """The source of each code cell."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shown(source: str) -> str:
    """The cell with its last expression shown, as a notebook shows it."""
    module = ast.parse(source)
    last = module.body[-1] if module.body else None
    if isinstance(last, ast.Expr):
        module.body[-1] = ast.Expr(ast.Call(ast.Name("show", ast.Load()), [last.value], []))
    return ast.unparse(ast.fix_missing_locations(module))


def test_the_notebook_uses_the_library_alone():
    imported = set()
    for node in ast.walk(ast.parse("\n".join(cells()))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported == {"profiler", "pathlib", "tempfile"}


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    script = "\n".join([SHOW, *map(shown, cells()), "print('the end')"])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("the end")


def test_the_notebook_holds_no_outputs():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
