"""The circuit of an experiment: both directions of patching, the circuit drawn, how good it is, and what it was found
on.

Answer first: which circuit, and whether it holds on fresh and on held-out pairs. Then the quadrant of sufficiency and
necessity, the drawing with roles, scores against random circuits, the metric panel, downstream repair, where
attribution patching can be believed, and the scope: what was controlled, and what was controlled by accident.
"""

from typing import Any

import polars as pl

from profiler.pages import circuit_answer, numbers, tables
from profiler.pages.blocks import Block, Chart, Report, Section
from profiler.pages.charts import circuit as circuit_charts
from profiler.pages.reader import Reader

QUESTION = "Which circuit did patching find, how good is it, and what was controlled?"
NEEDS_COMPONENT = False
NEEDS = ("patch_experiments",)
SHOWN = 24
RESPONDING = 16
MOST_TIMES = 2
"""Cuts are shown up to this many estimates for each effect asked for."""


def build(read: Reader) -> Report:
    """The page of the experiment written last."""
    experiment = read("experiments").frame.head(1)  # the one written last, or the one asked for
    row = experiment.row(0, named=True)
    circuit = read("circuit_scope").frame.row(0, named=True)
    return Report(
        title=f"Circuit {circuit['circuit']}",
        subtitle=f"{row['task']}, scheme {row['scheme']} · {row['model']}",
        answer=circuit_answer.answer(read, row),
        sections=tuple(
            s
            for s in (
                _quadrant(read),
                _drawing(read),
                _responses(read),
                _scores(read),
                _panel(read),
                _repair(read),
                _attribution(read),
                _scope(read, circuit),
            )
            if s.blocks
        ),
        method=METHOD,
        run_facts=_facts(row),
    )


def _quadrant(read: Reader) -> Section:
    result = read("gates")
    whole = result.frame.filter(
        pl.col("positions") == "all", pl.col("component_kind").is_in(["head", "mlp_out", "neuron"])
    )
    chart = Chart(
        "Sufficient and necessary",
        "Right: clean values alone bring the answer back. High: corrupted values alone lose it. Low and right is"
        " OR-like (others do the same), high and left AND-like (it needs others), on the line partial.",
        circuit_charts.quadrant(whole),
        result.source,
        "full",
    )
    columns = (
        tables.words("component", "Component"),
        tables.words("positions", "Positions"),
        tables.share("recovered_denoise", "Recovered", "clean values into the corrupted run, with 95 % interval"),
        tables.share("excess", "Beyond neutral", "what is recovered beyond an output that knows nothing"),
        tables.share("lost_noise", "Lost", "corrupted values into the clean run, with 95 % interval"),
        tables.words("gate", "Gate"),
    )
    caption = (
        "Both directions, all sites, largest first. Intervals are over pairs; family-wise p values are in the query."
    )
    return Section(
        "Both directions",
        "",
        (chart, tables.table("Shares", caption, result, columns, result.frame.head(SHOWN), "full")),
    )


def _drawing(read: Reader) -> Section:
    members, edges = read("circuit_members"), read("circuit_edges")
    frame = members.frame.filter(pl.col("pair_set") == "discovery")
    chart = Chart(
        "The circuit",
        "From the embedding up to the logits, a row per layer; an edge's width is what cutting it alone costs, purple"
        " edges hold the answer back. Under each node: where it reads. MLPs that are always kept are grey.",
        circuit_charts.drawing(frame, edges.frame),
        edges.source,
        "full",
    )
    columns = (
        tables.words("component", "Member"),
        tables.words("positions", "Positions"),
        tables.words("role", "Role"),
        tables.words("gate", "Gate"),
        tables.words("schemes", "Corruption schemes", "those under which it has an effect of its own"),
        tables.share("frequency", "Chosen again", "when the pairs are resampled"),
        tables.share("removal_cost", "Removal costs"),
        tables.value("p_adjusted", "p (Holm)", "against random members of inflated circuits"),
        tables.value("p_least", "Least p", "that the null can give; where it is not below 0.05, p cannot decide"),
    )
    table = tables.table(
        "Members",
        "Minimality: a member whose removal costs no more than that of a random one does not belong.",
        members,
        columns,
        frame,
        "full",
    )
    edge_columns = (
        tables.words("writer", "Writer"),
        tables.words("reader", "Reader"),
        tables.share("lost", "Lost when cut"),
        tables.share("estimated", "By attribution"),
    )
    listed = tables.table(
        "Edges",
        "Cut one by one, exactly; attribution only chose the order.",
        edges,
        edge_columns,
        edges.frame.head(SHOWN),
        "full",
    )
    return Section("The circuit", "", (chart, table, listed))


