"""Total effects into a run, in one transaction. Cost: the size of the tables."""

import json
import re
from pathlib import Path

import polars as pl

from profiler.database import connections, faults
from profiler.database.assets import package_file
from profiler.database.comments import comment_statements
from profiler.database.transaction import writing
from profiler.effects.settings import EffectSettings
from profiler.patching.experiment_store import now


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
    with writing(path) as connection:
        connection.execute(text.replace("CREATE TABLE", "CREATE OR REPLACE TABLE"))
        for statement in comment_statements(sql_text()):
            connection.execute(statement)
        for table, frame in frames.items():
            if frame.height:
                connection.register("rows_to_write", frame.to_arrow())
                connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows_to_write")
                connection.unregister("rows_to_write")
    with faults.faults_told(f"closing {path}", "What was written is in it."), connections.writing(path) as connection:
        connection.execute("CHECKPOINT")
