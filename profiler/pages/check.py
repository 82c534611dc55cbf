"""Sections of the page of a check: each from one or two queries, with the reason where there is nothing to show.

In the order of the page: distributions, plane, roles, replacement, counter-examples, edits, weights, ledger,
thresholds, predictions. A section of several blocks has a function for each.
"""

from collections.abc import Callable
from typing import Any

import polars as pl

from profiler.pages import numbers, tables
from profiler.pages.blocks import Block, Chart, Note, Section, Width
from profiler.pages.charts import check
from profiler.pages.reader import Reader, Result

MEASURE = "KL"
ALL_PERCENTILES = 100
"""Last percentile of a row that is of all positions; its first is 0."""
LINES = 80
PER_KIND = 3
SETTLED = 12
LARGEST = 30
EVIDENCE = tables.words("speaks", "Evidence", "for or against the claim; undecided; refused: no number, with a reason")


def has(name: str) -> pl.Expr:
    """Rows with a number in this column."""
    return pl.col(name).is_not_null()


def chart_or_note(
    title: str,
    caption: str,
    result: Result,
    frame: pl.DataFrame,
    draw: Callable[[pl.DataFrame], Any],
    empty: str,
    width: Width = "full",
) -> Block:
    """The chart of the frame, or a note with the reason where it has no rows."""
    if frame.is_empty():
        return Note(title, empty, width)
    return Chart(title, caption, draw(frame), result.source, width)


def distributions(read: Reader, margin: float) -> Section:
    """The distributions plot, what each distribution rests on, and what each distribution is."""
    result = read("distributions")
    about = (
        tables.words("distribution", "Distribution"),
        tables.words("description", "What it is"),
        tables.words("refused", "Why there is no number"),
    )
    described = tables.table("Each distribution", "From narrow to wide.", result, about, width="full")
    settle = () if read("settle").frame.is_empty() else (_settle(read),)
    return Section("The distributions", "", (_narrow_to_wide(result, margin), _basis(result), described, *settle))


def _narrow_to_wide(result: Result, margin: float) -> Block:
    caption = (
        "From the prompts that the circuit was found on (top) to the widest text. Dots: faithfulness with its interval;"
        " rings: necessity; grey bars: random circuits, up to their 95th percentile. Dashed: all of the effect, and the"
        f" lowest faithfulness that is as good as on the discovery prompts ({numbers.percent(margin)} less). Right of"
        " 100 %: over-recovery, not success. Squares: KL recovered, of the whole next-token distribution on running"
        " text, which a circuit of one task does not claim to explain."
    )
    return chart_or_note(
        "From narrow to wide",
        caption,
        result,
        result.frame.filter(has("faithfulness") | has("kl_recovered")),
        lambda frame: check.distributions(frame, margin),
        "No distribution has a number.",
    )


def _basis(result: Result) -> Block:
    columns = (
        tables.words("distribution", "Distribution"),
        tables.count("n_prompts", "Prompts"),
        tables.count("n_tokens", "Tokens"),
        tables.count("n_documents", "Documents"),
        tables.share("overlap", "Of discovery", "share of these prompts or documents that the circuit was found on"),
        tables.share("faithfulness", "Faithfulness", "with the 95 % interval"),
        tables.share("null_hi", "Random circuits", "95th percentile"),
        tables.count("null_n", "Of", "other circuits of the same sizes; all where they are few"),
        tables.share("kl_recovered", "KL recovered", "of the next-token distribution on running text"),
        tables.share("necessity", "Necessity", "drop when the circuit is removed"),
        tables.share("necessity_null_hi", "Random", "95th percentile of removed random circuits"),
        EVIDENCE,
    )
    caption = "A distribution with too few examples has no number; the table below says why."
    return tables.table("What each distribution rests on", caption, result, columns, width="full")


def _settle(read: Reader) -> Block:
    columns = (
        tables.words("subject", "Subject"),
        tables.words("statistic", "Statistic"),
        tables.words("distribution", "Distribution"),
        tables.count("n", "n now"),
        tables.count("needed", "n needed"),
        tables.words("unit", "Unit"),
    )
    caption = (
        "If the estimates stay where they are; 10,000,000: the estimate lies on the bound. The"
        f" {SETTLED} that need most; the query has all."
    )
    settle = read("settle")
    return tables.table("What would settle it", caption, settle, columns, settle.frame.head(SETTLED))


