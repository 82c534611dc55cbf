"""The page of a text: its tokens coloured by a component, where a head attends, what the model predicts.

Numbers of the text are the model's and come from no query; percentiles are of the run's query `density`.
"""

from collections.abc import Sequence

import polars as pl
from markupsafe import Markup

from profiler.pages import method, numbers, tables
from profiler.pages.blocks import Block, Cell, Chart, Example, ExampleGroup, Examples, Report, Section, Table
from profiler.pages.component import contexts
from profiler.pages.reader import Reader
from profiler.pages.tables import tint
from profiler.results import TextResult
from profiler.sentence import charts
from profiler.sentence.answer import in_words

MOST_ROWS = 64
"""Tokens whose attention is shown one by one."""
METHOD = (
    ("Activation", "Of a head the norm of what it writes, of a neuron its value after the nonlinearity."),
    (
        "Percentile",
        "The share of the corpus's ordinary positions at which the component's activation is smaller, from the run's"
        " density bins (16 an octave).",
    ),
    ("DLA", "What the component writes directly to the centred logit of the token that comes next, logits."),
    (
        "Changes",
        "Made at every position in the forward pass; all that comes after is computed again, so the difference holds"
        " what goes through other components too.",
    ),
)


def build(read: Reader, result: TextResult) -> Report:
    """The page of `result`; `read` answers queries on its run."""
    title = "What the model does on a text" if result.component is None else f"{result.component} on a text"
    return Report(
        title=title,
        subtitle="A text of one's own",
        answer=result.sentences,
        sections=tuple(_sections(result)),
        method=(*METHOD, *method.method(read)),
        run_facts=method.run_facts(read),
    )


def _sections(result: TextResult) -> list[Section]:
    sections = [Section("Token by token", "", (_text(result), _values(result)))]
    if result.attention is not None:
        tokens = result.tokens["token"].to_list()
        blocks = (
            Chart(
                "Arcs",
                "From each token to those it attends to with at least 5 %; the wider, the more.",
                charts.arcs(result.attention, tokens),
                None,
                "full",
            ),
            Chart(
                "Pattern",
                "A row is a token that attends; its row adds up to 1, less a learned sink.",
                charts.pattern(result.attention, tokens),
                None,
                "full",
            ),
        )
        sections.insert(1, Section("Where it attends", "", blocks))
    sections.append(Section("What the model expects next", "", (_next(result),)))
    return sections


def _text(result: TextResult) -> Block:
    named = result.component is not None
    asked = range(len(result.tokens)) if result.attention is not None else [len(result.tokens) - 1]
    reach = _reach(result)
    rows = [_example(result, offset) for offset in list(asked)[-MOST_ROWS:]]
    caption = (
        "Hover over a token for its numbers; the buttons colour by activation, DLA or attention."
        if named
        else "Hover over a token for the probability of the token that came next."
    )
    dropped = len(asked) - len(rows)
    note = f"the first {dropped:,} tokens are not shown one by one" if dropped > 0 else ""
    return Examples(
        "The text", caption, (ExampleGroup("", note, tuple(rows)),), None, reach=(reach.activation, reach.dla)
    )


def _reach(result: TextResult) -> tables.Reach:
    """The largest |activation| and |DLA| of the text: the full tint."""
    return tables.reach_of(result.components)


def _example(result: TextResult, shown: int) -> Example:
    tokens = result.tokens.to_dicts()
    own: list[dict[str, float | None]] = (
        result.components.to_dicts() if result.component is not None else [{} for _ in tokens]
    )
    texts = contexts.texts([*(row["token"] for row in tokens), tokens[-1]["next_token"]], shown)
    weights = _weights(result, shown)
    made = [
        contexts.Token(text, row.get("activation"), row.get("dla"), token["p_next"], weight)
        for text, row, token, weight in zip(texts, own, tokens, weights, strict=False)
    ]
    made.append(contexts.Token(texts[-1]))
    reach = _reach(result)
    activation, dla = own[shown].get("activation"), own[shown].get("dla")
    tints = (tint(activation, reach.activation), tint(dla, reach.dla))
    return Example(
        context=contexts.html(made[: shown + 2] if shown + 1 < len(tokens) else made, shown, *tints),
        activation=numbers.number(activation),
        dla=numbers.number(dla, 2),
        probability=numbers.percent(tokens[shown]["p_next"]),
        activation_tint=tints[0],
        dla_tint=tints[1],
        where=Markup("<span>token {}</span>").format(shown),
    )


def _weights(result: TextResult, shown: int) -> Sequence[float | None]:
    if result.attention is None:
        return [None] * len(result.tokens)
    own = result.attention.filter(pl.col("offset") == shown)["weight"].to_list()
    return [*own, *[None] * (len(result.tokens) - len(own))]


def _values(result: TextResult) -> Table:
    frame = result.components.join(result.tokens, on="offset", how="left", maintain_order="left")
    columns = [tables.count("offset", "Token"), tables.token("token", "")]
    if result.component is None:
        columns.append(tables.words("component", "Component"))
    columns += [
        tables.value("activation", "Activation", signed=True),
        tables.Column(
            "In the corpus",
            lambda row: Cell(numbers.MISSING if row["percentile"] is None else in_words(row["percentile"])),
            "share of the corpus's positions at which the component's activation is smaller",
        ),
        tables.value("dla", "DLA", "logits, toward the next token", signed=True),
    ]
    if "dla_before" in frame.columns:
        columns += [tables.value("activation_before", "Activation before"), tables.value("dla_before", "DLA before")]
    columns += [tables.token("next_token", "Next token"), tables.share("p_next", "p of it")]
    if "p_next_before" in frame.columns:
        columns.append(tables.share("p_next_before", "p before the change"))
    return _table("All numbers", "The last token's next token is the one that DLA is taken toward.", columns, frame)


def _next(result: TextResult) -> Table:
    columns = [tables.count("rank", "Rank"), tables.token("token", "Token"), tables.share("p", "Probability")]
    if "p_before" in result.next_tokens.columns:
        columns.append(tables.share("p_before", "Before the change"))
    return _table("Likeliest next tokens", "After the last token of the text.", columns, result.next_tokens)


def _table(title: str, caption: str, columns: Sequence[tables.Column], frame: pl.DataFrame) -> Table:
    rows = tuple(tuple(column.cell(row) for column in columns) for row in frame.to_dicts())
    return Table(title, caption, tuple((c.label, c.hint) for c in columns), rows, None, "full")
