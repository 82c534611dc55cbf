"""How many windows are read at once, so that a batch stays within a stated amount of memory on any model.

A batch takes what writers read at its positions, and what attribution and statistics make of a block's values. As long
as a window fits, all that writers read is held until the forward pass has ended (attribution needs the denominator of
the final norm), and the batch is as many windows as fit. Where no window fits so, the pass runs twice: once for
denominators, logits and attention, and once in which each block's values are attributed, counted and let go before the
next block computes its own. Memory is then that of the largest block and does not grow with the layers; the cost is
another forward pass.

Where total effects are recorded, what the forward pass leaves for the backward one is held too, and batches are at most
TOKENS tokens; a window that does not fit is read all the same.

The sizes follow from the settings and the model alone, so a chunk has the same bits wherever it is read.
"""

from dataclasses import dataclass

from profiler.config import RunConfig
from profiler.model.components import ModelSpec
from profiler.model.forward import logit_rows
from profiler.model.load import DTYPES
from profiler.recording.selection import sized

BATCH_BYTES = 2_000_000_000
"""Memory of a batch where none is asked for; more where a window needs more to be read in one forward pass."""
STREAM_COPIES, UNIT_COPIES, LOGIT_COPIES, ATTENTION_COPIES, GRAPH_COPIES = 8, 4, 4, 3, 6
"""Tables alive at once: of the residual stream, of a block's values, of the logits that are made at a time, of
attention weights, and of what all writers read where a backward pass follows."""
TOKENS = 4096
"""Most tokens of a batch that a backward pass follows, but for a single window."""
NUMBER = 4  # bytes of a float32


@dataclass(frozen=True)
class BatchSizes:
    """How windows become batches.

    Attributes:
        windows: most windows of a batch.
        budget: most bytes of a batch; a single window may take more.
        fixed: bytes that do not grow with the batch: logits and attention rows of sampled positions, and a block's
            weights where they are cast.
        held, single: bytes of a position where what all writers read is held, and where one block's values are.
        positions: where a backward pass follows, most positions of a batch but for a single window; all that writers
            read is then held. None: no backward pass follows.
    """

    windows: int
    budget: int
    fixed: int
    held: int
    single: int
    positions: int | None = None

    @classmethod
    def of(cls, config: RunConfig, spec: ModelSpec) -> "BatchSizes":
        """Those of a pass."""
        config, values, length = sized(config, spec), spec.footprint, spec.context_length
        own, work = DTYPES[config.dtype].itemsize, 8 if config.dtype == "float64" else NUMBER
        formed = ATTENTION_COPIES * values.formed * length * max(own, NUMBER)
        described = sum(facts.width for facts in spec.dictionaries) * own
        largest = max([values.largest, *(facts.block.units for facts in spec.dictionaries)])
        made = (STREAM_COPIES * spec.d_model + UNIT_COPIES * largest) * work + formed + described
        held, single = made + values.held * own, made + values.largest * own
        if config.effects == "total":
            held += GRAPH_COPIES * values.held * own
            single = held
        rows = min(config.dense_positions or 0, config.batch_size * length, config.tokens or config.batch_size * length)
        logits = LOGIT_COPIES * min(rows, logit_rows(spec.n_vocab, own)) * spec.n_vocab * work
        attention = ATTENTION_COPIES * rows * spec.n_heads * length * work
        cast = 0 if own >= work else values.largest * spec.d_model * work
        fixed = max(logits, attention) + cast
        budget = config.batch_memory or max(BATCH_BYTES, fixed + length * held)
        positions = TOKENS if config.effects == "total" else None
        return cls(config.batch_size, budget, fixed, held, single, positions)

    @property
    def room(self) -> int:
        """Bytes for positions."""
        return max(0, self.budget - self.fixed)

    def holds(self, positions: int) -> bool:
        """Whether what all writers read at so many positions is held until the pass has ended."""
        return self.positions is not None or positions * self.held <= self.room

    def fitting(self, width: int) -> int:
        """Windows of a batch whose longest has `width` tokens."""
        bytes_of_position = self.held if self.holds(width) else self.single
        positions = self.room // bytes_of_position
        if self.positions is not None:
            positions = min(positions, self.positions)
        return max(1, min(self.windows, positions // width))

    def bytes_of(self, windows: int, width: int) -> int:
        """Bytes of a batch of so many windows of `width` tokens."""
        positions = windows * width
        return self.fixed + positions * (self.held if self.holds(positions) else self.single)