def thresholds(read: Reader) -> Section:
    """Thresholds that decided the verdict, as they were stored with the check."""
    columns = (
        tables.words("name", "Threshold"),
        tables.value("value", "Value"),
        tables.words("meaning", "What it decides"),
    )
    caption = "As they were when the check was made."
    table = tables.table("What decides", caption, read("thresholds"), columns, width="full")
    return Section("Thresholds", "", (table,))


def threshold(read: Reader, name: str, check_id: str = "") -> float:
    """A threshold of the check."""
    frame = read("thresholds", check_id=check_id).frame if check_id else read("thresholds").frame
    return float(frame.filter(pl.col("name") == name)["value"].item())


def plane(read: Reader) -> Section:
    """Generality against completeness, of the circuit and of each member."""
    result = read("generality_plane")
    claims = result.frame.filter(pl.col("kind") != "general form")
    both = claims.filter(has("generality"), has("completeness"))
    missing = len(claims) - len(both)
    left_out = f" Left out: {numbers.plural(missing, 'claim')} without both numbers." if missing else ""
    caption = (
        "Further right: holds on every distribution tried. Higher: explains more of the effect. Upper left: a complete"
        f" account of a narrow case. Lower right: a general but partial account.{left_out}"
    )
    title, empty = "Specific to general, incomplete to complete", "No claim has both numbers."
    chart = chart_or_note(title, caption, result, both, check.plane, empty, "half")
    columns = (
        tables.words("subject", "Subject"),
        tables.words("role", "Role"),
        tables.share("generality", "Generality"),
        tables.share("completeness", "Completeness"),
        tables.words("completeness_by", "Completeness by"),
        tables.count("distributions", "Distributions"),
        tables.words("kind", "Kind"),
    )
    caption = "“The plane” under Method and limits defines both numbers."
    table = tables.table("The same in numbers", caption, result, columns, width="full")
    return Section("How general, how complete", "", (chart, table))


def roles(read: Reader) -> Section:
    """Coverage of each role on each distribution, and the mixture of each member."""
    covered = read("role_coverage")
    drawn, general = covered.frame.filter(has("coverage")), pl.col("general_form_of") != ""
    blocks = [_role_map(covered, drawn.filter(~general))]
    if len(drawn.filter(general)):
        blocks.append(_general_map(covered, drawn.filter(general)))
    if len(read("role_instead").frame):
        blocks.append(_instead(read("role_instead")))
    blocks += [_mixtures(read("role_mixture")), _coverage_table(covered)]
    return Section("Roles", "", tuple(blocks))


def _role_map(covered: Result, drawn: pl.DataFrame) -> Block:
    caption = (
        "Share of the member's importance on which its role holds, at the role's position where it names a position. A"
        " row that fades to the right: a role of the discovery prompts only."
    )
    title, empty = "Does the role hold where it matters?", "No role could be tested."
    return chart_or_note(title, caption, covered, drawn, check.coverage, empty)


def _general_map(covered: Result, drawn: pl.DataFrame) -> Block:
    caption = (
        "The same roles as claims about every position of text. The circuit does not claim this; it says what the"
        " component does in general."
    )
    return Chart("Is that what it does everywhere?", caption, check.coverage(drawn), covered.source, "full")


def _instead(result: Result) -> Block:
    """What is attended to instead where a role fails at its position."""
    columns = (
        tables.words("component", "Component"),
        tables.words("role", "Role"),
        tables.words("distribution", "Distribution"),
        tables.share("coverage", "Holds on"),
        tables.words("attended", "Attends to"),
        tables.share("share", "On"),
        tables.count("n", "n"),
        tables.words("unit", "Unit"),
    )
    caption = (
        "Where a head attends when it does not attend to the position that its role names, by importance. “end” is the"
        " last token itself."
    )
    return tables.table("What it attends to instead", caption, result, columns, width="full")


