"""Reference pages made from the code: commands, queries, tables and views, Python. A hook of MkDocs (mkdocs.yml).

Nothing here is written by hand: commands come from the command line's own help, queries from the headers of their
files, tables and views from the comments of the .sql files of profiler/database, Python from the docstrings.
"""

import re
from collections.abc import Callable

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import profiler
from profiler import cli
from profiler.database import comments, query
from profiler.database.assets import package_file

SCHEMAS = ("schema", "views", "causal", "generality")
_COMMENT = re.compile(r"COMMENT ON (TABLE|VIEW|COLUMN) (\S+) IS '(.*)'$", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the site with the reference pages among them."""
    for name, page in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files


def commands() -> str:
    """Markdown of every command with its arguments and options."""
    parts = ["# Commands\n"]
    for name, command in typer.main.get_command(cli.app).commands.items():
        parts.append(
            f"\n## profiler {name}\n\n{_plain(command.help)}\n\n| option | what it does | default |\n|---|---|---|"
        )
        parts += [_option(parameter) for parameter in command.params]
    return "\n".join([*parts, ""])


def _option(parameter: object) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    default = parameter.default
    shown = (
        "required"
        if parameter.required
        else ""
        if default in (None, "", False) or callable(default)
        else f"`{default}`"
    )
    return f"| {names} | {_cell(parameter.help or '')} | {shown} |"


def queries() -> str:
    """Markdown of every query: question, grain, parameters, caveat."""
    parts = ["# Queries\n", "`profiler query run.duckdb NAME --set parameter=value`\n"]
    for name in query.names():
        header = query.header(name)
        parameters = [
            f"`{p.name}` ({'required' if p.required else f'default {p.default!r}'})" for p in header.parameters
        ]
        parts += [
            f"## {name}\n\n{header.title}. *{header.question}*\n",
            f"* Rows: {header.grain}",
            f"* Parameters: {', '.join(parameters) or 'none'}",
            f"* Reads: {', '.join(f'`{table}`' for table in header.reads)}",
            f"* Caveat: {header.caveat}\n" if header.caveat else "",
        ]
    return "\n".join(parts)


def schema() -> str:
    """Markdown of every table and view with the comment of each column."""
    parts = ["# Tables and views\n"]
    for name in SCHEMAS:
        text = package_file(f"database/{name}.sql").read_text(encoding="utf-8")
        for statement in comments.comment_statements(text):
            kind, target, said = _COMMENT.match(statement).groups()
            said = _cell(said.replace("''", "'"))
            if kind == "COLUMN":
                parts.append(f"| `{target.partition('.')[2].strip(chr(34))}` | {said} |")
            else:
                parts.append(f"\n## {target}\n\n{kind.capitalize()}. {said}\n\n| column | what it holds |\n|---|---|")
    return "\n".join([*parts, ""])


def python() -> str:
    """Markdown that asks mkdocstrings for every public name of the package."""
    names = [f"::: {module}.{name}\n" for name, module in sorted(profiler.PUBLIC.items())]
    return "\n".join(["# Python\n", "`import profiler`; every name below is `profiler.NAME`.\n", *names])


def _cell(text: str) -> str:
    """`text` on one line of a Markdown table."""
    return _plain(text).replace("|", "\\|").replace("\n", " ")


def _plain(text: str) -> str:
    """`text` with characters escaped that Markdown would take for tags."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[").strip()


PAGES: dict[str, Callable[[], str]] = {"commands": commands, "queries": queries, "schema": schema, "python": python}
