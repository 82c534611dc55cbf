"""Sections of the page of a check: each from one or two queries, with the reason where there is nothing to show."""

import polars as pl

from profiler.pages import numbers, tables
from profiler.pages.blocks import Block, Chart, Note, Section
from profiler.pages.charts import check
from profiler.pages.reader import Reader, Result

MEASURE = "KL"
ALL_PERCENTILES = 100
"""Last percentile of a row that is of all positions; its first is 0."""
LINES = 80
PER_KIND = 3
SETTLED = 12
LARGEST = 30


def has(name: str) -> pl.Expr:
    """Rows with a number in this column."""
    return pl.col(name).is_not_null()


def chart_or_note(
    title: str, caption: str, result: Result, frame: pl.DataFrame, draw, empty: str, width="full"
) -> Block:
    """The chart of the frame, or a note with the reason where it has no rows."""
    if frame.is_empty():
        return Note(title, empty, width)
    return Chart(title, caption, draw(frame), result.source, width)


def distributions(read: Reader, margin: float) -> Section:
    """The distributions plot, and the table with what each distribution rests on."""
    result = read("distributions")
    measured = result.frame.filter(has("faithfulness") | has("kl_recovered"))
    caption = (
        "From the prompts that it was found on (top) to the widest text. Dots: faithfulness with its interval; rings:"
        " necessity; grey bars: random circuits up to their 95th percentile. Dashed: all of the effect, and the least"
        f" that is as good as on the discovery prompts ({numbers.percent(margin)} less). Right of 100 % the circuit"
        " does more than the model: over-recovery, no success. Squares are of all that the model says of running text,"
        " which no circuit of one task claims to be."
    )
    chart = chart_or_note(
        "From narrow to wide",
        caption,
        result,
        measured,
        lambda frame: check.distributions(frame, margin),
        "No distribution has a number.",
    )
    columns = (
        tables.words("distribution", "Distribution"),
        tables.count("n_prompts", "Prompts"),
        tables.count("n_tokens", "Tokens"),
        tables.count("n_documents", "Documents"),
        tables.share("faithfulness", "Faithfulness", "with its 95 % interval"),
        tables.share("null_hi", "Random circuits", "95th percentile"),
        tables.count("null_n", "Of", "other circuits of the same sizes; all where they are few"),
        tables.share("kl_recovered", "KL recovered", "of the next-token distribution of running text"),
        tables.share("necessity", "Necessity", "drop when the circuit is removed"),
        tables.share("necessity_null_hi", "Random", "95th percentile of random knock-outs"),
        tables.words("speaks", "Speaks"),
    )
    table = tables.table(
        "What each distribution rests on",
        "A distribution with too few examples has no number, and says so.",
        result,
        columns,
        result.frame,
        "full",
    )
    about = (
        tables.words("distribution", "Distribution"),
        tables.words("description", "What stands there"),
        tables.words("refused", "Refused"),
    )
    described = tables.table("The distributions", "From narrow to wide.", result, about, width="full")
    settle = () if read("settle").frame.is_empty() else (_settle(read),)
    return Section("The distributions", "", (chart, table, described, *settle))


def _settle(read: Reader) -> Block:
    columns = (
        tables.words("subject", "Subject"),
        tables.words("statistic", "Statistic"),
        tables.words("distribution", "Distribution"),
        tables.count("n", "There are"),
        tables.count("needed", "Needed"),
        tables.words("unit", "Of"),
    )
    return tables.table(
        "What would settle it",
        f"If the estimates stay where they are; 10,000,000: they lie on the bound. The {SETTLED} that need most; the"
        " query has all.",
        read("settle"),
        columns,
        read("settle").frame.head(SETTLED),
    )


def thresholds(read: Reader) -> Section:
    """Thresholds that decided the verdict, as they were stored with the check."""
    columns = (
        tables.words("name", "Threshold"),
        tables.value("value", "Value"),
        tables.words("meaning", "What it decides"),
    )
    caption = "As they stood when the check was made."
    return Section(
        "Thresholds", "", (tables.table("What decides", caption, read("thresholds"), columns, width="full"),)
    )


def threshold(read: Reader, name: str, check_id: str = "") -> float:
    """One threshold of the check."""
    frame = read("thresholds", check_id=check_id).frame if check_id else read("thresholds").frame
    return float(frame.filter(pl.col("name") == name)["value"].item())