def _mixtures(mixed: Result) -> Block:
    """What else each member does, on the widest distribution that was measured."""
    frame = mixed.frame
    widest = frame.filter(pl.col("ordinal") == frame["ordinal"].max()) if len(frame) else frame
    where = f"on “{widest['distribution'][0]}”" if len(widest) else "on the widest text"
    caption = f"Shares of importance {where}. Grey: explained by no behaviour of the library."
    return chart_or_note("What else it does", caption, mixed, widest, check.mixtures, "No mixture was measured.")


def _other_importance(covered: Result) -> tuple[tables.Column, ...]:
    """What roles are counted by, and coverage by the other importance; nothing without total effects."""
    if covered.frame["other_coverage"].is_null().all():
        return ()
    return (
        tables.words("counted_by", "Counted by", "|total effect| of a member that acts through others alone"),
        tables.share("other_coverage", "By the other", "coverage by the other importance, over the whole corpus"),
    )


def _coverage_table(covered: Result) -> Block:
    columns = (
        tables.words("component", "Component"),
        tables.words("role", "Role"),
        tables.words("distribution", "Distribution"),
        tables.share("coverage", "Coverage"),
        tables.share("scrambled", "Scrambled"),
        *_other_importance(covered),
        tables.count("n", "n"),
        tables.words("unit", "Unit"),
        EVIDENCE,
        tables.words("refused", "Why there is no number"),
    )
    caption = "With 95 % intervals. A role says something only as far as it exceeds its scrambled form."
    return tables.table("Coverage beside its null", caption, covered, columns, width="full")


def replacement(read: Reader) -> Section:
    """How much a rule explains that replaces the component by the claim; where that is refused, why."""
    result, lines = read("replacements"), read("ledger")
    told = result.frame.filter(has("explained"))
    whole = (pl.col("percentile_lo") == 0) & (pl.col("percentile_hi") == ALL_PERCENTILES)
    why = (
        "No component was replaced." if result.frame.is_empty() else "No share could be given: the reasons stand below."
    )
    caption = (
        "By percentile of importance, in KL. Dashed: the same rule applied to other heads; a rule that fits them as"
        " well is not specific."
    )
    bins = told.filter(pl.col("measure") == MEASURE, ~whole)
    title = "Where the claim explains the effect"
    chart = chart_or_note(title, caption, result, bins, check.replaced, why, "half")
    columns = (
        tables.words("component", "Component"),
        tables.words("rule", "Replaced by"),
        tables.words("measure", "Measure"),
        tables.share("explained", "Explained"),
        tables.share("null_explained", "Other heads"),
        tables.value("d_ablated", "Mean-ablated, nats"),
        tables.count("n", "Positions"),
    )
    caption = "1 minus the cost of the replacement over the cost of mean ablation."
    table = tables.table("Over all positions", caption, result, columns, told.filter(whole), empty=why)
    return Section("Replacement by understanding", "", (chart, table, *_refused_replacements(lines)))


def _refused_replacements(lines: Result) -> tuple[Block, ...]:
    """Members without a share, and why; nothing where every member has a share."""
    refused = lines.frame.filter(pl.col("technique") == "replacement", pl.col("refused") != "")
    refused = refused.unique(["subject", "refused"], maintain_order=True)
    if refused.is_empty():
        return ()
    columns = (
        tables.words("subject", "Component"),
        tables.words("role", "Role"),
        tables.words("refused", "Why there is no share"),
    )
    caption = "Members for which no share can be given."
    return (tables.table("Without a share", caption, lines, columns, refused, "full"),)


def counter_examples(read: Reader) -> Section:
    """The most important positions at which a claim is wrong, in context."""
    result = read("counter_examples", top=PER_KIND)
    frame = result.frame.with_columns(dla="importance")
    reach = tables.reach_of(frame)
    words = {"silent": "should act and does not", "stray": "acts where it should not"}
    groups = [
        tables.group(f"{component} · {role}", words.get(kind, kind), part, reach)
        for (component, role, kind), part in frame.group_by("component", "role", "kind", maintain_order=True)
    ]
    caption = (
        "The most important failures, so they say nothing about how often a claim fails. Left: activation; right:"
        " importance in logits."
    )
    empty = "None was looked for, or none was found."
    block = tables.examples("Where the claim is wrong", caption, result.source, groups, empty)
    return Section("Counter-examples", "", (block,))


