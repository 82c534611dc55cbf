"""Norms on the way from a block to the logits, with their denominator held: then they are linear.

A norm y = gain * (x - mean) / s + bias (LayerNorm), or the same without the mean (RMSNorm), is linear in x once its
denominator s is held at the value it has in this pass (Elhage et al. 2021, "Handling Layer Normalization"). What gain,
bias and centring are is found by calling the norm on a few inputs, not from its name: implementations differ in where
they add 1 to the gain (Gemma), in whether they have a gain at all (OLMo 1) and in which dtype they round to.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from profiler.errors import ModelError

ROUNDING = 1e-4  # relative: norms of transformers compute in float32, those of a bfloat16 model round to 8 bits
COARSE_ROUNDING = 2e-2
GAIN_OFFSETS = (0.0, 1.0)  # what implementations add to the stored weight
EPS_NAMES = ("eps", "variance_epsilon", "epsilon")
DEFAULT_EPS = 1e-5


@dataclass(frozen=True, eq=False)
class HeldNorm:
    """A norm as a linear map, given its denominator.

    Attributes:
        gain: what the normed input is multiplied by.
        bias: what is added to it; None where nothing is.
        centres: whether the mean is subtracted (LayerNorm).
        eps: what stands under the root beside the mean square.
    """

    gain: Float[Tensor, " model"]
    bias: Float[Tensor, " model"] | None
    centres: bool
    eps: float

    def centred(self, stream: Float[Tensor, "*position model"]) -> Float[Tensor, "*position model"]:
        """What the norm divides by its denominator, in the dtype of the gain at least."""
        stream = stream.to(torch.promote_types(stream.dtype, self.gain.dtype))
        return stream - stream.mean(-1, keepdim=True) if self.centres else stream

    def denominator(self, stream: Float[Tensor, "*position model"]) -> Float[Tensor, "*position 1"]:
        """s: the root of the mean square of the input (of its deviations, for a LayerNorm), and eps."""
        return (self.centred(stream).square().mean(-1, keepdim=True) + self.eps).sqrt()

    def pull_back(
        self, direction: Float[Tensor, "*position model"], denominator: Float[Tensor, "*#position 1"]
    ) -> Float[Tensor, "*position model"]:
        """The direction before the norm that gives the same product as `direction` after it (bias apart)."""
        before = before_norm(direction, self.gain, centres=self.centres)
        return before / denominator.to(before.dtype)


def before_norm(
    direction: Float[Tensor, "*position model"], gain: Float[Tensor, " model"], *, centres: bool
) -> Float[Tensor, "*position model"]:
    """The direction before a norm that gives the same product as `direction` after it, but for the denominator."""
    before = direction * gain
    return before - before.mean(-1, keepdim=True) if centres else before


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm by its class's name, without parts of its own, and not a gated one."""
    name = type(module).__name__
    return "norm" in name.lower() and "gated" not in name.lower() and not any(True for _ in module.children())


@torch.no_grad()
def read(norm: nn.Module, name: str, d_model: int, dtype: torch.dtype) -> HeldNorm:
    """A norm of the model in `dtype`, found by calling it.

    Raises:
        ModelError: it is no LayerNorm and no RMSNorm over the last axis.
    """
    weight = getattr(norm, "weight", None)
    own = torch.float32 if weight is None else weight.dtype
    device = next((p.device for p in norm.parameters()), torch.device("cpu"))
    signs = torch.ones(d_model, dtype=own, device=device)
    signs[1::2] = -1
    eps = float(next((getattr(norm, key) for key in EPS_NAMES if getattr(norm, key, None) is not None), DEFAULT_EPS))
    zero, ones, turned = (norm(x[None, None])[0, 0].to(dtype) for x in (torch.zeros_like(signs), signs**2, signs))
    centres = bool((ones - zero).abs().max() < ROUNDING * (turned - zero).abs().max()) and d_model > 1
    probe = signs.to(dtype)
    probe = probe - probe.mean() if centres else probe  # an odd number of signs has a mean
    gain = (turned - zero) / probe * (probe.square().mean() + eps).sqrt()
    size = gain.abs().max().clamp_min(torch.finfo(dtype).tiny)
    near = COARSE_ROUNDING if own.itemsize < torch.float32.itemsize else ROUNDING
    stored = (
        [torch.ones_like(gain)] if weight is None else [weight.detach().to(dtype) + offset for offset in GAIN_OFFSETS]
    )
    exact = next((value for value in stored if (value - gain).abs().max() <= near * size), None)
    if exact is None:
        raise ModelError(
            f"{name!r} ({type(norm).__name__}) is no LayerNorm and no RMSNorm of {d_model} values: what is written"
            " before it cannot be followed to the logits"
        )
    bias = getattr(norm, "bias", None)
    added = None if bias is None or not bool(bias.any()) else bias.detach().to(dtype)
    return HeldNorm(exact, added, centres, eps)
