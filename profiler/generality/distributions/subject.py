"""The subject of a check: a circuit, its model, its run and the distributions, prepared once for all stages.

Why: every technique asks the same circuit on the same distributions; what is shared is read, encoded and run once, and
every finding is made by the subject's questions. Cost: none beyond what `distributions` and `text` did; traces of all
prompts and the token ids of the corpus stay in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from profiler.circuits.circuit import Circuit
from profiler.circuits.nodes import node_labels
from profiler.circuits.positions import position_role
from profiler.generality.evidence.claims import claim_of
from profiler.generality.evidence.distributions import CORPUS, DISCOVERY, Distribution
from profiler.generality.evidence.finding import NO_NULL, Finding, Interval, Null, Question, Technique
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.model.load import Model
from profiler.model.steps.network import Network
from profiler.patching.setting import PairRuns, PatchSettings
from profiler.text.windows import Batch, Layout, Window

Report = Callable[[str], None]


@dataclass(frozen=True)
class Reread:
    """What may be read again on behalf of a run, whose own word is not enough: a stranger may have written it.

    Attributes:
        corpora: names of the run's corpora, from whoever gives the command; they stand in the place of those that the
          run names.
        agreed: read the files and hub datasets that the run names, its corpora and its files of pairs.
        remote_code: code that comes with a hub dataset may be run.
    """

    corpora: tuple[str, ...] = ()
    agreed: bool = False
    remote_code: bool = False


@dataclass(frozen=True)
class CheckSettings:
    """Everything that changes the numbers of a check.

    Attributes:
        tokens: most tokens of the run's corpus to read again; None reads what the run read.
        pairs: prompts of each distribution of prompts. With 48 a third of the circuits that truly generalise stay
            inconclusive, with 96 a sixth (100 planted ones; the discovery prompts being 48).
        draws: random circuits.
        seed: of every draw.
        distributions: distributions of the user's own, NAME=FILE.jsonl or NAME=sql:CONDITION.
        reread: what may be read again besides the bundled corpus.
        left_out: names of stages that are not run (`profiler.generality.check.STAGES`).
        thresholds: what decides the verdict and its findings.
    """

    tokens: int | None = None
    pairs: int = 96
    draws: int = 99
    seed: int = 0
    distributions: tuple[str, ...] = ()
    reread: Reread = Reread()
    left_out: tuple[str, ...] = ()
    thresholds: Thresholds = DEFAULT


@dataclass(frozen=True, eq=False)
class PromptDistribution:
    """A distribution of pairs; `setting` holds them with both runs of the model, None where it is refused."""

    distribution: Distribution
    setting: PairRuns | None


@dataclass(frozen=True, eq=False)
class CorpusDistribution:
    """A distribution of running text: which of the text's ordinary positions belong to it, in the order of `RunText`.

    Attributes:
        questions: where the distribution's positions are triggers, their index in the flat arrays, answer and
            distractors.
    """

    distribution: Distribution
    chosen: Bool[np.ndarray, " position"]
    questions: tuple[tuple[int, int, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, eq=False)
class RunText:
    """The run's corpus, read again: windows in batches.

    Flat arrays list ordinary positions, batch by batch, row by row.

    Attributes:
        batches: as the recording pass makes them.
        layout: of the windows.
        domains: names by domain id.
        n_corpus: tokens that the run read; `n_tokens` of them were read again.
        note: what was left out and why; empty where everything was read.
    """

    batches: tuple[Batch, ...]
    layout: Layout
    domains: tuple[str, ...]
    n_tokens: int
    n_corpus: int
    note: str = ""

    @cached_property
    def position_ids(self) -> Int[np.ndarray, " position"]:
        """Position ids as in the run."""
        return self._flat([batch.position_ids[batch.ordinary].numpy() for batch in self.batches], np.int64)

    @cached_property
    def documents(self) -> Int[np.ndarray, " position"]:
        """Document of each position: the unit that is drawn independently."""
        return self.position_ids >> 32

    @cached_property
    def domain_ids(self) -> Int[np.ndarray, " position"]:
        """Domain of each position."""
        rows = [batch.domains[:, None].expand_as(batch.ordinary)[batch.ordinary].numpy() for batch in self.batches]
        return self._flat(rows, np.int64)

    def parts(self) -> Iterator[tuple[Batch, slice]]:
        """Each batch, and the slice of its positions in the flat arrays."""
        begin = 0
        for batch in self.batches:
            end = begin + int(batch.ordinary.sum())
            yield batch, slice(begin, end)
            begin = end

    @property
    def windows(self) -> tuple[Window, ...]:
        """All windows, in the order of the batches."""
        return tuple(window for batch in self.batches for window in batch.windows)

    def _flat(self, rows: list[np.ndarray], dtype: type) -> np.ndarray:
        return np.concatenate(rows).astype(dtype) if rows else np.zeros(0, dtype=dtype)


@dataclass(frozen=True, eq=False)
class Distributions:
    """All distributions, nearest first."""

    prompts: tuple[PromptDistribution, ...]
    corpus: tuple[CorpusDistribution, ...] = ()

    @property
    def all(self) -> tuple[Distribution, ...]:
        """Their rows, in order."""
        rows = (*(source.distribution for source in self.prompts), *(source.distribution for source in self.corpus))
        return tuple(sorted(rows, key=lambda distribution: distribution.ordinal))

    def setting(self, name: str = DISCOVERY) -> PairRuns | None:
        """Pairs and runs of a distribution of prompts; None where it is refused or not there."""
        return next((prompts.setting for prompts in self.prompts if prompts.distribution.name == name), None)


@dataclass(frozen=True, eq=False)
class CheckSubject:
    """A circuit to be checked, with everything that the stages share.

    Attributes:
        model, net: the model, and its weights as plain functions.
        circuit: the circuit, with the role claimed for each member.
        run: file of the run.
        task: settings that the circuit's pairs are drawn by; None where its task is not known.
        distributions: the distributions.
        text: the run's corpus; empty where the run has none.
        settings: what changes the numbers.
        report: told what is being done.
    """

    model: Model
    net: Network
    circuit: Circuit
    run: Path
    task: PatchSettings | None
    distributions: Distributions
    text: RunText
    settings: CheckSettings
    report: Report = field(default=print)

    def question(
        self, technique: Technique, distribution: Distribution, component: str = "", role: str = "", **changes: Any
    ) -> Question:
        """A question about the circuit, or about one of its members, on a distribution.

        Args:
            component: label of the member; the circuit as a whole by default.
            role: what is asked of it; where that is not the circuit's own role but its general form, the circuit's
                words stand beside it.
            changes: other fields of the question; unit and shares are the distribution's by default.
        """
        own = next((member.role for member in self.circuit.members if member.component == component), "")
        return Question(
            component or self.circuit.name,
            role,
            technique,
            distribution.name,
            **{
                "unit": distribution.unit,
                "shares": distribution.shares,
                "general_form_of": own if role and position_role(own) and role != own else "",
                "thresholds": self.settings.thresholds,
                **changes,
            },
        )

    def finding(
        self,
        technique: Technique,
        distribution: Distribution,
        statistic: str,
        measured: Interval,
        null: Null = NO_NULL,
        **changes: Any,
    ) -> Finding:
        """A number about the circuit as a whole."""
        return self.question(technique, distribution, **changes).finding(statistic, measured, null)

    def refused(
        self, technique: Technique, distribution: Distribution, statistic: str, n: int, why: str, **changes: Any
    ) -> Finding:
        """A number about the circuit as a whole that is not given, and why."""
        return self.question(technique, distribution, **changes).refused(statistic, n, why)

    @cached_property
    def corpus(self) -> Distribution:
        """The distribution of all running text, by name: what its findings have in common."""
        return Distribution(CORPUS, 0, "corpus", "")

    @cached_property
    def mlps(self) -> bool:
        """Whether all MLPs are nodes; otherwise those that the circuit does not list are always kept."""
        return bool(self.task and self.task.mlps) or "MLPs" not in self.circuit.scope.intact

    @cached_property
    def nodes(self) -> list[str]:
        """Labels of everything that is inside or outside the circuit, whole: running text has no roles."""
        return node_labels(self.net, self.whole, mlps=self.mlps)

    @cached_property
    def keep(self) -> Bool[np.ndarray, " node"]:
        """Mask of the nodes that are members."""
        return np.array([node in self.circuit.components for node in self.nodes])

    @cached_property
    def general(self) -> Circuit:
        """The circuit with roles that claim something of every position.

        Roles that name positions of prompts are replaced by their general form.
        """
        forms = {m.component: claim_of(m.role, m.component) for m in self.circuit.members if position_role(m.role)}
        members = tuple(
            replace(m, role=form.role) if (form := forms.get(m.component)) else m for m in self.circuit.members
        )
        return replace(self.circuit, members=members)

    @cached_property
    def whole(self) -> Circuit:
        """The circuit with every member at all positions."""
        return replace(self.circuit, members=tuple(replace(member, positions="all") for member in self.circuit.members))