def _responses(read: Reader) -> Section:
    if not read.has("patch_factors"):  # a file written before corruptions were crossed
        return Section("What it responds to", "", ())
    result = read("corruption_factors")
    strongest = result.frame.sort(
        pl.col("component") != "model",
        ~pl.col("member"),
        pl.col("largest"),
        descending=[False, False, True],
        maintain_order=True,
    )
    named = strongest["component"].unique(maintain_order=True).head(RESPONDING).to_list()
    frame = strongest.filter(pl.col("component").is_in(named))
    empty = "Pairs of a file hold one corruption each: nothing was crossed." if result.frame.is_empty() else ""
    chart = circuit_charts.responses(frame) if len(frame) else None
    caption = (
        "Every combination of the task's corruptions is made of the same prompts, and a component's value from there is"
        " put into the clean run. Green: a main effect, logits of the logit difference that the corruption costs;"
        " purple: that it adds. a x b is an interaction: how much more a costs with b. A number stands where the effect"
        " is beyond chance. The row model is the whole model on the corrupted prompt."
    )
    columns = (
        tables.words("component", "Component"),
        tables.words("responds_to", "Responds most to", "the axis with the largest part, among those beyond chance"),
        tables.share("part", "Part of it", "share of the component's sum of squares over all combinations"),
        tables.share("additive", "Main effects together", "R squared of an additive fit: the rest is interaction"),
        tables.value("effect", "Effect, logits", "with its 95 % interval", signed=True),
        tables.count("n", "Prompts"),
    )
    most = frame.filter(pl.col("axis") == pl.col("responds_to"))
    listed = tables.table(
        "The corruption that moves it most",
        "A head that answers to one corruption alone is isolated by it.",
        result,
        columns,
        most,
        "full",
        empty or "No component responds beyond chance.",
    )
    drawn = (Chart("Effects of the corruptions", caption, chart, result.source, "full"),) if chart else ()
    return Section("What it responds to", "", (*drawn, listed))


def _scores(read: Reader) -> Section:
    result, random, curve = read("circuit_scores"), read("circuit_random"), read("circuit_curve")
    wide = result.frame.pivot(on="pair_set", index="metric", values="score").sort("metric")
    columns = (tables.words("metric", "Score"), *(tables.value(name, name) for name in circuit_answer.sets(read)))
    blocks: list[Block] = [
        tables.table(
            "Scores",
            "Shares are of what all nodes do beyond none. Control rows are of the better half of the circuit.",
            result,
            columns,
            wide,
            "full",
        )
    ]
    for name in circuit_answer.sets(read):
        drawn, found = random.frame.filter(pl.col("pair_set") == name), circuit_answer.scores(read, name)
        if len(drawn):
            title = f"Random circuits, {name}"
            caption = "Circuits of as many random nodes; the line is the circuit. Right of 100 % is over-recovery."
            blocks.append(
                Chart(
                    title, caption, circuit_charts.random_circuits(drawn, found["faithfulness"]["score"]), random.source
                )
            )
    caption = (
        "Nodes are added by their larger share of both directions. A curve above 100 % means that what holds back is"
        " not yet in."
    )
    blocks.append(Chart("By size", caption, circuit_charts.size_curve(curve.frame), curve.source))
    return Section("How good it is", "", tuple(blocks))


