"""Results of `Run.patch`, `Run.check`, `Run.effects`, `Run.report` and a pass: frozen, with polars frames, and text
that prints well.

No torch: a result can be made, shown and tested without a model.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from profiler.circuits import yaml_files
from profiler.circuits.circuit import Circuit
from profiler.generality.evidence.distributions import Distribution
from profiler.generality.evidence.finding import Finding
from profiler.generality.evidence.verdict import Verdict
from profiler.pages.visible_text import plain, visible
from profiler.statistics import LEVEL, ROUNDING, least_random_p

PAIR_SETS = {"discovery": "on its own pairs", "test": "on fresh pairs", "held_out": "on held-out words and wordings"}
KL_RECOVERED = "KL recovered"
"""The statistic under which findings hold the share of the KL divergence that a circuit recovers on running text."""
PRINTED_COLUMNS = 200
"""Characters of a printed table's line, at most."""


@dataclass(frozen=True)
class Step:
    """How far a long call is.

    Attributes:
        text: what is being done, or what is to be said (`is_note`).
        done, total: steps that have begun, and all of them.
        is_note: a forecast or a remark rather than a step.
    """

    text: str
    done: int
    total: int
    is_note: bool = False


Report = Callable[[Step], None]


def silent(_step: Step) -> None:
    """Report nothing."""


@dataclass(frozen=True, eq=False, repr=False)
class PatchResult:
    """A patching experiment: its circuit, how good the circuit is, and every table that was written into the run.

    Attributes:
        run: the run file.
        experiment: name of the experiment: task, scheme and a hash of the settings.
        circuit: the circuit that was chosen, or the one that was given.
        frames: the tables by name: patch_effects, patch_gates, circuit_scores and so on.
    """

    run: Path
    experiment: str
    circuit: Circuit
    frames: Mapping[str, pl.DataFrame]

    @property
    def members(self) -> pl.DataFrame:
        """A row per member: component, positions, gate, role."""
        names = ("component", "positions", "gate", "role")
        rows = [{name: getattr(member, name) for name in names} for member in self.circuit.members]
        return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String))

    @property
    def metric(self) -> str:
        """What the circuit is judged by, in words."""
        return str(self.frames["patch_experiments"]["metric_words"][0])

    @property
    def scores(self) -> pl.DataFrame:
        """The table circuit_scores: a row per set of pairs and metric, with interval."""
        return self.frames["circuit_scores"]

    def sentences(self) -> tuple[str, ...]:
        """How good the circuit is: one sentence for each set of pairs."""
        sets, words = self.scores["pair_set"].unique(maintain_order=True), self.metric
        return tuple(
            f"{PAIR_SETS.get(name, name)}: {quality(self.scores.filter(pair_set=name), words)}" for name in sets
        )

    def save(self, path: str | Path) -> Path:
        """Write the circuit as YAML, to be checked on another run or edited."""
        yaml_files.write(Path(path), self.circuit)
        return Path(path)

    def __repr__(self) -> str:
        count = len(self.circuit.members)
        edges = f", {len(self.circuit.edges)} edges" if self.circuit.by_edges else ""
        lines = [f"{self.experiment}: {count} member{'s' * (count != 1)}{edges}"]
        for member in self.circuit.members:
            at = "" if member.positions == "all" else f" at {member.positions}"
            lines.append(f"  {member.component}{at}  {member.gate}  {member.role}")
        return "\n".join(str(plain(line)) for line in (*lines, *self.sentences()))

    def _repr_html_(self) -> str:
        """The sentences and the members, for a notebook."""
        return _html((self.experiment, *self.sentences()), self.members)


def quality(scores: pl.DataFrame, metric: str = "logit difference") -> str:
    """How good a circuit is on one set of pairs: faithfulness, chance, incompleteness, minimality, stability.

    Args:
        scores: the rows of table circuit_scores of one set of pairs.
        metric: what the effect is measured by, in words.
    """
    by_metric = {row["metric"]: row for row in scores.to_dicts()}
    if "faithfulness" not in by_metric:
        return f"the model shows no effect here that a circuit could explain ({metric})"
    faithfulness, chance = by_metric["faithfulness"], by_metric.get("random_p")
    parts = [
        f"recovers {faithfulness['score']:.1%} [{faithfulness['low']:.1%}, {faithfulness['high']:.1%}] of the effect"
        f" ({metric})"
    ]
    if chance is not None:
        as_good = round(chance["score"] * (1 + chance["n"])) - 1
        least = least_random_p(chance["n"])
        undecided = "" if least < LEVEL else f"; undecided, since {chance['n']} cannot give less than {least:.2g}"
        parts.append(
            f"{as_good or 'none'} of {chance['n']} random circuits are as close to 100 % and as necessary"
            f" (p = {chance['score']:.2g}{undecided})"
        )
    if "incompleteness_greedy" in by_metric:
        parts.append(f"incomplete by up to {by_metric['incompleteness_greedy']['score']:.1%}")
    if "minimality" in by_metric:
        parts.append(f"least important member: removing it costs {by_metric['minimality']['score']:.1%}")
    if "stability_jaccard" in by_metric:
        parts.append(f"{by_metric['stability_jaccard']['score']:.0%} alike (Jaccard) when pairs are resampled")
    return "; ".join(parts)


