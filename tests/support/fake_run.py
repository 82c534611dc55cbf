"""A small complete run file whose raw values are known, for tests of views, queries, `Run` and reports.

`build(path)` draws the activation and the DLA of every component at every position from a seeded generator, fills every
table of schema.sql from these arrays with plain numpy and polars (none of the recorder's code), and returns them, so
that a test can recompute any answer by brute force. Special positions carry wild values (1e4): whoever forgets to
leave them out gets an answer that is far off. The texts of the tokens are nasty on purpose.

Run as a script it writes a file to look at: `python tests/fake_run.py fake.duckdb`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

__all__ = ["BUCKETS", "CLASSES", "DOMAINS", "FakeRun", "bin_of", "build", "make_samples", "write"]

ROOT = Path(__file__).resolve().parents[2]
DERIVED = (
    "properties",
    "token_property_lists",
    "behaviours",
    "uniform_marks",
    "layer_coverages",
    "component_importance",
)
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fake_tables import bin_of, make_samples, make_tables  # noqa: E402
from fake_values import (  # noqa: E402
    BUCKETS,
    CLASSES,
    DOMAINS,
    cut_windows,
    make_components,
    make_documents,
    make_positions,
    make_values,
)

from profiler.behaviours import views as behaviour_views  # noqa: E402
from profiler.database.comments import comment_statements  # noqa: E402


@dataclass(frozen=True)
class FakeRun:
    """A run file and the raw values behind it.

    `activation` and `dla` are float64 [component, position] and hold values that float32 holds exactly. `positions` has
    a row per position in the same order (class, next_class, bucket, group_id, domain, special, dense, ...);
    `components` a row per component (component_id, component, kind, layer, unit).
    """

    path: Path
    activation: np.ndarray
    dla: np.ndarray
    positions: pl.DataFrame
    components: pl.DataFrame
    tables: dict[str, pl.DataFrame]

    @property
    def ordinary(self) -> np.ndarray:
        """bool [position]: true where the position is not special."""
        return self.positions["special"].is_null().to_numpy()

    def row(self, component: str) -> int:
        """Index of `component` in the arrays."""
        return self.components["component"].to_list().index(component)


def write(path: Path, tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Create the file as the store does: schema, rows sorted by component, views, comments; all its tables."""
    schema, macros, views = (
        ROOT / "profiler" / "database" / name for name in ("schema.sql", "macros.sql", "views.sql")
    )
    path.unlink(missing_ok=True)
    con = duckdb.connect(str(path), config={"storage_compatibility_version": "v1.2.0"})
    con.execute(schema.read_text(encoding="utf-8"))
    for name, frame in tables.items():
        keys = [c for c in ("component_id", "axis", "class_id", "bin", "position_id") if c in frame.columns]
        con.register(
            "incoming", (frame.sort(keys, maintain_order=True) if keys and name != "tokens" else frame).to_arrow()
        )
        con.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
        con.unregister("incoming")
    con.execute(macros.read_text(encoding="utf-8"))
    con.execute(views.read_text(encoding="utf-8"))
    for statement in [s for file in (schema, views) for s in comment_statements(file.read_text(encoding="utf-8"))]:
        con.execute(statement)
    behaviour_views.install(con)
    behaviour_views.refresh(con)
    added = {name: con.sql(f"SELECT * FROM {name}").pl() for name in DERIVED}
    con.close()
    return tables | added


def build(
    path: Path | str,
    *,
    seed: int = 0,
    n_layers: int = 2,
    n_heads: int = 2,
    d_mlp: int = 6,
    n_documents: int = 60,
    n_dense: int = 80,
    per_bin: int = 8,
    n_extremes: int = 10,
    n_domains: int = 2,
    n_groups: int = 4,
    has_totals: bool = True,
) -> FakeRun:
    """Write a complete run to `path` and return it with its raw values; `n_groups` replicate groups per domain;
    `has_totals`: total effects were measured."""
    rng = np.random.default_rng(seed)
    components = make_components(n_layers, n_heads, d_mlp)
    documents = make_documents(rng, n_documents, n_domains, n_groups)
    windows = cut_windows(documents)
    positions = make_positions(rng, windows, n_dense)
    activation, dla = make_values(rng, components, positions)
    shape = (n_layers, n_heads, d_mlp)
    tables = make_tables(rng, activation, dla, positions, components, documents, windows, shape, per_bin, n_extremes)
    if not has_totals:
        tables["dense_rows"] = tables["dense_rows"].drop("total")
        del tables["total_sums"]
    return FakeRun(Path(path), activation, dla, positions, components, write(Path(path), tables))


if __name__ == "__main__":
    built = build(Path(sys.argv[1] if len(sys.argv) > 1 else "fake.duckdb"))
    print(f"{built.path}: {len(built.components)} components, {int(built.ordinary.sum())} ordinary positions")
