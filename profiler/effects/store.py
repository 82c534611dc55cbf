"""Total effects into a run, in one transaction: tables of their own, and beside direct effects.

Beside these stand those of one method for each kind of component, the method that agrees best with ablations of it
(component_effects): at the positions of the uniform sample that were read (dense_rows.total) and in sums
(component_importance), so that whatever counts by importance can count by either. A run that was recorded with total
effects has these at every position, and keeps them. Cost: the size of the tables.
"""

import json
import re
from pathlib import Path

import polars as pl
from duckdb import DuckDBPyConnection as Connection

from profiler.behaviours import views as behaviour_views
from profiler.database import connections, faults, upgrade
from profiler.database.assets import package_file
from profiler.database.comments import comment_statements
from profiler.database.transaction import writing
from profiler.effects.settings import EffectSettings
from profiler.patching.experiment_store import now

ROWS, SUMS = "total_rows", "total_sums_by_method"
"""Frames that are no tables of their own: total effects at positions of the uniform sample, and rows of total_sums."""
BEST = """CREATE OR REPLACE TEMP TABLE best AS
SELECT DISTINCT ON (kind) components.kind, effect_totals.method
FROM effect_totals
JOIN components USING (component_id)
LEFT JOIN effect_reliability AS agreement
    ON agreement.method = effect_totals.method AND agreement.value = 'zero' AND agreement.kind = components.kind
        AND agreement.layer IS NULL
ORDER BY components.kind, agreement.error NULLS LAST, effect_totals.method = 'frozen'
    , effect_totals.method = 'gradient'"""
GIVE = """DELETE FROM total_sums;
UPDATE dense_rows SET total = NULL WHERE total IS NOT NULL;
INSERT INTO total_sums BY NAME
SELECT sums_by_method.* FROM sums_by_method JOIN components USING (component_id) JOIN best USING (kind, method)
ORDER BY component_id, group_id"""
GIVE_ROWS = """UPDATE dense_rows SET total = measured.total
FROM (FROM rows_by_method JOIN components USING (component_id) JOIN best USING (kind, method)) AS measured
WHERE measured.component_id = dense_rows.component_id AND measured.position_id = dense_rows.position_id"""
SUM_UP = """UPDATE component_importance SET n_total = NULL, sum_total = NULL, sum_abs_total = NULL
    , sum_abs_direct = NULL, sum_abs_through = NULL, method = NULL, error = NULL, reliable = NULL;
UPDATE component_importance SET n_total = totals.n_total, sum_total = totals.sum_total
    , sum_abs_total = totals.sum_abs_total, sum_abs_direct = totals.sum_abs_direct
    , sum_abs_through = totals.sum_abs_through, method = totals.method
FROM totals_of_components() AS totals WHERE totals.component_id = component_importance.component_id;
UPDATE component_importance SET error = agreement.error, reliable = agreement.reliable
FROM components, effect_reliability AS agreement
WHERE components.component_id = component_importance.component_id AND agreement.kind = components.kind
    AND agreement.layer = components.layer AND agreement.value = 'zero'
    AND agreement.method = component_importance.method"""


def sql_text() -> str:
    """The text of effects.sql."""
    return package_file("database/effects.sql").read_text(encoding="utf-8")


def tables() -> tuple[str, ...]:
    """Names of the tables of effects.sql, in its order."""
    return tuple(re.findall(r"^CREATE TABLE (\w+)", sql_text(), re.MULTILINE))


def write(path: Path, settings: EffectSettings, frames: dict[str, pl.DataFrame]) -> None:
    """Write the tables of a pass in the place of what an earlier one wrote.

    Raises:
        RunError: the file is no run, or open elsewhere.
        EngineError: DuckDB failed.
    """
    named = {"created": pl.lit(now()), "settings": pl.lit(json.dumps(settings.as_facts()))}
    frames = frames | {"effect_passes": frames["effect_passes"].with_columns(**named)}
    text = (
        sql_text().replace("CREATE MACRO", "CREATE OR REPLACE MACRO").replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
    )
    beside = {name: frame for name, frame in frames.items() if name in (ROWS, SUMS)}
    with writing(path) as connection:
        upgrade.bring_up_to_date(connection)
        connection.execute(text.replace("CREATE TABLE", "CREATE OR REPLACE TABLE"))
        for statement in comment_statements(sql_text()):
            connection.execute(statement)
        for table, frame in frames.items():
            if frame.height and table not in beside:
                connection.register("rows_to_write", frame.to_arrow())
                connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows_to_write")
                connection.unregister("rows_to_write")
        _stand_beside(connection, beside)
        behaviour_views.refresh(connection)
    with faults.faults_told(f"closing {path}", "What was written is in it."), connections.writing(path) as connection:
        connection.execute("CHECKPOINT")


def _stand_beside(connection: Connection, frames: dict[str, pl.DataFrame]) -> None:
    """Let total effects of the best method of each kind stand beside direct effects, and say how reliable they are."""
    (config,) = connection.execute("SELECT config FROM runs").fetchall()[0]
    if json.loads(config).get("effects", "none") == "none":
        connection.execute(BEST)
        connection.register("sums_by_method", frames[SUMS].to_arrow())
        connection.execute(GIVE)
        if ROWS in frames:
            connection.register("rows_by_method", frames[ROWS].to_arrow())
            connection.execute(GIVE_ROWS)
            connection.unregister("rows_by_method")
        connection.unregister("sums_by_method")
    connection.execute(SUM_UP)
    if behaviour_views.is_derived(connection):
        connection.execute("DELETE FROM layer_coverages")  # filled anew by `refresh`