def plane(read: Reader) -> Section:
    """Generality against completeness, of the circuit and of each member."""
    result = read("generality_plane")
    claims = result.frame.filter(pl.col("kind") != "general form")
    both = claims.filter(has("generality"), has("completeness"))
    missing = len(claims) - len(both)
    caption = (
        "Right: holds on every distribution tried. High: explains all of the effect. Upper left is a complete account"
        " of a narrow case; lower right a general half-truth. "
        + (f"{missing} claim{'s' * (missing != 1)} without both numbers left out." if missing else "")
    )
    chart = chart_or_note(
        "Specific to general, incomplete to complete",
        caption,
        result,
        both,
        check.plane,
        "No claim has both numbers.",
        "half",
    )
    columns = (
        tables.words("subject", "Subject"),
        tables.words("role", "Role"),
        tables.share("generality", "Generality"),
        tables.share("completeness", "Completeness"),
        tables.words("completeness_by", "By"),
        tables.count("distributions", "Distributions"),
        tables.words("kind", "Of a"),
    )
    return Section(
        "How general, how complete",
        "",
        (
            chart,
            tables.table(
                "The same in numbers", "How each is defined stands in the method.", result, columns, width="full"
            ),
        ),
    )


def roles(read: Reader) -> Section:
    """Coverage of each role on each distribution, and the mixture of each member."""
    covered, mixed = read("role_coverage"), read("role_mixture")
    drawn, general = covered.frame.filter(has("coverage")), pl.col("general_form_of") != ""
    caption = (
        "Share of the member's importance on which its role holds, at its position where it names one. A row that fades"
        " to the right is a role of the discovery prompts."
    )
    blocks: list[Block] = [
        chart_or_note(
            "Does the role hold where it matters?",
            caption,
            covered,
            drawn.filter(~general),
            check.coverage,
            "No role could be tested on text.",
        )
    ]
    if len(drawn.filter(general)):
        caption = (
            "The same roles as if they were claimed of every position, which the circuit does not: what they say of the"
            " component as such."
        )
        blocks.append(
            Chart(
                "Is that what it does everywhere?",
                caption,
                check.coverage(drawn.filter(general)),
                covered.source,
                "full",
            )
        )
    if len(read("role_instead").frame):
        blocks.append(_instead(read("role_instead")))
    widest = mixed.frame.filter(pl.col("ordinal") == mixed.frame["ordinal"].max()) if len(mixed.frame) else mixed.frame
    caption = (
        f"Shares of importance on {widest['distribution'][0] if len(widest) else 'the widest text'}; grey is what no"
        " behaviour of the library explains."
    )
    blocks.append(
        chart_or_note("What else it does", caption, mixed, widest, check.mixtures, "No mixture was measured.")
    )
    columns = (
        tables.words("component", "Component"),
        tables.words("role", "Role"),
        tables.words("distribution", "Distribution"),
        tables.share("coverage", "Coverage"),
        tables.share("scrambled", "Scrambled"),
        tables.count("n", "n"),
        tables.words("unit", "Of"),
        tables.words("speaks", "Speaks"),
        tables.words("refused", "Refused"),
    )
    blocks.append(
        tables.table(
            "Coverage beside its null",
            "With 95 % intervals; a role says something as far as it exceeds its scrambling.",
            covered,
            columns,
            width="full",
        )
    )
    return Section("Roles", "", tuple(blocks))


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
        tables.words("unit", "Of"),
    )
    caption = (
        "Where a head does not attend to the position that its role names; the position `end` is the last token itself."
    )
    return tables.table("What it attends to instead", caption, result, columns, width="full")


