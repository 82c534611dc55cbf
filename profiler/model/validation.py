"""Whether what is read off a model is what it computes: checked when it is loaded, apart from rounding.

A few windows, one of them longer than any sliding window, run through the network as it is and through the watched
network: the logits must be the same, the parts must add up to them, attention weights must mix the values to what the
attention wrote, and no token may change what stands before it. A model that fails is refused with what failed.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from profiler.config import ModelSettings
from profiler.errors import ModelError
from profiler.model import wiring as wires
from profiler.model import writers
from profiler.model.components import Block, ModelSpec
from profiler.model.direct import Weights, add_up, by_part, centred_logit, final_norm
from profiler.model.forward import Forward, Wanted
from profiler.model.wiring import Wiring
from profiler.model.writers import Sources

SHORT = 12  # tokens of the short window
LONGEST = 512  # tokens of the long window at most, so that loading stays cheap
BEYOND = 8  # tokens past a sliding window
ROUNDING = {torch.float64: 2e-6, torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.005}
"""Largest difference relative to the largest value that rounding explains; some models round to float32 inside,
whatever their dtype."""
LENGTH_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length")
WINDOW_FIELDS = ("sliding_window", "window_size", "attention_chunk_size", "attention_window_size", "local_attention")


@dataclass(frozen=True, eq=False)
class Probe:
    """Windows to try a model on: one short, one longer than a sliding window where the model has one."""

    windows: tuple[Int[Tensor, "1 _"], ...]


def longest(network: PreTrainedModel) -> int | None:
    """Positions a model knows; None where its configuration does not say."""
    config = network.config.get_text_config()
    return next(
        (int(n) for n in (getattr(config, f, None) for f in LENGTH_FIELDS) if isinstance(n, int) and n > 0), None
    )


def probe(network: PreTrainedModel, config: ModelSettings) -> Probe:
    """Windows of arbitrary tokens."""
    text, device = network.config.get_text_config(), network.get_output_embeddings().weight.device
    sizes = [getattr(text, field, None) for field in WINDOW_FIELDS]
    sliding = max((n for n in sizes if isinstance(n, int)), default=0)
    known = min(longest(network) or LONGEST, config.context_length or LONGEST, LONGEST)
    lengths = sorted({min(SHORT, known), min(max(sliding + BEYOND, SHORT), known)})
    n_vocab = _tokens_known(network)
    return Probe(tuple(((torch.arange(n, device=device) * 7 + 1) % n_vocab)[None] for n in lengths))


def read(network: PreTrainedModel, windows: Probe, name: str, dtype: torch.dtype) -> tuple[Wiring, Sources]:
    """The wiring and the writers of a network.

    Raises:
        ModelError: they cannot be read, or the model cannot run.
    """
    what = f"{name!r} ({type(network).__name__})"
    try:
        wiring = wires.find(network, windows.windows[0], dtype)
        return wiring, writers.sources(network, wiring, name)
    except ModelError as error:
        raise ModelError(f"{what} cannot be read: {error}") from error
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{what} does not run on a few tokens ({type(error).__name__}: {reason}): its weights or its config.json"
            " are not those of a causal language model that transformers can run here"
        ) from error


def _tokens_known(network: PreTrainedModel) -> int:
    """Rows of the token embeddings."""
    return len(network.get_input_embeddings().get_parameter("weight"))


@torch.inference_mode()
def own_logits(network: PreTrainedModel, windows: Probe, name: str) -> list[Float[Tensor, "_ vocab"]]:
    """The logits of the network as it is.

    Raises:
        ModelError: they are not finite, or a token changes what stands before it.
    """
    what = f"{name!r} ({type(network).__name__})"
    logits = [network(tokens, use_cache=False).logits[0] for tokens in windows.windows]
    if not all(bool(values.isfinite().all()) for values in logits):
        bad = [name for name, value in network.named_parameters() if not bool(value.isfinite().all())]
        where = (
            f"NaN or infinite weights in {', '.join(bad[:3])}" if bad else "its weights are finite, its sums are not"
        )
        raise ModelError(f"{what} computes logits that are no numbers: {where}; save it again, or try --dtype float32")
    _refuse_looking_ahead(network, windows.windows[-1], logits[-1], what)
    return logits


@torch.inference_mode()
def check(
    forward: Forward,
    weights: Weights,
    spec: ModelSpec,
    windows: Probe,
    expected: list[Float[Tensor, "_ vocab"]],
) -> tuple[str, ...]:
    """Refuse a model whose watched pass computes something else; sentences on what cannot be read of it.

    Raises:
        ModelError: the logits differ, or the parts do not add up.
    """
    rounding = ROUNDING[weights.unembed.dtype]
    notes: dict[str, None] = {}
    for tokens, own in zip(windows.windows, expected, strict=True):
        every = (torch.zeros_like(tokens[0]), torch.arange(tokens.shape[1], device=tokens.device))
        capture = forward(tokens, Wanted(every, every, check=True))
        _same_logits(_capped(capture.logits, weights.wiring.soft_cap), own, spec, rounding)
        _parts_add_up(capture, weights, spec, tokens, rounding)
        unmixed = {block for block, gap in capture.mixing_gap.items() if not gap <= rounding}
        for note in _unread_attention(capture.attention.keys() - unmixed, spec):
            notes[note] = None
    return tuple(notes)


def _capped(logits: Tensor, soft_cap: float | None) -> Tensor:
    return logits if soft_cap is None else soft_cap * (logits / soft_cap).tanh()


def _same_logits(
    watched: Float[Tensor, "offset vocab"], own: Float[Tensor, "offset vocab"], spec: ModelSpec, rounding: float
) -> None:
    difference, scale = (watched - own).abs().max().item(), own.abs().max().item()
    if not difference <= rounding * max(1.0, scale):
        raise ModelError(
            f"{spec.name!r} ({spec.architecture}) computes other logits when it is watched (off by {difference:.1e} of"
            f" {scale:.1f}, at {len(own)} tokens): its attention cannot be read"
        )


def _parts_add_up(
    capture: Any, weights: Weights, spec: ModelSpec, tokens: Int[Tensor, "1 offset"], rounding: float
) -> None:
    targets = tokens.roll(-1, 1)
    stream, scale = final_norm(capture.residual, weights)
    wanted = centred_logit(stream, scale, weights, targets)
    total = torch.zeros_like(wanted)
    for part in by_part(capture, weights, spec, targets):
        add_up(total, part, None)
    theirs = capture.logits.gather(-1, targets[0][:, None])[:, 0].double() - capture.logits.double().mean(-1)
    size = max(1.0, theirs.abs().max().item())
    for what, difference in (("parts", (total - wanted)), ("final residual stream", (wanted[0] - theirs))):
        gap = difference.abs().max().item()
        if not gap <= rounding * size:
            raise ModelError(
                f"the {what} of {spec.name!r} ({spec.architecture}) do not add up to its logits (off by {gap:.3g} of"
                f" {size:.3g}): something writes to them in a way that is not read; numbers would be wrong"
            )


def _unread_attention(attention: Collection[Block], spec: ModelSpec) -> Iterator[str]:
    heads = [block for block in spec.blocks if block.kind == "head"]
    missing = [block for block in heads if block not in attention]
    if missing:
        which = "its" if len(missing) == len(heads) else f"{len(missing)} of {len(heads)} layers'"
        yield (
            f"{which} attention weights cannot be read as the model computes them: where these heads attend is not"
            " stored"
        )


def _refuse_looking_ahead(
    network: PreTrainedModel, tokens: Int[Tensor, "1 offset"], logits: Float[Tensor, "offset vocab"], what: str
) -> None:
    """Refuse a model in which a token changes what stands before it, such as an encoder read as if it were a
    decoder."""
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % _tokens_known(network)
    again = network(other, use_cache=False).logits[0]
    if (again - logits)[:-1].abs().max() > ROUNDING[logits.dtype] * logits.abs().max():
        raise ModelError(
            f"{what} lets tokens attend to what comes after them: it is no causal language model; name a decoder, or"
            " set `is_decoder` in its config.json if it was trained as one"
        )
