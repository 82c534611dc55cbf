"""Fixed 64-bit sampling keys: what is sampled does not depend on batch size, order or number of workers.

Each (run seed, document, offset in the document) has a key, and each component permutes the keys of all positions by a
bijection of its own (xor with the component's mark, then a product with an odd number, modulo 2^64). The k positions of
the smallest keys in a stratum are a simple random sample of it, and samples merge exactly. Components get different
positions: one generator seeded by layer and head numbers, as some tools use, repeats streams (anchors, trap S6).

Cost: two integer operations per component and position. Mixing constants are those of SplitMix64 (Steele, Lea and
Flood 2014).
"""

import hashlib

import torch
from jaxtyping import Int
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def signed(value: int) -> int:
    """`value` modulo 2^64 as a signed 64-bit integer."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def stable_hash(text: str) -> int:
    """A 64-bit hash of `text`, the same on every machine and in every process (signed)."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little", signed=True
    )


def _shift_right(values: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Logical (not arithmetic) right shift of int64."""
    shifted: Tensor = (values >> bits) & (2 ** (64 - bits) - 1)
    return shifted


def mix(values: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """SplitMix64's finaliser: an avalanche of 64 bits, a bijection (int64 in and out)."""
    values = (values ^ _shift_right(values, 30)) * signed(MIX_1)
    values = (values ^ _shift_right(values, 27)) * signed(MIX_2)
    return values ^ _shift_right(values, 31)


def position_keys(seed: int, document: str, offsets: Int[Tensor, " offset"]) -> Int[Tensor, " offset"]:
    """Keys of positions of a document, int64, uniform over all 64-bit values.

    Args:
        seed: the run's seed.
        document: the document's domain and source.
        offsets: window number * context length + offset, int64.
    """
    start = stable_hash(f"{seed}\x00{document}")
    return mix((offsets + 1) * signed(GOLDEN) + start)


def component_marks(seed: int, n_components: int) -> Int[Tensor, " component"]:
    """One random 64-bit mark per component, int64."""
    return mix(torch.arange(1, n_components + 1) * signed(GOLDEN) + stable_hash(f"components {seed}"))


def component_keys(keys: Int[Tensor, " token"], marks: Int[Tensor, " component"]) -> Int[Tensor, "token component"]:
    """The key of each position for each component, int64: uniform and, between components, in a different order."""
    return (keys[:, None] ^ marks) * signed(GOLDEN)
