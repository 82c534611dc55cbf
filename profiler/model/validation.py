"""Whether what is read off a model is what it computes: checked when it is loaded, apart from rounding.

A few windows, one of them longer than any sliding window, run through the network as it is and through the watched
network: the logits must be the same, the parts must add up to them, attention weights must mix the values to what the
attention wrote, and no token may change what stands before it. A model that fails is refused with what failed.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from profiler.errors import ModelError
from profiler.model import wiring as wires
from profiler.model import writers
from profiler.model.components import Block, ModelSpec
from profiler.model.direct import Weights, add_up, by_part, centred_logit, final_norm
from profiler.model.forward import Capture, Forward, Wanted
from profiler.model.wiring import Wiring
from profiler.model.writers import Sources

SHORT = 12  # tokens of the short window
BEYOND = 8  # tokens past a sliding window
LOOKED_AT = 16  # positions at each end of a window whose logits and attention rows are compared
REASON = 300  # characters of another library's message
ROUNDING = {torch.float64: 2e-6, torch.float32: 1e-3, torch.bfloat16: 0.02, torch.float16: 0.02}
"""Largest difference relative to the largest value that rounding explains, when a model is loaded and in the pass; some
models round to float32 inside, whatever their dtype."""
Windows = tuple[Int[Tensor, "1 _"], ...]
WINDOW_FIELDS = ("sliding_window", "window_size", "attention_chunk_size", "attention_window_size", "local_attention")


def probe_windows(network: PreTrainedModel, most: int) -> Windows:
    """Windows of arbitrary tokens to try a model on: one short, one longer than its largest sliding window.

    Args:
        most: tokens of a window of the pass; a sliding window that is no shorter changes nothing there.
    """
    text, device = network.config.get_text_config(), network.get_output_embeddings().weight.device
    sizes = [getattr(text, field, None) for field in WINDOW_FIELDS]
    sliding = max((n for n in sizes if isinstance(n, int)), default=0)
    lengths = sorted({min(SHORT, most), min(max(sliding + BEYOND, SHORT), most)})
    n_vocab = _tokens_known(network)
    return tuple(((torch.arange(n, device=device) * 7 + 1) % n_vocab)[None] for n in lengths)


@contextmanager
def failures_told(network: PreTrainedModel, name: str) -> Iterator[None]:
    """Turn whatever a stranger's network fails with into one sentence.

    Raises:
        ModelError: it does not run.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:REASON]
        raise ModelError(
            f"{name!r} ({type(network).__name__}) does not run on a few tokens ({type(error).__name__}: {reason}): its"
            " weights or its config.json are not those of a causal language model that transformers can run here"
        ) from error


def read(network: PreTrainedModel, windows: Windows, name: str, dtype: torch.dtype) -> tuple[Wiring, Sources]:
    """The wiring and the writers of a network.

    Raises:
        ModelError: they cannot be read.
    """
    try:
        wiring = wires.find(network, windows[0], dtype)
        return wiring, writers.sources(network, wiring, name)
    except ModelError as error:
        raise ModelError(f"{name!r} ({type(network).__name__}) cannot be read: {error}") from error


def _tokens_known(network: PreTrainedModel) -> int:
    """Rows of the token embeddings."""
    return len(network.get_input_embeddings().get_parameter("weight"))


def _looked_at(tokens: Int[Tensor, "1 offset"]) -> Int[Tensor, " row"]:
    """Offsets whose logits and attention rows are compared: the first and the last of a window."""
    every = torch.arange(tokens.shape[1], device=tokens.device)
    return torch.cat([every[:LOOKED_AT], every[LOOKED_AT:][-LOOKED_AT:]])


@torch.inference_mode()
def own_logits(network: PreTrainedModel, windows: Windows, name: str) -> list[Float[Tensor, "_ vocab"]]:
    """The logits of the network as it is, at the positions that are compared.

    Raises:
        ModelError: they are not finite, or a token changes what stands before it.
    """
    what = f"{name!r} ({type(network).__name__})"
    logits = [network(tokens, use_cache=False).logits[0, _looked_at(tokens)] for tokens in windows]
    if not all(bool(values.isfinite().all()) for values in logits):
        bad = [name for name, value in network.named_parameters() if not bool(value.isfinite().all())]
        where = (
            f"NaN or infinite weights in {', '.join(bad[:3])}" if bad else "its weights are finite, its sums are not"
        )
        raise ModelError(f"{what} computes logits that are no numbers: {where}; save it again, or try --dtype float32")
    _refuse_looking_ahead(network, windows[-1], logits[-1], what)
    return logits


