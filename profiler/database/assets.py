"""Where the query files and report generators are: beside the package in a checkout, inside it in a wheel.

`queries/` and `reports/` are top-level folders so that a user finds, reads and copies them; the wheel carries them as
`profiler/_queries` and `profiler/_reports` (pyproject.toml, force-include). An editable install copies them too, and
the copies go stale: a checkout's own folder, known by the pyproject.toml beside it, comes first.
"""

from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parents[1]


def folder(kind: Literal["queries", "reports"]) -> Path:
    """The folder of query files (.sql) or report generators (.py)."""
    checkout = PACKAGE.parent / kind
    if (PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return PACKAGE / f"_{kind}"


def package_file(name: str) -> Path:
    """A data file that lies in the package itself, such as schema.sql."""
    return PACKAGE / name