def _panel(read: Reader) -> Section:
    result = read("patch_panel", top=SHOWN)
    columns = (
        tables.words("component", "Component"),
        tables.words("positions", "Positions"),
        tables.words("direction", "Direction"),
        tables.words("value", "Value"),
        tables.share("share", "Share"),
        tables.value("fix", "Fix", "rise of the answer's centred logit", signed=True),
        tables.value("break", "Break", "fall of the distractors' centred logit", signed=True),
        tables.value("log_prob", "ln p"),
        tables.value("rank", "Rank"),
        tables.value("kl_from_reference", "KL", "of the patched from the clean run, nats"),
        tables.words("disagree", "ln p disagrees"),
    )
    caption = (
        "A patch that breaks and does not fix only stops the wrong answer; where ln p disagrees, the denominator moved."
    )
    values = read("patch_values")
    value_columns = (
        tables.words("first", "Put in"),
        tables.words("second", "or"),
        tables.value("rank_correlation", "Rank correlation"),
    )
    return Section(
        "The metric panel",
        "",
        (
            tables.table("Largest patches", caption, result, columns, width="full"),
            tables.table(
                "Do the values agree?", "Rank correlation of what heads and MLPs lose.", values, value_columns
            ),
        ),
    )


def _repair(read: Reader) -> Section:
    result, pairs, size = read("downstream"), read("interactions"), read("saturation")
    frame = (
        result.frame.filter(pl.col("value") == "resample", pl.col("part") != "total")
        .group_by("ablated", maintain_order=True)
        .head(5)
    )
    columns = (
        tables.words("ablated", "Taken away"),
        tables.words("component", "Component"),
        tables.words("part", "Part"),
        tables.value("delta_dla", "Change of DLA, logits", "with its 95 % interval", signed=True),
        tables.share("repaired", "Of the direct loss"),
    )
    caption = (
        "What others write differently once a head is gone (corrupted values): positive rows make up for it. Direct,"
        " heads, MLPs and norm add up to the total."
    )
    pair_columns = (
        tables.words("first", "First"),
        tables.words("second", "Second"),
        tables.words("direction", "Direction"),
        tables.share("share_together", "Together"),
        tables.value("interaction", "Interaction", signed=True),
        tables.words("relation", "Relation"),
    )
    return Section(
        "Redundancy",
        "",
        (
            tables.table("Downstream", caption, result, columns, frame, "full"),
            tables.table(
                "Two together",
                "Below 0 they stand in for each other, above 0 they need each other.",
                pairs,
                pair_columns,
                pairs.frame.head(SHOWN),
            ),
            Chart(
                "Saturation",
                "Clean values of more and more top heads, random orders: a curve that is flat early is redundant.",
                circuit_charts.saturation(size.frame),
                size.source,
            ),
        ),
    )


def _attribution(read: Reader) -> Section:
    result, exact = read("attribution_reliability"), read("use_exact")
    frame = result.frame.filter(pl.col("cell") == "all")
    columns = (
        tables.words("method", "Method"),
        tables.words("direction", "Direction"),
        tables.words("component_kind", "Site"),
        tables.count("n", "n"),
        tables.value("spearman", "Rank correlation"),
        tables.share("sign", "Right sign"),
        tables.share("error", "Error"),
        tables.share("false_negatives", "False negatives"),
        tables.words("reliable", "Believe it"),
    )
    listed = (
        tables.words("method", "Method"),
        tables.words("direction", "Direction"),
        tables.words("component", "Component"),
        tables.words("positions", "Positions"),
        tables.share("estimated", "Estimated"),
        tables.share("exact", "Exact"),
        tables.words("saturated", "Saturated"),
    )
    return Section(
        "Attribution patching",
        "",
        (
            *_recall(read),
            tables.table(
                "Where it can be believed",
                "Agreement with exact patches; by layer and by patch size in the query.",
                result,
                columns,
                frame,
                "full",
            ),
            tables.table(
                "Use exact patching here",
                "Largest disagreements first.",
                exact,
                listed,
                exact.frame.head(SHOWN),
                "full",
                "No patched component disagrees.",
            ),
        ),
    )


