"""A dictionary: units that describe what stands at a site of a model again, with an encoder and a decoder.

    x ──norm──► x' ──W_enc, rule──► values ──W_dec──► reconstruction ──norm undone──► of what is written

Units are features (a sparse autoencoder, a transcoder), directions (a probe, a steering vector, a combination of
neurons) or a subspace. An autoencoder reads and writes one site; a transcoder reads what an MLP reads and writes what
it writes. The operations are those of SAELens 6.54, in its order, so that values agree to the bit. Where a norm is
undone after the decoder, its mean and size are held: a unit's part of the reconstruction is

    value * row of `rows` * `Encoding.factor`

and what is left without any unit is `rest`. Cost: two products of positions * d_in * units.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

UnitsKind = Literal["feature", "direction", "subspace"]
Input = Float[Tensor, "*position d_in"]
Values = Float[Tensor, "*position unit"]
Output = Float[Tensor, "*position d_out"]
EPS = 1e-5
"""What SAELens adds to the deviation, outside of the root."""


@dataclass(frozen=True, order=True)
class Place:
    """A layer, from 0, and a site of it: `resid_pre`, `mlp_out` (profiler.dictionaries.hooks)."""

    layer: int
    site: str

    def __str__(self) -> str:
        return f"L{self.layer}.{self.site}"


class Moved:
    """Tensors that move together to a dtype and a device."""

    def to(self, dtype: torch.dtype, device: torch.device) -> Any:
        """The same there."""
        changes = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, Tensor | Moved):
                changes[item.name] = value.to(dtype=dtype, device=device)
        return replace(self, **changes)  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class Relu(Moved):
    """relu(x W + b)."""

    bias: Float[Tensor, " unit"]

    def __call__(self, x: Input, w_enc: Float[Tensor, "d_in unit"]) -> Values:
        return (x @ w_enc + self.bias).relu()


@dataclass(frozen=True, eq=False)
class JumpRelu(Moved):
    """relu(pre) where pre = x W + b is above a threshold of the unit, else 0."""

    bias: Float[Tensor, " unit"]
    threshold: Float[Tensor, " unit"]

    def __call__(self, x: Input, w_enc: Float[Tensor, "d_in unit"]) -> Values:
        before = x @ w_enc + self.bias
        return before.relu() * (before > self.threshold)


@dataclass(frozen=True, eq=False)
class TopK(Moved):
    """relu of the k largest of x W + b, 0 elsewhere; `norms`: what they are multiplied by before, of a decoder whose
    rows count as if they were of norm 1."""

    bias: Float[Tensor, " unit"]
    k: int
    norms: Float[Tensor, " unit"] | None = None

    def __call__(self, x: Input, w_enc: Float[Tensor, "d_in unit"]) -> Values:
        before = x @ w_enc + self.bias
        before = before if self.norms is None else before * self.norms
        values, units = before.topk(self.k, -1)
        return torch.zeros_like(before).scatter_(-1, units, values.relu())


@dataclass(frozen=True, eq=False)
class Gated(Moved):
    """relu of a magnitude where a gate of the same product is above 0 (Rajamanoharan et al. 2024)."""

    b_gate: Float[Tensor, " unit"]
    b_mag: Float[Tensor, " unit"]
    r_mag: Float[Tensor, " unit"]

    def __call__(self, x: Input, w_enc: Float[Tensor, "d_in unit"]) -> Values:
        gate = x @ w_enc + self.b_gate
        return (gate > 0) * (x @ (w_enc * self.r_mag.exp()) + self.b_mag).relu()


@dataclass(frozen=True, eq=False)
class Projection(Moved):
    """x W: the projection on each column."""

    def __call__(self, x: Input, w_enc: Float[Tensor, "d_in unit"]) -> Values:
        return x @ w_enc


Rule = Relu | JumpRelu | TopK | Gated | Projection
"""How values follow from the encoder's input and W_enc."""
Norm = Literal["none", "layer_norm", "constant_norm_rescale"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """What the encoder made of some positions.

    Attributes:
        values: of every unit.
        mean, size: what a norm took away and divided by (`layer_norm`), or multiplied by (`constant_norm_rescale`).
        skipped: what a skip connection adds to the reconstruction.
    """

    values: Values
    mean: Float[Tensor, "*position 1"] | None = None
    size: Float[Tensor, "*position 1"] | None = None
    skipped: Output | None = None


@dataclass(frozen=True, eq=False)
class Dictionary(Moved):
    """A dictionary's weights, and how they are used.

    Attributes:
        kind: of its units.
        form: what it was read as, in words.
        reads, writes: where its input stands, and what it reconstructs.
        rule: values from x W_enc.
        norm: of the input; undone after the decoder where the two sites are one.
        centres: whether b_dec is taken off the input first.
        w_skip: [d_in, d_out], of a skip transcoder.
        beyond: of a cross-layer transcoder, the later sites that a unit writes, with its rows there.
        rebuilds: whether its units together reconstruct what stands at `writes`, so that an error can be measured.
        names: of the units, where the file names them.
        source, digest: where it was read from, and the hash of that.
    """

    kind: UnitsKind
    form: str
    reads: Place
    writes: Place
    w_enc: Float[Tensor, "d_in unit"]
    w_dec: Float[Tensor, "unit d_out"]
    b_dec: Float[Tensor, " d_out"]
    rule: Rule
    norm: Norm = "none"
    centres: bool = False
    w_skip: Float[Tensor, "d_in d_out"] | None = None
    beyond: tuple[tuple[Place, Float[Tensor, "unit d_out"]], ...] = ()
    rebuilds: bool = True
    names: tuple[str, ...] = ()
    source: str = ""
    digest: str = ""

    @property
    def units(self) -> int:
        """Units: features or directions; 1 for a subspace, whatever its dimensions."""
        return 1 if self.kind == "subspace" else self.w_enc.shape[1]

    @property
    def rows(self) -> Float[Tensor, "unit d_out"]:
        """What one of a unit's value adds to the reconstruction, before a norm is undone."""
        norms = getattr(self.rule, "norms", None)
        return self.w_dec if norms is None else self.w_dec / norms[:, None]

    def to(self, dtype: torch.dtype, device: torch.device) -> "Dictionary":
        """The same in a dtype on a device."""
        moved: Dictionary = super().to(dtype=dtype, device=device)
        later = tuple((place, rows.to(dtype=dtype, device=device)) for place, rows in self.beyond)
        return replace(moved, beyond=later)

    def encode(self, x: Input) -> Encoding:
        """Values of every unit, and what the norm of the input held."""
        skipped = None if self.w_skip is None else x @ self.w_skip
        mean = size = None
        if self.norm == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            x = x - mean
            size = x.std(-1, keepdim=True)
            x = x / (size + EPS)
        elif self.norm == "constant_norm_rescale":
            size = x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True)
            x = x * size
        x = x - self.b_dec if self.centres else x
        return Encoding(self.rule(x, self.w_enc), mean, size, skipped)

    def decode(self, encoded: Encoding) -> Output:
        """The reconstruction."""
        norms = getattr(self.rule, "norms", None)
        values = encoded.values if norms is None else encoded.values * (1 / norms)
        return self._outside(values @ self.w_dec + self.b_dec, encoded)

    def rest(self, encoded: Encoding) -> Output:
        """What the reconstruction has without any unit: the decoder's bias, a mean, a skip connection."""
        bias = self.b_dec.expand(*encoded.values.shape[:-1], -1)
        return self._outside(bias, encoded)

    def factor(self, encoded: Encoding) -> Float[Tensor, "*position 1"] | None:
        """What a unit's row is multiplied by at each position where a norm is undone; None: by 1."""
        if encoded.size is None or self.reads != self.writes:
            return None
        return encoded.size if self.norm == "layer_norm" else 1 / encoded.size

    def _outside(self, out: Output, encoded: Encoding) -> Output:
        """A reconstruction with the norm undone and the skip connection added."""
        if encoded.skipped is not None:
            out = out + encoded.skipped
        if encoded.size is None or self.reads != self.writes:
            return out
        return out / encoded.size if encoded.mean is None else out * encoded.size + encoded.mean