@torch.inference_mode()
def check(
    forward: Forward,
    weights: Weights,
    spec: ModelSpec,
    windows: Windows,
    expected: list[Float[Tensor, "_ vocab"]],
) -> frozenset[Block]:
    """Refuse a model whose watched pass computes something else; blocks of heads whose weights cannot be read.

    Raises:
        ModelError: the logits differ, or the parts do not add up.
    """
    rounding = ROUNDING[weights.unembed.dtype]
    unread: set[Block] = set()
    for tokens, own in zip(windows, expected, strict=True):
        offsets = _looked_at(tokens)
        rows = (torch.zeros_like(offsets), offsets)
        capture = forward(tokens, Wanted(rows, rows, check=True))
        _same_logits(weights.wiring.capped(capture.logits), own, spec, rounding)
        _parts_add_up(capture, weights, spec, tokens, rounding)
        unread |= spec.head_rows.keys() - capture.attention.keys()
        unread |= {block for block, gap in capture.mixing_gap.items() if not gap <= rounding}
    return frozenset(unread)


def unread_note(unread: Collection[Block], spec: ModelSpec) -> str:
    """The sentence on heads whose attention weights cannot be read."""
    which = "its" if len(unread) == len(spec.head_rows) else f"{len(unread)} of {len(spec.head_rows)} layers'"
    return (
        f"{which} attention weights cannot be read as the model computes them: where these heads attend is not stored"
    )


def _same_logits(
    watched: Float[Tensor, "row vocab"], own: Float[Tensor, "row vocab"], spec: ModelSpec, rounding: float
) -> None:
    difference, scale = (watched - own).abs().max().item(), own.abs().max().item()
    if not difference <= rounding * max(1.0, scale):
        raise ModelError(
            f"{spec.name!r} ({spec.architecture}) computes other logits when it is watched (off by {difference:.1e} of"
            f" {scale:.1f}, at {len(own)} positions): its attention cannot be read"
        )


def _parts_add_up(
    capture: Capture, weights: Weights, spec: ModelSpec, tokens: Int[Tensor, "1 offset"], rounding: float
) -> None:
    targets, looked_at = tokens.roll(-1, 1), _looked_at(tokens)
    stream, scale = final_norm(capture, weights)
    wanted = centred_logit(stream, scale, weights, targets)
    total = torch.zeros_like(wanted)
    for part in by_part(capture, weights, spec, targets):
        add_up(total, part)
    target = targets[0, looked_at][:, None]
    theirs = capture.logits.gather(-1, target)[:, 0].double() - capture.logits.double().mean(-1)
    size = max(1.0, theirs.abs().max().item())
    gaps = {"parts": total - wanted, "final residual stream": wanted[0, looked_at] - theirs}
    for what, difference in gaps.items():
        gap = difference.abs().max().item()
        if not gap <= rounding * size:
            raise ModelError(
                f"the {what} of {spec.name!r} ({spec.architecture}) do not add up to its logits (off by {gap:.3g} of"
                f" {size:.3g}): something writes to them in a way that is not read; numbers would be wrong"
            )


def _refuse_looking_ahead(
    network: PreTrainedModel, tokens: Int[Tensor, "1 offset"], logits: Float[Tensor, "row vocab"], what: str
) -> None:
    """Refuse a model in which a token changes what stands before it, such as an encoder read as if it were a
    decoder."""
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % _tokens_known(network)
    again = network(other, use_cache=False).logits[0, _looked_at(tokens)]
    if (again - logits)[:-1].abs().max() > ROUNDING[logits.dtype] * logits.abs().max():
        raise ModelError(
            f"{what} lets tokens attend to what comes after them: it is no causal language model; name a decoder, or"
            " set `is_decoder` in its config.json if it was trained as one"
        )