def edits(read: Reader) -> Section:
    """Edits made from the roles beside control edits, and the success rates."""
    return Section("Edits and swaps", "", (_edits(read("edits")), _success_rates(read("ledger"))))


def _edits(result: Result) -> Block:
    columns = (
        tables.words("component", "Component"),
        tables.words("operation", "Edit"),
        tables.words("distribution", "Text of"),
        tables.count("n", "Texts"),
        tables.value("shift", "Shift", "mean, in the unit of the edit"),
        tables.value("control_shift", "Control"),
        tables.share("beats_control", "Beats control"),
        tables.words("before", "Before"),
        tables.words("after", "After"),
    )
    caption = (
        "For each edit the text that it moved most. If a role is understood, it predicts which edits matter and which"
        " do not."
    )
    return tables.table("Edits", caption, result, columns, width="full", empty="No text was edited.")


def _success_rates(lines: Result) -> Block:
    rates = lines.frame.filter(pl.col("technique").is_in(["edits", "swaps", "counter-examples"]), has("value"))
    columns = (
        tables.words("subject", "Component"),
        tables.words("technique", "Technique"),
        tables.words("statistic", "Statistic"),
        tables.words("distribution", "Text of"),
        tables.share("value", "Rate"),
        tables.share("null_mean", "Control"),
        tables.count("n", "n"),
        EVIDENCE,
    )
    caption = "Beside the same rate for control edits or other components."
    return tables.table("Success rates", caption, lines, columns, rates, "full", "No rate was measured.")


def weights(read: Reader) -> Section:
    """Scores of the weights, circuits on other tasks, and what was published."""
    cross, published = read("cross_tasks"), read("published_numbers")
    tasks = chart_or_note(
        "On other tasks",
        "Faithfulness of the members of each circuit on the prompts of each task. High values off the diagonal: shared"
        " machinery.",
        cross,
        cross.frame.filter(has("faithfulness")),
        check.tasks,
        "The run has no other circuit.",
        "half",
    )
    blocks = (_weight_scores(read), tasks, *(() if published.frame.is_empty() else (_published(published),)))
    return Section("Weights, other tasks, other papers", "", blocks)


def _weight_scores(read: Reader) -> Block:
    members = read("claims").frame.filter(pl.col("role") != "")["subject"].to_list()
    scores = read("weight_scores")
    columns = (
        tables.words("component", "Component"),
        tables.words("score", "Score"),
        tables.value("value", "Value"),
        tables.value("null_mean", "Other heads", "mean"),
        tables.value("z", "z"),
        tables.count("rank", "Rank"),
        tables.share("ignored_share", "Ignored", "share of the terms that the score leaves out"),
    )
    told = scores.frame.filter(pl.col("component").is_in(members)).sort(
        pl.col("z").abs(), descending=True, nulls_last=True
    )
    caption = (
        f"What the weights alone say of the members, without any text: the {LARGEST} scores farthest from other heads;"
        " the query has all."
    )
    shown = told.head(LARGEST).sort("component", "score")
    return tables.table("Scores of the weights", caption, scores, columns, shown, "full", "No weights were scored.")


def _published(published: Result) -> Block:
    columns = (
        tables.words("what", "Published"),
        tables.value("published", "There"),
        tables.value("measured", "Here"),
        tables.words("unit", "Unit"),
        tables.words("distribution", "Distribution"),
        tables.words("source", "Source"),
    )
    caption = "Prompts, positions and patched values differ, so the numbers may differ too."
    return tables.table("Published numbers", caption, published, columns, width="full")


def ledger(read: Reader) -> Section:
    """The claims with their weight, agreement of techniques, and every line."""
    return Section("The ledger", "", (_claims(read("claims")), _agreement(read("technique_agreement")), _lines(read)))


def _claims(claims: Result) -> Block:
    columns = (
        tables.words("subject", "Subject"),
        tables.words("role", "Role"),
        tables.count("techniques", "Techniques"),
        tables.value("weight_for", "For", "summed weight of the lines that support the claim"),
        tables.value("weight_against", "Against", "summed weight of the lines that contradict it"),
        tables.value("weight_undecided", "Undecided"),
        tables.count("registered", "Registered"),
        tables.count("post_hoc", "Post hoc"),
    )
    caption = (
        "Lines that share a distribution, a technique, data or gradients count less: a line weighs 1 / (1 + its"
        " overlaps)."
    )
    return tables.table("Claims", caption, claims, columns, width="full")


