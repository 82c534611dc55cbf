"""The circuit of an experiment: both directions of patching, the circuit drawn, how good it is, what it was found on.

Answer first: which circuit, and whether it holds on fresh and on held-out pairs. Then the quadrant of sufficiency and
necessity, the drawing with roles, scores against random circuits, the metric panel, downstream repair, the reliability
of attribution patching, and the scope: what was controlled, and what was controlled by accident.
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
        "Further right: clean values of the component alone restore the effect. Higher: corrupted values alone destroy"
        " it. Lower right: OR-like (other components do the same). Upper left: AND-like (it needs other components)."
        " Along the diagonal: partial.",
        circuit_charts.quadrant(whole),
        result.source,
        "full",
    )
    columns = (
        tables.words("component", "Component"),
        tables.words("positions", "Positions"),
        tables.share("recovered_denoise", "Recovered", "clean values into the corrupted run, with 95 % interval"),
        tables.share("excess", "Beyond neutral", "recovered beyond what an uninformative output recovers"),
        tables.share("lost_noise", "Lost", "corrupted values into the clean run, with 95 % interval"),
        tables.words("gate", "Gate"),
    )
    caption = "All sites, largest first. Intervals are over pairs; family-wise p values are in the query."
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
        "From the embedding up to the logits, a row per layer. The wider an edge, the more is lost when it alone is"
        " cut; purple edges hold the answer back. Under each node: its role. Grey: MLPs that every circuit keeps.",
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
        tables.share("frequency", "Chosen again", "share of resamples of the pairs in which it is chosen"),
        tables.share("removal_cost", "Removal costs"),
        tables.value("p_adjusted", "p (family-wise)", "against random members of inflated circuits"),
        tables.value("p_least", "Least p", "that the null can give; where it is not below 0.05, p cannot decide"),
    )
    table = tables.table(
        "Members",
        "Minimality: a member whose removal costs no more than that of a random extra node does not belong.",
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
        "Each cut alone, exactly; attribution only gave the order in which they were tried.",
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
    empty = "Pairs from a file have a single corruption: nothing was crossed." if result.frame.is_empty() else ""
    chart = circuit_charts.responses(frame) if len(frame) else None
    caption = (
        "The task's corruptions are applied to the same prompts in every combination, and a component's corrupted value"
        " is patched into the clean run. Green: the corruption lowers the logit difference, in logits; purple: it"
        " raises it. a x b is an interaction: how much more a costs together with b. Numbers are printed where the"
        " effect is beyond chance. Row “model”: the whole model on the corrupted prompt."
    )
    columns = (
        tables.words("component", "Component"),
        tables.words("responds_to", "Responds most to", "the effect with the largest share, among those beyond chance"),
        tables.share("part", "Share", "of the component's sum of squares over all combinations"),
        tables.share("additive", "Main effects", "R squared of the additive fit; the rest is interaction"),
        tables.value("effect", "Effect, logits", "with its 95 % interval", signed=True),
        tables.count("n", "Prompts"),
    )
    most = frame.filter(pl.col("axis") == pl.col("responds_to"))
    listed = tables.table(
        "The corruption that moves it most",
        "A head that responds to a single corruption is isolated by that corruption.",
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
            "Shares are of the difference between all nodes and none. Rows that begin with “control” are of the better"
            " half of the circuit.",
            result,
            columns,
            wide,
            "full",
        )
    ]
    for name in circuit_answer.sets(read):
        drawn, values = random.frame.filter(pl.col("pair_set") == name), circuit_answer.scores(read, name)
        if len(drawn):
            title = f"Random circuits, {name}"
            caption = "Circuits of as many random nodes; the line is the circuit. Right of 100 %: over-recovery."
            observed = values["faithfulness"]["score"]
            blocks.append(Chart(title, caption, circuit_charts.random_circuits(drawn, observed), random.source))
    caption = (
        "Nodes are added in the order of their larger share of both directions. Above 100 %: nodes that hold the answer"
        " back are still missing."
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
        "A patch that breaks without fixing only stops the wrong answer. Where ln p disagrees, the softmax denominator"
        " changed."
    )
    values = read("patch_values")
    value_columns = (
        tables.words("first", "Value"),
        tables.words("second", "or"),
        tables.value("rank_correlation", "Rank correlation"),
    )
    return Section(
        "The metric panel",
        "",
        (
            tables.table("Largest patches", caption, result, columns, width="full"),
            tables.table(
                "Do the patched values agree?",
                "Rank correlation of the losses of heads and MLPs under two kinds of patched value.",
                values,
                value_columns,
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
        tables.words("ablated", "Ablated"),
        tables.words("component", "Component"),
        tables.words("part", "Part"),
        tables.value("delta_dla", "Change of DLA, logits", "with its 95 % interval", signed=True),
        tables.share("repaired", "Of the direct loss"),
    )
    caption = (
        "How the writes of other components change once a head is ablated (corrupted values): positive rows make up"
        " for it. Direct, heads, MLPs and norm add up to the total."
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
                "Below 0: they stand in for each other. Above 0: they need each other.",
                pairs,
                pair_columns,
                pairs.frame.head(SHOWN),
            ),
            Chart(
                "Saturation",
                "Recovered by clean values of more and more top heads, in random orders. A curve that flattens early:"
                " redundancy.",
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
        tables.words("reliable", "Reliable"),
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
                "Where it is reliable",
                "Agreement with exact patches. The query also has it by layer and by size of the patch.",
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
        tables.words("asked", "Largest effects"),
        tables.count("looked_at", "Largest estimates"),
        tables.count("hits", "Effects among them"),
        tables.share("recall", "Recall"),
        tables.share(
            "recall_lo",
            "At least",
            "95 % bound; for neurons from a random sample of those not patched for their estimate",
        ),
        tables.value("false_negatives_hi", "False negatives at most", "95 % bound"),
    )
    caption = "How many of the largest exact effects are among the largest estimates. The query has all cuts."
    return (tables.table("What it misses", caption, result, columns, frame, "full"),)


def _scope(read: Reader, circuit: dict[str, Any]) -> Section:
    scope, checks = read("circuit_scope"), read("pair_checks")
    said = {
        "Found on": circuit["prompts"],
        "Corruption schemes tried": ", ".join(circuit["schemes"]),
        "Controlled": "; ".join(circuit["controlled"]),
        "Controlled by accident": "; ".join(circuit["accidental"]) or "nothing that was checked",
        "Value outside the circuit": circuit["outside"],
        "Never ablated": circuit["intact"],
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
        "A circuit says nothing beyond its pairs. This is what they were.",
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
        ("Judged by", f"{row['metric_words']} ({row['metric']})"),
        ("Patches and selection by", row["selected_by"]),
        ("Neutral level", numbers.percent(row["neutral"])),
        ("Means by template", numbers.percent(row["means_by_template"])),
        ("Seconds", numbers.number(row["seconds"])),
        ("Made", row["created"]),
    )


METHOD = (
    (
        "Directions",
        (
            "Recovered: clean values into the corrupted run. Lost: corrupted values into the clean run. Both are shares"
            " of the clean minus the corrupted metric; averages over pairs are taken first."
        ),
    ),
    ("Neutral level", "What an uninformative output would recover; one half where the corruption is symmetric."),
    (
        "Faithfulness",
        (
            "The share of the effect that is left in the clean run when everything outside the circuit writes other"
            " values (by default its corrupted ones): 0 for no node, 1 for all. Above 1 is over-recovery."
        ),
    ),
    (
        "Incompleteness",
        (
            "How far circuit and model differ once the same members K are removed from both. Greedy: K is searched for"
            " to make this large; random: it is not."
        ),
    ),
    (
        "Minimality",
        (
            "The largest cost of removing a member, compared with random nodes of inflated circuits; p-values adjusted"
            " by Holm."
        ),
    ),
    (
        "Limits",
        (
            "One model, one task, one kind of patched value. Whether the circuit does the same on arbitrary text is"
            " another question: profiler check."
        ),
    ),
)
