"""What is true of a model written by hand: its circuit, the word it earns, and its answers with heads silenced.

Cost: none, plain data, no torch.
"""

from dataclasses import dataclass

from profiler.generality.evidence.verdict import Word
from profiler.prompts.pairs import Pair

DISCOVERY_PROMPTS = "discovery"
"""The prompt set that the circuit is chosen on; all others are wider distributions."""


@dataclass(frozen=True)
class ModelSize:
    """How much that does nothing is put around a circuit.

    Attributes:
        name: of the size.
        heads: heads of every layer, at least; those that the circuit does not need are inert.
        layers: layers, at least; those behind the circuit's are inert.
        neurons: inert neurons of every layer.
        spare: residual dimensions that nothing but inert components writes to.
    """

    name: str
    heads: int
    layers: int
    neurons: int
    spare: int


SIZES = (
    ModelSize("small", 4, 2, 4, 8),
    ModelSize("medium", 8, 7, 16, 16),
    ModelSize("large", 12, 12, 32, 32),
)
"""8, 56 and 144 heads: the bundled model has 32, GPT-2 small 144."""


@dataclass(frozen=True)
class TrueCircuit:
    """The circuit of a model, exactly.

    Attributes:
        name: of the model.
        members: heads without which some answer changes, by label.
        edges: (writer, reader) between members, and from members to the logits; readers name their input: L1H0.k.
        roles: (member, where it acts and what it attends to there on discovery prompts, as `patch` words it); members
            that attend to no one position have none.
        word: what a check of the circuit should print.
        why: why that word, in a sentence.
        claimed: (member, role) of the circuit that is checked where it is not the one that patch finds; else empty.
    """

    name: str
    members: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    roles: tuple[tuple[str, str], ...]
    word: Word
    why: str
    claimed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Silencing:
    """Logit differences of the clean prompts of one set while some heads write nothing.

    Attributes:
        heads: labels of the heads that are silenced; empty for the whole model.
        clean: logit difference of each pair, answers' mean minus distractors' mean.
    """

    heads: tuple[str, ...]
    clean: tuple[float, ...]


@dataclass(frozen=True)
class PromptSet:
    """Pairs of one distribution with the model's exact logit differences.

    Attributes:
        name: `discovery`, or the name of a wider distribution.
        pairs: clean and corrupted prompts.
        corrupted: logit difference of each corrupted prompt.
        silencings: of the clean prompts; the whole model first.
    """

    name: str
    pairs: tuple[Pair, ...]
    corrupted: tuple[float, ...]
    silencings: tuple[Silencing, ...]
