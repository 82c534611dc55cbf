"""The view `behaviour_rows` of a run, generated from its tables, and the tables filled for a new run.

What is derived (DERIVED and the three views) is absent from a run until it is made, never empty: a query that needs it
fails and says so, and gives no wrong answer.

The view has a row per component, kept row and behaviour, and says whether the behaviour holds there. Its conditions are
the text of table `behaviours`; each was checked (profiler.behaviours.expressions) before it went in, and what stands in
a file is checked again before it is used, unless it is the library's own text. Heads stand on the uniform sample,
neurons on those and their stratified samples together, with weights. One CASE per row, chosen by number: a filter on
component or behaviour goes below it, so a query pays for what it asks.
"""

import re

from duckdb import BinderException
from duckdb import DuckDBPyConnection as Connection

from profiler.behaviours.expressions import FACTS, check_condition, wrapped
from profiler.behaviours.library import USER_PRIORITY, Behaviour, library, of_property
from profiler.behaviours.token_properties import PROPERTIES, Property
from profiler.database import upgrade
from profiler.database.assets import package_file
from profiler.database.comments import comment_statements
from profiler.errors import QueryError

OF_POSITION = "position_id doc_id group_id domain".split()
COLUMNS = ("component kind layer position_id doc_id group_id domain weight activation dla total").split()
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
-- total: total effect of what it did there, logits; NULL where it was not measured
-- behaviour: name
-- family: attention, effect, context, token, next or user
-- priority: order in which a mixture hands out positions; NULL takes no part unless asked for
-- holds: whether the behaviour holds there; NULL where it cannot be told (loss and entropy are kept for dense rows
--   only)
"""
ATTENDING = """(
SELECT components.component, components.kind, components.layer, uniform_marks.position_id, uniform_marks.doc_id
    , uniform_marks.group_id, uniform_marks.domain, size.weight, dense_rows.activation, dense_rows.dla
    , dense_rows.total
    , attention.previous_token, attention.two_back, attention.first_token, attention.self, attention.induction
    , attention.prefix_induction, attention.duplicate, attention.newline, attention.delimiter
    , attention.entropy AS attention_entropy, attention.top_offset, attention.top_weight, attention.dla_to_attended
    , attention.sink
FROM head_attention_rows AS attention
JOIN components USING (component_id)
JOIN dense_rows
    ON dense_rows.component_id = components.component_id AND dense_rows.position_id = attention.position_id
JOIN uniform_marks ON uniform_marks.position_id = attention.position_id
CROSS JOIN (
    SELECT (SELECT n_positions FROM runs) / nullif((SELECT count(*) FROM uniform_marks), 0) AS weight
) AS size)"""
COVERAGES = package_file("behaviours/coverages.sql")
DERIVED = ("uniform_marks", "layer_coverages")
"""Tables that `refresh` fills from the others."""
LAST = "behaviour_marks"
"""What `refresh` leaves, in one transaction with all the rest: a run that has it has everything that is derived."""
MARKS = (
    HEADER.replace("behaviour_rows", "behaviour_marks")
    .replace(
        "whether the behaviour holds. sum(weight * x)",
        "but only where the behaviour holds or cannot be told: behaviour_rows without its many false ones, and quicker."
        " sum(weight * x)",
    )
    .replace("-- behaviour: name\n", "-- behaviour_id: number in table behaviours\n-- behaviour: name\n")
)
POSITIONS = """-- View: position_marks
-- One row per kept ordinary position x behaviour that is about the position alone: whether it holds there, whatever the
--   component.
-- position_id: position
-- behaviour_id: number in table behaviours
-- holds: whether the behaviour holds there; NULL where it cannot be told
"""
UNIFORM = f"""SELECT {", ".join(f"{'marked' if name in OF_POSITION else 'uniform_rows'}.{name}" for name in COLUMNS)}
    , marked.mark
