"""Comments of tables, views and their columns, read from the text of schema.sql and views.sql.

Why: the files are where the words are explained; the database must carry the same explanations (`duckdb_columns()`),
so that a user who has only the run can read what a column means. Both files are parsed, and nothing is written twice.

Tables: the text after `--` on the opening line and on each column's line; a line of nothing but a comment goes on with
it. Views: a block of comment lines above
`CREATE VIEW`, which begins with `-- View: name`, goes on with `-- One row per: ...` and has a `-- column: text` line
for each column; a line that begins with more than one blank continues the line before it.
"""

import re
from collections.abc import Iterator

_TABLE = re.compile(r"CREATE TABLE (\w+) \(\s*--\s*(.+)$")
_TABLE_COLUMN = re.compile(r'\s+("?\w+"?) [A-Z]\w*(?:\[\])?,?\s*--\s*(.+)$')
_TABLE_CONTINUED = re.compile(r"\s+-- (\S.*)$")
_VIEW = re.compile(r"-- View: (\w+)$")
_CONTINUED = re.compile(r"--\s{2,}(\S.*)$")
_VIEW_COLUMN = re.compile(r"-- ([a-z]\w*): (.+)$")
_VIEW_TEXT = re.compile(r"-- (.+)$")


def comment_statements(sql_text: str) -> list[str]:
    """`COMMENT ON` statements for everything that `sql_text` (schema.sql or views.sql) explains, in its order."""
    return [*_table_comments(sql_text), *_view_comments(sql_text)]


def _literal(text: str) -> str:
    return "'" + text.strip().replace("'", "''") + "'"


def _table_comments(sql_text: str) -> Iterator[str]:
    target, text = "", ""
    table: str | None = None
    for line in sql_text.splitlines():
        more = _TABLE_CONTINUED.match(line) if table else None
        if more:
            text += " " + more[1]
            continue
        if target:
            yield f"COMMENT ON {target} IS {_literal(text)}"
            target = ""
        if opening := _TABLE.match(line):
            table, target, text = opening[1], f"TABLE {opening[1]}", opening[2]
        elif line.startswith(");"):
            table = None
        elif table and (column := _TABLE_COLUMN.match(line)):
            target, text = f"COLUMN {table}.{column[1]}", column[2]


def _view_comments(sql_text: str) -> Iterator[str]:
    for view, lines in _view_blocks(sql_text):
        texts, columns = _split_block(lines)
        yield f"COMMENT ON VIEW {view} IS {_literal(' '.join(texts))}"
        for column, text in columns.items():
            yield f'COMMENT ON COLUMN {view}."{column}" IS {_literal(text)}'


def _view_blocks(sql_text: str) -> Iterator[tuple[str, list[str]]]:
    """Each view's name with the comment lines between its `-- View:` line and its first line of SQL."""
    view: str | None = None
    lines: list[str] = []
    for line in sql_text.splitlines():
        if name := _VIEW.match(line):
            view, lines = name[1], []
        elif view and line.startswith("--"):
            lines.append(line)
        elif view:
            yield view, lines
            view = None


def _split_block(lines: list[str]) -> tuple[list[str], dict[str, str]]:
    """Sentences about the view itself, and the text of each column."""
    texts: list[str] = []
    columns: dict[str, str] = {}
    last = None
    for line in lines:
        if continued := _CONTINUED.match(line):
            if last is None:
                texts[-1] += " " + continued[1]
            else:
                columns[last] += " " + continued[1]
        elif column := _VIEW_COLUMN.match(line):
            last = column[1]
            columns[last] = column[2]
        elif text := _VIEW_TEXT.match(line):
            last = None
            texts.append(text[1])
    return texts, columns