def replacement(read: Reader) -> Section:
    """How much a rule explains that replaces the component by the claim; where that is refused, why."""
    result, lines = read("replacements"), read("ledger")
    told = result.frame.filter(has("explained"))
    all_positions = (pl.col("percentile_lo") == 0) & (pl.col("percentile_hi") == ALL_PERCENTILES)
    bins = told.filter(pl.col("measure") == MEASURE, ~all_positions)
    caption = (
        "By percentile of importance, in KL; dashed: the same rule on other heads. A rule that others fit as well is"
        " not specific."
    )
    why = (
        "No component was replaced." if result.frame.is_empty() else "Every share is refused: the reasons stand below."
    )
    chart = chart_or_note("Where the claim explains the effect", caption, result, bins, check.replaced, why, "half")
    columns = (
        tables.words("component", "Component"),
        tables.words("rule", "Replaced by"),
        tables.words("measure", "Measure"),
        tables.share("explained", "Explained"),
        tables.share("null_explained", "Other heads"),
        tables.value("d_ablated", "Mean-ablated, nats"),
        tables.count("n", "Positions"),
    )
    whole = told.filter(all_positions)
    caption = "One less what the replacement costs over what mean ablation costs."
    refused = lines.frame.filter(pl.col("technique") == "replacement", pl.col("refused") != "").unique(
        ["subject", "refused"], maintain_order=True
    )
    reasons = (
        tables.words("subject", "Component"),
        tables.words("role", "Role"),
        tables.words("refused", "Why not"),
    )
    blocks = (
        chart,
        tables.table("Over all positions", caption, result, columns, whole, empty=why),
        tables.table(
            "Not told", "Members whose share is refused.", lines, reasons, refused, "full", "No share is refused."
        ),
    )
    return Section("Replacement by understanding", "", blocks if len(refused) else blocks[:2])


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
        "The most important ones, so no rate can be read off them: left the activation, right the importance in logits."
    )
    return Section(
        "Counter-examples",
        "",
        (
            tables.examples(
                "Where the claim is wrong", caption, result.source, groups, "None was looked for, or none was found."
            ),
        ),
    )


def edits(read: Reader) -> Section:
    """Edits made from the roles beside control edits, and the success rates."""
    result, lines = read("edits"), read("ledger")
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
    rates = lines.frame.filter(pl.col("technique").is_in(["edits", "swaps", "counter-examples"]), has("value"))
    rate_columns = (
        tables.words("subject", "Component"),
        tables.words("technique", "Technique"),
        tables.words("statistic", "Statistic"),
        tables.words("distribution", "Text of"),
        tables.share("value", "Rate"),
        tables.share("null_mean", "Control"),
        tables.count("n", "n"),
        tables.words("speaks", "Speaks"),
    )
    return Section(
        "Edits and swaps",
        "",
        (
            tables.table(
                "Edits",
                "The text whose edit moved it most, per edit. A role that is understood says which edits matter.",
                result,
                columns,
                width="full",
                empty="No text was edited.",
            ),
            tables.table(
                "Success rates",
                "Beside the same rate for control edits or other components.",
                lines,
                rate_columns,
                rates,
                "full",
                "No rate was measured.",
            ),
        ),
    )


def weights(read: Reader) -> Section:
    """Scores of the weights, circuits on other tasks, and what was published."""
    members = read("claims").frame.filter(pl.col("role") != "")["subject"].to_list()
    scores, cross, published = read("weight_scores"), read("cross_tasks"), read("published_numbers")
    columns = (
        tables.words("component", "Component"),
        tables.words("score", "Score"),
        tables.value("value", "Value"),
        tables.value("null_mean", "Null heads"),
        tables.value("z", "z"),
        tables.count("rank", "Rank"),
        tables.share("ignored_share", "Ignored", "share of the terms that the score leaves out"),
    )
    drawn = cross.frame.filter(has("faithfulness"))
    told = scores.frame.filter(pl.col("component").is_in(members)).sort(
        pl.col("z").abs(), descending=True, nulls_last=True
    )
    told = told.head(LARGEST).sort("component", "score")
    blocks: list[Block] = [
        tables.table(
            "Scores of the weights",
            f"What the weights alone say of the members, without any text: the {LARGEST} scores farthest from other"
            " heads; the query has all.",
            scores,
            columns,
            told,
            "full",
            "No weights were scored.",
        ),
        chart_or_note(
            "On other tasks",
            "Off the diagonal, high values mean shared machinery.",
            cross,
            drawn,
            check.tasks,
            "The run holds no other circuit.",
            "half",
        ),
    ]
    if not published.frame.is_empty():
        known = (
            tables.words("what", "Published"),
            tables.value("published", "There"),
            tables.value("found", "Here"),
            tables.words("unit", "Unit"),
            tables.words("distribution", "Distribution"),
            tables.words("source", "Source"),
        )
        blocks.append(
            tables.table(
                "Published numbers",
                "Prompts, positions and values put in differ: so may the numbers.",
                published,
                known,
                width="full",
            )
        )
    return Section("Weights, other tasks, other papers", "", tuple(blocks))