FROM uniform_rows
JOIN (SELECT position_id, doc_id, group_id, domain, unnest(marks) AS mark FROM uniform_marks) AS marked
    ON marked.position_id = uniform_rows.position_id"""


def install(connection: Connection, user: tuple[Property, ...] = ()) -> None:
    """Fill properties and behaviours of a run whose vocabulary and views are there.

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
            , token, class FROM token_texts JOIN tokens USING (token_id) ORDER BY token_id""")
    insert(connection, library())
    insert(connection, tuple(b for p in user for b in of_property(p.name, p.description, USER_PRIORITY)), user=True)
    _inherit_comments(connection)


def _inherit_comments(connection: Connection) -> None:
    """Columns that head_facts and neuron_facts take over from position_facts say the same there."""
    rows = connection.execute("""SELECT facts.table_name, facts.column_name, positions.comment
        FROM duckdb_columns() AS facts
        JOIN duckdb_columns() AS positions
            ON positions.table_name = 'position_facts' AND positions.column_name = facts.column_name
        WHERE facts.table_name IN ('head_facts', 'neuron_facts') AND facts.comment IS NULL""").fetchall()
    for view, column, comment in rows:
        text = comment.replace("'", "''")
        connection.execute(f"COMMENT ON COLUMN {view}.\"{column}\" IS '{text}'")


def insert(connection: Connection, behaviours: tuple[Behaviour, ...], *, user: bool = False) -> None:
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
    """Rebuild the views from table `behaviours`, and fill the tables derived from them.

    These are uniform_marks, which behaviours hold at the uniform sample of those that are about positions alone, and
    layer_coverages, what behaviours cover of the components that others are compared with.
    """
    upgrade.bring_up_to_date(connection)
    _create_missing(connection)
    rows = _stored(connection)
    shared = [row for row in rows if row[1] == "both" and of_position(connection, row[2])]
    connection.execute("DELETE FROM uniform_marks")
    connection.execute(f"""INSERT INTO uniform_marks SELECT position_id, doc_id, group_id, domain, {_marks(shared)}
        FROM position_facts WHERE dense ORDER BY position_id""")
    connection.execute(view_text(rows))
    light = [row for row in rows if row[1] == "head" and of_attention(connection, row[2])]
    connection.execute(marks_text(rows, shared, light))
    connection.execute(positions_text(shared))
    views = {"behaviour_rows": HEADER, "behaviour_marks": MARKS, "position_marks": POSITIONS}
    described = "\n".join(f"{text}CREATE VIEW {name} AS SELECT 1;" for name, text in views.items())
    for statement in comment_statements(described):
        connection.execute(statement)
    connection.execute(COVERAGES.read_text(encoding="utf-8"))


def _stored(connection: Connection) -> list[tuple[int, str, str]]:
    """Number, kind and condition of each behaviour of a run, by number; all three become text of a statement.

    Raises:
        QueryError: one cannot be used.
    """
    rows = connection.execute("SELECT behaviour_id, kind, condition FROM behaviours ORDER BY behaviour_id").fetchall()
    own = {(behaviour.kind, behaviour.condition) for behaviour in library()}
    for number, kind, condition in rows:
        if type(number) is not int or kind not in FACTS or not isinstance(condition, str):
            raise QueryError(
                f"behaviour {number!r} of kind {kind!r} in the run is none that the profiler wrote: it is not used"
            )
        for view in () if (kind, condition) in own else FACTS[kind]:
            check_condition(condition, view)
    return rows


def leave_out_derived(connection: Connection) -> None:
    """Take the empty derived tables out of a new run: `refresh` makes and fills them."""
    for table in DERIVED:
        connection.execute(f"DROP TABLE {table}")


def is_derived(connection: Connection) -> bool:
    """Whether a run has everything that is derived."""
    text = f"SELECT 1 FROM duckdb_views() WHERE view_name = '{LAST}'"
    tables = "SELECT count(*) FROM duckdb_tables() WHERE list_contains(?, table_name)"
    cursor = connection.cursor()
    views, n = cursor.execute(text).fetchall(), cursor.execute(tables, [list(DERIVED)]).fetchall()[0][0]
    cursor.close()
    return bool(views) and n == len(DERIVED)


def _create_missing(connection: Connection) -> None:
    """The derived tables, which a new run and one of an earlier version lack."""
    schema = package_file("database/schema.sql").read_text(encoding="utf-8")
    there = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    for table in set(DERIVED) - there:
        for text in re.findall(rf"CREATE TABLE {table} \(.*?^\);", schema, re.DOTALL | re.MULTILINE):
            for statement in (text, *comment_statements(text)):
                connection.execute(statement)


def of_position(connection: Connection, condition: str) -> bool:
    """Whether a condition is about the position alone, so the same for every component."""
    return _binds(connection, condition, "position_facts")


def of_attention(connection: Connection, condition: str) -> bool:
    """Whether a condition is about the head's attention and output alone, so that no texts need be looked up for it."""
    return _binds(connection, condition, ATTENDING)