def _recall(read: Reader) -> tuple[Block, ...]:
    if not read.has("patch_recall"):  # a file written before recall was stored
        return ()
    result = read("attribution_recall")
    asked = pl.when(pl.col("component_kind") == "neuron").then(pl.lit("all of 2 %")).otherwise(pl.lit("top 5"))
    frame = result.frame.filter(pl.col("asked") == asked, pl.col("positions") == "all").with_columns(
        times=pl.col("looked_at") / pl.col("wanted").clip(1)
    )
    frame = frame.filter((pl.col("times") <= MOST_TIMES) | (pl.col("component_kind") == "neuron"))
    columns = (
        tables.words("method", "Method"),
        tables.words("direction", "Direction"),
        tables.words("component_kind", "Site"),
        tables.words("asked", "Effects asked for"),
        tables.count("looked_at", "Estimates looked at"),
        tables.count("hits", "Of these among them"),
        tables.share("recall", "Recall"),
        tables.share(
            "recall_lo",
            "At least",
            "95 % bound, for neurons from a random sample of those not patched for their estimate",
        ),
        tables.value("false_negatives_hi", "False negatives at most", "95 % bound"),
    )
    caption = "Of the largest exact effects, how many stand among the largest estimates. All cuts are in the query."
    return (tables.table("What it misses", caption, result, columns, frame, "full"),)


def _scope(read: Reader, circuit: dict[str, Any]) -> Section:
    scope, checks = read("circuit_scope"), read("pair_checks")
    said = {
        "Found on": circuit["prompts"],
        "Corruption schemes tried": ", ".join(circuit["schemes"]),
        "Controlled": "; ".join(circuit["controlled"]),
        "Controlled by accident": "; ".join(circuit["accidental"]) or "nothing that was checked",
        "Put in outside": circuit["outside"],
        "Never taken away": circuit["intact"],
        "Metric": circuit["metric"],
        "Found by": circuit["found_by"],
    }
    frame = pl.DataFrame({"what": list(said), "text": list(said.values())})
    columns = (tables.words("what", "Scope"), tables.words("text", ""))
    flagged = checks.frame.filter(pl.col("pair_set") == "discovery").sort(
        pl.col("level").replace_strict({"warning": 0, "note": 1, "ok": 2}), "check_number"
    )
    check_columns = (
        tables.words("check_name", "Check"),
        tables.words("finding", "Finding"),
        tables.words("level", ""),
    )
    return Section(
        "Scope",
        "A circuit says nothing beyond its pairs: this is what they were.",
        (
            tables.table("What it was found on", "Part of the circuit, stored with it.", scope, columns, frame, "full"),
            tables.table("The pair linter", "Notes and warnings first.", checks, check_columns, flagged, "full"),
        ),
    )


def _facts(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return (
        ("Experiment", row["experiment"]),
        ("Model", row["model"]),
        ("Pairs", f"{numbers.count(row['n_pairs'])}, {numbers.count(row['n_dropped'])} dropped"),
        ("Neutral level", numbers.percent(row["neutral"])),
        ("Means by template", numbers.percent(row["means_by_template"])),
        ("Seconds", numbers.number(row["seconds"])),
        ("Made", row["created"]),
    )


METHOD = (
    (
        "Directions",
        (
            "Recovered: clean values into the corrupted run. Lost: corrupted values into the clean run. Both are parts"
            " of the clean minus the corrupted logit difference, averaged over pairs first."
        ),
    ),
    ("Neutral level", "What an output that knows nothing would recover; one half where the corruption is symmetric."),
    (
        "Faithfulness",
        (
            "The clean run with everything outside the circuit writing its corrupted values; 0 for no node, 1 for all."
            " Above 1 is over-recovery."
        ),
    ),
    (
        "Incompleteness",
        (
            "Members K are taken out of the circuit and of the model: how far the two then differ. Greedy K are"
            " searched for, random K are not."
        ),
    ),
    ("Minimality", "The largest cost of removing a member, against random members of inflated circuits, by Holm."),
    (
        "Limits",
        (
            "One model, one task, one kind of value. Whether the circuit does the same on arbitrary text is another"
            " question."
        ),
    ),
)
