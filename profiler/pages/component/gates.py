"""The component card's section on the two factors of a gated neuron. Shown where its MLP is gated. Cost: one query."""

from profiler.model.components import ComponentId
from profiler.pages import numbers, tables
from profiler.pages.blocks import Section
from profiler.pages.reader import Reader

TITLE = "Gate and value"
COLUMNS = (
    tables.words("quadrant", "Signs"),
    tables.share("share_n", "of positions"),
    tables.share("share_abs_dla", "of its |DLA|", "with the 95 % interval"),
    tables.value("dla", "Mean DLA, logits", "over the positions of the quadrant", signed=True),
    tables.words("top_tokens", "Tokens", "largest sum of |DLA| at the positions of the uniform sample"),
    tables.count("n", "n"),
)


def section(read: Reader, component: ComponentId) -> Section:
    """Sign quadrants of a gated neuron; empty for other components."""
    if component.kind != "neuron":
        return Section(TITLE, "", ())
    result = read("gate_quadrants", component=component.label)
    if result.frame.is_empty():
        return Section(TITLE, "", ())
    top = result.frame.sort(["share_abs_dla", "quadrant"], descending=[True, False], nulls_last=True).row(0, named=True)
    most = numbers.share_with_interval(top, "share_abs_dla")
    lead = (
        f"Its activation is act(gate) · value. Most of its |DLA|, {most}, is where"
        f" {top['quadrant']}: {numbers.percent(top['share_n'])} of positions."
    )
    caption = "Counts and shares are of every position; the gate is before its nonlinearity."
    return Section(TITLE, lead, (tables.table("Sign quadrants", caption, result, COLUMNS, width="full"),))
