"""The view `behaviour_rows` of a run, generated from its tables, and the tables filled for a new run.

The view has a row per component, kept row and behaviour, and says whether the behaviour holds there. Its conditions are
the text of table `behaviours`; each was checked (profiler.behaviours.expressions) before it went in. Heads stand on the
uniform sample, neurons on those and their stratified samples together, with weights. One CASE per row, chosen by number: a filter on
component or behaviour goes below it, so a query pays for what it asks.
"""

from duckdb import DuckDBPyConnection as Connection

from profiler.behaviours.expressions import wrapped
from profiler.behaviours.library import USER_PRIORITY, Behaviour, library, of_property
from profiler.behaviours.properties import PROPERTIES, Property
from profiler.store_comments import comment_statements

COLUMNS = "component kind layer position_id doc_id group_id domain weight activation dla".split()
HEADER = """-- View: behaviour_rows
-- One row per head x position of the uniform sample x behaviour, and per neuron x position of its pooled samples x
--   behaviour: whether the behaviour holds. sum(weight * x) estimates the sum of x over all ordinary positions.
-- component: label
-- kind: head or neuron
-- layer: layer
-- position_id: position
-- doc_id: document
-- group_id: replicate group of the document
-- domain: domain of the document
-- weight: how many positions of the corpus the row stands for
-- activation: activation there
-- dla: DLA there, logits
-- behaviour: name
-- family: attention, effect, context, token, next or user
-- priority: order in which a mixture hands out positions; NULL takes no part unless asked for
-- holds: whether the behaviour holds there; NULL where it cannot be told (loss and entropy are kept for dense rows only)
"""


def install(connection: Connection, user: tuple[Property, ...] = ()) -> None:
    """Fill properties and behaviours of a run whose vocabulary and views are there, and create `behaviour_rows`.

    Args:
        user: properties of the user's own, already checked.

    Raises:
        duckdb.Error: a condition does not bind.
    """
    rows = [(p.name, p.description, p.condition, p in user) for p in (*PROPERTIES, *user)]
    connection.executemany("INSERT INTO properties VALUES (?, ?, ?, ?)", rows)
    conditions = ", ".join(f"CASE WHEN {wrapped(p.condition)} THEN '{p.name}' END" for p in (*PROPERTIES, *user))
    connection.execute(f"""INSERT INTO token_property_lists
        SELECT token_id, CASE WHEN special THEN [] ELSE list_filter([{conditions}], lambda p: p IS NOT NULL) END
        FROM token_texts ORDER BY token_id""")
    insert(connection, library())
    insert(connection, tuple(b for p in user for b in of_property(p.name, p.description, USER_PRIORITY)), user=True)
    refresh(connection)
    _inherit_comments(connection)


def _inherit_comments(connection: Connection) -> None:
    """Columns that head_facts and neuron_facts take over from position_facts say the same there."""
    rows = connection.execute("""SELECT c.table_name, c.column_name, p.comment FROM duckdb_columns() c
        JOIN duckdb_columns() p ON p.table_name = 'position_facts' AND p.column_name = c.column_name
        WHERE c.table_name IN ('head_facts', 'neuron_facts') AND c.comment IS NULL""").fetchall()
    for view, column, comment in rows:
        text = comment.replace("'", "''")
        connection.execute(f"COMMENT ON COLUMN {view}.\"{column}\" IS '{text}'")


def insert(connection: Connection, behaviours: tuple[Behaviour, ...], user: bool = False) -> None:
    """Append to table `behaviours`, numbered on."""
    if not behaviours:
        return
    first = connection.execute("SELECT coalesce(max(behaviour_id) + 1, 0) FROM behaviours").fetchall()[0][0]
    rows = [
        (first + i, b.name, b.family, b.kind, b.condition, b.description, b.priority, user)
        for i, b in enumerate(behaviours)
    ]
    connection.executemany("INSERT INTO behaviours VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def refresh(connection: Connection) -> None:
    """Create the view anew from table `behaviours`."""
    rows = connection.execute("SELECT behaviour_id, kind, condition FROM behaviours ORDER BY behaviour_id").fetchall()
    connection.execute(view_text(rows))
    for statement in comment_statements(HEADER + "CREATE VIEW behaviour_rows AS SELECT 1;"):
        connection.execute(statement)


def view_text(rows: list[tuple[int, str, str]]) -> str:
    """The CREATE VIEW statement for behaviours given as (number, kind, condition)."""
    halves = "\nUNION ALL\n".join(_half(rows, kind) for kind in ("head", "neuron"))
    return f"CREATE OR REPLACE VIEW behaviour_rows AS\n{halves}"


def _half(rows: list[tuple[int, str, str]], kind: str) -> str:
    cases = " ".join(
        f"WHEN {number} THEN {wrapped(condition)}" for number, of, condition in rows if of in (kind, "both")
    )
    columns = ", ".join(f"f.{name}" for name in COLUMNS)
    return f"""SELECT {columns}, b.behaviour, b.family, b.priority, CASE b.behaviour_id {cases} END AS holds
FROM {kind}_facts f CROSS JOIN behaviours b WHERE b.kind IN ('{kind}', 'both')"""
