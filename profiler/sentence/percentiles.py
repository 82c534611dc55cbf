"""Where values lie in the spectra of a run: the share of the corpus's positions whose activation is smaller.

From the density bins of the run (16 an octave), so a percentile is as fine as a bin; a value counts as the middle of
its bin. Cost: one query for all components.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from duckdb import DuckDBPyConnection as Connection
from jaxtyping import Float, Int

from profiler.database import query

DENSITIES = """SELECT component, lo, hi, n FROM density
WHERE list_contains(string_split(getvariable('labels'), ','), component) ORDER BY component, bin"""


@dataclass(frozen=True, eq=False)
class CorpusSpectrum:
    """The distribution of a component's activation over the ordinary positions of a corpus.

    Attributes:
        least: the lower edge of the first bin that holds a position.
        edges: upper edges of the bins that hold a position, ascending.
        counts: positions in each.
    """

    least: float
    edges: Float[np.ndarray, " bin"]
    counts: Int[np.ndarray, " bin"]

    @property
    def n(self) -> int:
        """Positions of the corpus."""
        return int(self.counts.sum())

    def percentile(self, value: float) -> float | None:
        """The share of positions below a value, those of its own bin as halves, in 0..1; None for NaN."""
        if np.isnan(value):
            return None
        if value < self.least:
            return 0.0
        number = int(np.searchsorted(self.edges, value, side="left"))
        own = self.counts[number] if number < len(self.counts) else 0
        return float((self.counts[:number].sum() + own / 2) / self.n)


def spectra(run: Connection, labels: Sequence[str]) -> Mapping[str, CorpusSpectrum]:
    """The spectra of components by label; those of which the run stores none (embeddings, biases) are not in it."""
    frame = query.run_text(run, DENSITIES, {"labels": ",".join(labels)})
    return {
        str(label): CorpusSpectrum(float(rows["lo"][0]), rows["hi"].cast(float).to_numpy(), rows["n"].to_numpy())
        for (label,), rows in frame.group_by("component", maintain_order=True)
        if rows["n"].sum()
    }