@dataclass(frozen=True, eq=False, repr=False)
class CheckResult:
    """A check of a circuit: the verdict, and what it rests on. The run holds the same, with every detail.

    Attributes:
        run: the run file.
        circuit: the circuit that was checked.
        verdict: the verdict, with its ledger of evidence.
        distributions: the distributions, nearest first.
        findings: every measured number, with interval.
        overlap: share of a distribution's examples that the circuit was found on, by its name.
    """

    run: Path
    circuit: Circuit
    verdict: Verdict
    distributions: tuple[Distribution, ...]
    findings: tuple[Finding, ...]
    overlap: Mapping[str, float] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """The verdict in one word: generalises, narrows, does something else, over-recovers or inconclusive."""
        return self.verdict.word

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in a sentence, then what would change it."""
        return (self.verdict.sentence, *self.verdict.change)

    @property
    def measured(self) -> tuple[str, ...]:
        """A sentence on the metric, where it is not the logit difference."""
        name = self.circuit.scope.metric
        return () if name == "logit_diff" else (f"Faithfulness and necessity on prompts are measured by {name}.",)

    def as_dict(self) -> dict[str, Any]:
        """The verdict and every number behind it, of plain values: what `--json` prints."""
        return {
            "run": str(self.run),
            "circuit": self.circuit.name,
            "members": list(self.circuit.components),
            "verdict": self.word,
            "sentences": [*self.measured, *self.sentences],
            "distributions": self.table.to_dicts(),
            "findings": [asdict(finding) for finding in self.findings],
        }

    @property
    def table(self) -> pl.DataFrame:
        """A row per distribution: faithfulness, necessity and KL recovered with 95 % intervals, and random circuits.

        A cell says `refused` where too few examples, or a model that does not do the task, leave no number; `note`
        gives the reason. `over` marks a circuit that recovers more than the whole effect. `found on` is the share of
        the examples that the circuit was found on; empty where nothing was run on them.
        """
        by_name: dict[tuple[str, str, str], Finding] = {
            (finding.distribution, finding.technique, finding.statistic): finding
            for finding in self.findings
            if finding.subject == self.circuit.name
        }

        def cell(distribution: str, *names: tuple[str, str]) -> str:
            finding = next((by_name[distribution, *n] for n in names if (distribution, *n) in by_name), None)
            if finding is None:
                return ""
            if finding.value is None:
                return "refused"
            over = finding.statistic == "faithfulness" and finding.lo is not None and finding.lo > 1 + ROUNDING
            return f"{finding.value:.2f} [{finding.lo:.2f}, {finding.hi:.2f}]{' over' if over else ''}"

        prompts, text = ("faithfulness", "faithfulness"), ("corpus faithfulness", "faithfulness")
        recovered = ("corpus faithfulness", KL_RECOVERED)
        rows = []
        for distribution in self.distributions:
            name = distribution.name
            faithful = by_name.get((name, *prompts)) or by_name.get((name, *recovered))
            rows.append(
                {
                    "distribution": name,
                    "n": distribution.n_prompts or distribution.n_tokens,
                    "of": "prompts" if distribution.n_prompts else "positions",
                    "found on": f"{self.overlap[name]:.0%}" if name in self.overlap else "",
                    "faithfulness": cell(name, prompts, text),
                    "necessity": cell(name, ("necessity", "necessity")),
                    "KL recovered": cell(name, recovered),
                    "random": None if faithful is None or faithful.null is None else round(faithful.null, 2),
                    "note": distribution.refused or (faithful.refused if faithful is not None else ""),
                }
            )
        return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"random": pl.Float64})

    def __repr__(self) -> str:
        lines = (
            f"{self.circuit.name}: {self.word}",
            self.verdict.sentence,
            *self.measured,
            *(f"  {s}" for s in self.verdict.change),
        )
        return "\n".join(str(plain(line)) for line in (*lines, _printed(self.table)))

    def _repr_html_(self) -> str:
        """The verdict and the distributions, for a notebook."""
        return _html((self.word, *self.sentences), self.table)


@dataclass(frozen=True, eq=False, repr=False)
class EffectsResult:
    """A pass of total effects: every table that was written into the run.

    Attributes:
        run: the run file.
        frames: the tables by name: effect_totals, effect_reliability and so on.
    """

    run: Path
    frames: Mapping[str, pl.DataFrame]

    @property
    def passes(self) -> pl.DataFrame:
        """The table effect_passes: a row per method, with what was read and what it cost."""
        return self.frames["effect_passes"]

    def sentences(self) -> tuple[str, ...]:
        """What was read, method by method, and what was left out."""
        rows = self.passes.to_dicts()
        said = tuple(
            f"{row['method']}: {row['n_positions']:,} positions of {row['n_documents']:,} documents"
            f" ({row['n_tokens']:,} of {row['n_corpus']:,} tokens; {row['n_special']:,} special positions left out), at"
            f" {row['cost']:.1f} times the cost of a forward pass"
            for row in rows
        )
        left_out = rows[0]["left_out"]
        experts = (f"{left_out:,} neurons of routed experts have no total effect here",) if left_out else ()
        return (*said, *((rows[0]["note"],) if rows[0]["note"] else ()), *experts)

    def __repr__(self) -> str:
        return "\n".join(str(plain(line)) for line in self.sentences())

    def _repr_html_(self) -> str:
        """The sentences and the methods, for a notebook."""
        return _html(self.sentences(), self.passes)


@dataclass(frozen=True)
class ReportFile:
    """A page that was written: its path, its size in bytes, and the picture of it where one was asked for."""

    path: Path
    bytes: int
    picture: Path | None = None


@dataclass(frozen=True, eq=False)
class RunSummary:
    """What is in a run, as `profiler info` shows it.

    Attributes:
        facts: the row of table `runs` by column name: model, corpus, speed, closure.
        corpus, sizes, drops: documents and tokens by domain; rows by table; what was dropped, cut or left out.
        unfinished: what the run lacks and how to make it; None where it is whole.
        dictionaries: how well each reconstructs what the model writes; empty where there are none.
    """

    facts: Mapping[str, Any]
    corpus: pl.DataFrame
    sizes: pl.DataFrame
    drops: pl.DataFrame
    unfinished: str | None
    dictionaries: pl.DataFrame


@dataclass(frozen=True, eq=False)
class FoundComponents:
    """Components that do something, or are important where it holds, in the order of query components_by_behaviour.

    Attributes:
        behaviour, description: the claim that was asked, its name and words.
        near: names of behaviours that were nearly as well described by what was asked.
        frame: the answer of query components_by_behaviour.
    """

    behaviour: str
    description: str
    near: tuple[str, ...]
    frame: pl.DataFrame

    @property
    def described(self) -> str:
        """What was asked, what else it may have meant, and how many components say nothing of it."""
        said = f"{self.behaviour}: {self.description}"
        if self.near:
            said += f". Near to it: {', '.join(self.near)}"
        if self.frame.is_empty():
            return f"{said}. No component has enough positions where it holds: lower --least, or record more text"
        n = self.frame["n_left_out"][0]
        return said + (f". Left out for too few positions or documents: {n:,} components" if n else "")


@dataclass(frozen=True, eq=False, repr=False)
class TextResult:
    """What the model and its components do on a text, beside what they do in the run's corpus.

    Attributes:
        text: the text.
        component: the label that was named; None where the components of the largest |DLA| are shown.
        changes: what was changed in the pass, in words.
        tokens, components, next_tokens, attention: frames (`profiler.sentence.answer.TextAnswer`).
        sentences: what they say.
    """

    text: str
    component: str | None
    changes: tuple[str, ...]
    tokens: pl.DataFrame
    components: pl.DataFrame
    next_tokens: pl.DataFrame
    attention: pl.DataFrame | None
    sentences: tuple[str, ...]

    @property
    def table(self) -> pl.DataFrame:
        """A row per token: what the named component does there, or the labels of the shown ones; and p of the next."""
        own = ["offset", "token"]
        if self.component is None:
            shown = self.components.group_by("offset", maintain_order=True).agg(
                pl.format("{} {}", "component", pl.col("dla").map_elements("{:+.3g}".format, pl.String))
                .str.join(", ")
                .alias("largest_dla")
            )
            own.append("largest_dla")
        else:
            shown = self.components.drop("rank", "component").join(self._attended, on="offset", how="left")
            own += [name for name in shown.columns if name != "offset"]
        rest = [name for name in self.tokens.columns if name not in (*own, "special")]
        return self.tokens.join(shown, on="offset", how="left", maintain_order="left").select(*own, *rest)

    @property
    def _attended(self) -> pl.DataFrame:
        """Of each token the one that a named head attends to most, and how much."""
        if self.attention is None:
            return self.tokens.select("offset").head(0)
        top = self.attention.sort("weight", descending=True).group_by("offset").first()
        names = self.tokens.select(pl.col("offset").alias("key_offset"), pl.col("token").alias("attends_to"))
        joined = top.join(names, on="key_offset", how="left")
        return joined.select("offset", "attends_to", pl.col("weight").alias("attention"))

    def __repr__(self) -> str:
        """The sentences, then the tokens and the likeliest next tokens."""
        return "\n".join([*self.sentences, "", _printed(self.table), "", _printed(self.next_tokens.drop("token_id"))])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return _html(self.sentences, self.table)


def _printed(frame: pl.DataFrame) -> str:
    """All rows and columns of a frame as text."""
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=PRINTED_COLUMNS,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_formatting="NOTHING",
        fmt_str_lengths=PRINTED_COLUMNS,
    ):
        return str(frame)


def _html(sentences: tuple[str, ...], frame: pl.DataFrame) -> str:
    """Sentences above a frame, escaped."""
    paragraphs = Markup("").join(Markup("<p>{}</p>").format(visible(sentence)) for sentence in sentences)
    return str(paragraphs) + frame._repr_html_()