def _binds(connection: Connection, condition: str, source: str) -> bool:
    try:
        connection.sql(
            f"SELECT {wrapped(condition)} FROM {source} LIMIT 0"
        )  # not a cursor, which does not see this transaction
    except BinderException:
        return False
    return True


def view_text(rows: list[tuple[int, str, str]]) -> str:
    """The CREATE VIEW statement of behaviour_rows for behaviours given as (number, kind, condition)."""
    halves = "\nUNION ALL\n".join(_half(rows, kind) for kind in ("head", "neuron"))
    return f"CREATE OR REPLACE VIEW behaviour_rows AS\n{halves}"


def positions_text(shared: list[tuple[int, str, str]]) -> str:
    """The CREATE VIEW statement of position_marks for the behaviours that are about positions alone."""
    cases = " ".join(f"WHEN {number} THEN {wrapped(condition)}" for number, _, condition in shared)
    numbers = ", ".join(str(number) for number, _, _ in shared)
    holds = f"CASE behaviours.behaviour_id {cases} END" if shared else "NULL::BOOLEAN"
    return f"""CREATE OR REPLACE VIEW position_marks AS
SELECT facts.position_id, behaviours.behaviour_id, {holds} AS holds
FROM position_facts AS facts CROSS JOIN behaviours WHERE behaviours.behaviour_id IN ({numbers or "NULL"})"""


def _half(rows: list[tuple[int, str, str]], kind: str) -> str:
    cases = " ".join(
        f"WHEN {number} THEN {wrapped(condition)}" for number, of, condition in rows if of in (kind, "both")
    )
    columns = ", ".join(f"facts.{name}" for name in COLUMNS)
    return f"""SELECT {columns}, behaviours.behaviour, behaviours.family, behaviours.priority
    , CASE behaviours.behaviour_id {cases} END AS holds
FROM {kind}_facts AS facts CROSS JOIN behaviours WHERE behaviours.kind IN ('{kind}', 'both')"""


def marks_text(
    rows: list[tuple[int, str, str]], shared: list[tuple[int, str, str]], light: list[tuple[int, str, str]]
) -> str:
    """The CREATE VIEW statement of behaviour_marks.

    Args:
        shared: the behaviours that are evaluated in table uniform_marks, once for all components.
        light: those of heads that need no texts: planning and joining these takes half of a query's time.
    """
    own = [row for row in rows if row not in shared]
    parts = [
        UNIFORM,
        _marked(light, "head", "true", ATTENDING),
        _marked([row for row in own if row not in light], "head", "true"),
        _marked(own, "neuron", "facts.uniform"),
        _marked(rows, "neuron", "NOT facts.uniform"),
    ]
    columns = ", ".join(f"marked.{name}" for name in COLUMNS)
    return f"""CREATE OR REPLACE VIEW behaviour_marks AS
SELECT {columns}, behaviours.behaviour_id, behaviours.behaviour, behaviours.family, behaviours.priority
    , CASE marked.mark % 3 WHEN 1 THEN true END AS holds
FROM ({" UNION ALL ".join(part for part in parts if part)}) AS marked
JOIN behaviours ON behaviours.behaviour_id = marked.mark // 3"""


def _marks(rows: list[tuple[int, str, str]]) -> str:
    """A list expression: 3 * number + 1 of each behaviour that holds, + 2 of each that cannot be told."""
    states = ", ".join(f"{3 * number} + coalesce({wrapped(condition)}::INTEGER, 2)" for number, _, condition in rows)
    return f"list_filter([{states}]::INTEGER[], lambda mark: mark % 3 > 0)"


def _marked(rows: list[tuple[int, str, str]], kind: str, which: str, source: str = "") -> str:
    """Rows of heads or neurons by what is known of the component there, in `source`."""
    of_kind = [row for row in rows if row[1] in (kind, "both")]
    if not of_kind:
        return ""
    return (
        f"SELECT {', '.join(f'facts.{name}' for name in COLUMNS)}, unnest({_marks(of_kind)}) AS mark FROM"
        f" {source or f'{kind}_facts'} AS facts WHERE {which}"
    )
