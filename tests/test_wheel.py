"""The wheel holds what a user needs: code, SQL, templates, queries, reports and the bundled model; and nothing large
else."""

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling, which builds the wheel, is not installed")


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = builder.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    assert Path(wheel).stat().st_size < 20_000_000
    return set(zipfile.ZipFile(wheel).namelist())


def test_queries_and_reports_are_inside(names):
    for folder, pattern in (("queries", "*.sql"), ("reports", "*.py")):
        files = {file.name for file in (ROOT / folder).glob(pattern)}
        assert files
        assert {f"profiler/_{folder}/{name}" for name in files} <= names


def test_everything_the_package_reads_is_inside(names):
    wanted = [
        file
        for pattern in ("*.sql", "*.jinja", "*.css", "*.js", "*.yaml")
        for file in (ROOT / "profiler").rglob(pattern)
    ]
    wanted += [
        ROOT / "profiler" / "bundled" / name
        for name in ("config.json", "model.safetensors", "tokenizer.json", "card.md")
    ]
    assert {file.relative_to(ROOT).as_posix() for file in wanted} <= names


def test_no_tests_inside(names):
    assert not [name for name in names if name.startswith("tests")]