def _agreement(agreed: Result) -> Block:
    columns = (
        tables.words("first", "Technique"),
        tables.words("second", "and"),
        tables.count("n", "Claims"),
        tables.count("agree", "Agree"),
        tables.share("expected", "By chance"),
        tables.value("could_disagree", "Could have disagreed"),
        tables.value("kappa", "κ"),
    )
    caption = "Agreement counts only as far as the two could have disagreed."
    empty = "No claim was judged by two techniques."
    return tables.table("Do techniques agree?", caption, agreed, columns, empty=empty)


def _lines(read: Reader) -> Block:
    lines = read("ledger", tested=1)
    columns = (
        tables.words("subject", "Subject"),
        tables.words("role", "Role"),
        tables.words("technique", "Technique"),
        tables.words("distribution", "Data"),
        tables.words("statistic", "Statistic"),
        tables.share("value", "Value"),
        tables.share("null_mean", "Null"),
        tables.count("n", "n"),
        tables.words("unit", "Unit"),
        EVIDENCE,
        tables.words("reason", "Compared with"),
        tables.value("weight", "Weight"),
        tables.words("status", "Status"),
    )
    shown = f" The first {LINES} of {len(lines.frame)} lines; the query has all." if len(lines.frame) > LINES else ""
    caption = f"What each number was compared with, and whether it supports the claim.{shown}"
    return tables.table("Every line", caption, lines, columns, lines.frame.head(LINES), "full")


def predictions(read: Reader) -> Section:
    """Registered predictions, overlap of discovery and test data, and what the catalogue knew."""
    made = read("predictions")
    n_broken = len(made.frame.filter(~pl.col("intact")))
    verb, are = ("were", "follow") if n_broken > 1 else ("was", "follows")
    warning = (
        f"{numbers.plural(n_broken, 'registered prediction')} {verb} changed or removed after it was written, or"
        f" {are} a prediction that was: do not trust what is said of {'them' if n_broken > 1 else 'it'} here."
    )
    blocks = (_registered(made), _overlap(read("distribution_overlap")), _catalogue(read("role_catalogue")))
    return Section("Predictions", warning if n_broken else "", blocks)


def _registered(made: Result) -> Block:
    columns = (
        tables.words("statement", "Prediction"),
        tables.words("subject", "Subject"),
        tables.words("statistic", "Statistic"),
        tables.words("distribution", "Distribution"),
        tables.words("direction", ""),
        tables.value("threshold", "Threshold"),
        tables.words("outcome", "Outcome"),
        tables.value("value", "Value"),
        tables.share("overlap", "Overlap", "share of the tested examples that the circuit was found on"),
        tables.words("registered_at", "Registered"),
        tables.words("origin", "By"),
        tables.words("known_before", "Known before"),
        tables.words("intact", "Intact", "neither edited nor removed since"),
    )
    caption = "Claims that are not listed here are post hoc."
    empty = "None was registered: every claim above is post hoc."
    return tables.table("Registered before the test", caption, made, columns, width="full", empty=empty)


def _overlap(shared: Result) -> Block:
    columns = (
        tables.words("distribution", "Distribution"),
        tables.count("n", "Examples"),
        tables.count("shared", "Also in discovery"),
        tables.share("overlap", "Share"),
    )
    caption = "Examples of each distribution that are among the discovery prompts too."
    empty = "The distributions do not list their examples."
    return tables.table("Discovery and test data", caption, shared, columns, empty=empty)


def _catalogue(known: Result) -> Block:
    columns = (
        tables.words("component", "Component"),
        tables.words("role", "Role"),
        tables.words("circuit", "In circuit"),
        tables.words("distribution", "On"),
        tables.share("coverage", "Coverage"),
        EVIDENCE,
    )
    caption = "Roles measured for components of this model, in this circuit and others."
    rows = known.frame.head(LINES)
    return tables.table("The role catalogue", caption, known, columns, rows, empty="No role was measured.")