def ledger(read: Reader) -> Section:
    """The claims with their weight, agreement of techniques, and every line."""
    claims, agreed, lines = read("claims"), read("technique_agreement"), read("ledger", tested=1)
    claim_columns = (
        tables.words("subject", "Subject"),
        tables.words("role", "Role"),
        tables.count("techniques", "Techniques"),
        tables.value("weight_for", "For"),
        tables.value("weight_against", "Against"),
        tables.value("weight_undecided", "Undecided"),
        tables.count("registered", "Registered"),
        tables.count("post_hoc", "Post hoc"),
    )
    agreement = (
        tables.words("first", "Technique"),
        tables.words("second", "and"),
        tables.count("n", "Claims"),
        tables.count("agree", "Agree"),
        tables.share("expected", "By chance"),
        tables.value("could_disagree", "Could have disagreed"),
        tables.value("kappa", "κ"),
    )
    line_columns = (
        tables.words("subject", "Subject"),
        tables.words("role", "Role"),
        tables.words("technique", "Technique"),
        tables.words("distribution", "Data"),
        tables.words("statistic", "Statistic"),
        tables.share("value", "Value"),
        tables.share("null_mean", "Null"),
        tables.count("n", "n"),
        tables.words("unit", "Of"),
        tables.words("speaks", "Speaks"),
        tables.words("reason", "Compared with"),
        tables.value("weight", "Weight"),
        tables.words("status", "Status"),
    )
    shown = f" The first {LINES} of {len(lines.frame)} lines; the query has all." if len(lines.frame) > LINES else ""
    return Section(
        "The ledger",
        "",
        (
            tables.table(
                "Claims",
                "Lines that share a distribution, a technique, data or gradients count less: a line weighs 1 / (1 + its"
                " overlaps).",
                claims,
                claim_columns,
                width="full",
            ),
            tables.table(
                "Do techniques agree?",
                "Agreement counts as far as they could have disagreed.",
                agreed,
                agreement,
                empty="No claim was judged by two techniques.",
            ),
            tables.table(
                "Every line",
                f"What each number was compared with, and what it says.{shown}",
                lines,
                line_columns,
                lines.frame.head(LINES),
                "full",
            ),
        ),
    )


def predictions(read: Reader) -> Section:
    """Registered predictions, overlap of discovery and test data, and what the catalogue knew."""
    made, shared, known = read("predictions"), read("distribution_overlap"), read("role_catalogue")
    columns = (
        tables.words("statement", "Prediction"),
        tables.words("subject", "Subject"),
        tables.words("statistic", "Statistic"),
        tables.words("distribution", "Distribution"),
        tables.words("direction", ""),
        tables.value("threshold", "Threshold"),
        tables.words("outcome", "Outcome"),
        tables.value("value", "Found"),
        tables.share("overlap", "Overlap", "share of the tested examples that were discovered on"),
        tables.words("registered_at", "Registered"),
        tables.words("origin", "By"),
        tables.words("known_before", "Known before"),
        tables.words("intact", "Intact"),
    )
    overlap = (
        tables.words("distribution", "Distribution"),
        tables.count("n", "Examples"),
        tables.count("shared", "Also discovered on"),
        tables.share("overlap", "Share"),
    )
    catalogue = (
        tables.words("component", "Component"),
        tables.words("role", "Role"),
        tables.words("circuit", "Seen in"),
        tables.words("distribution", "On"),
        tables.share("coverage", "Coverage"),
        tables.words("speaks", "Speaks"),
    )
    broken = len(made.frame.filter(~pl.col("intact")))
    several = "s were" if broken > 1 else " was"
    warning = (
        f"{broken} registered prediction{several} changed or removed after it was written, or follows one that was: do"
        " not trust what is said of it here."
    )
    return Section(
        "Predictions",
        warning if broken else "",
        (
            tables.table(
                "Registered before the test",
                "Claims that stand nowhere here are post hoc. Intact: neither edited nor removed since.",
                made,
                columns,
                width="full",
                empty="None was registered: every claim above is post hoc.",
            ),
            tables.table(
                "Discovery and test data",
                "Examples that a distribution has in common with the discovery prompts.",
                shared,
                overlap,
                empty="The distributions do not list their examples.",
            ),
            tables.table(
                "The role catalogue",
                "What components of this model were seen to do, in this circuit and others.",
                known,
                catalogue,
                known.frame.head(LINES),
                empty="No role was measured.",
            ),
        ),
    )
