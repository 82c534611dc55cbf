"""Load a model and run it on a batch. The only module that knows TransformerLens; all hook names end here.

Weights come through transformers, from safetensors unless the user allows pickle, and are read through TransformerLens'
`TransformerBridge` without any folding: logits are those of the Hugging Face model. The bridge also knows where things
are in a model; the pass itself runs through the plain network with hooks there (profiler.model.forward), as fast as the
model is. Both are compared on a few tokens when the model is loaded: one that computes something else with its plain
attention runs through the bridge, with every pattern formed.

Cost: memory per batch is positions * layers * (d_model + d_mlp) numbers. The bridge way costs about a third more time
on a small model, and forms positions * vocabulary logits.
"""

import hashlib
import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel

from profiler.axes import TokenIds
from profiler.config import ModelSettings
from profiler.errors import ModelError
from profiler.model import files
from profiler.model.checkpoint import read_network, read_tokenizer
from profiler.model.components import ModelSpec
from profiler.model.forward import Capture, Forward, Wanted, twin_of, watch
from profiler.text.token_classes import encode, special_ids

BUNDLED = Path(__file__).parents[1] / "bundled"
DEFAULT_CONTEXT = 1024
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROBE = 12
AGREE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference between the plain network and the bridge, relative to the largest value: rounding, with room
(some models round to float32 inside their eager attention, whatever their dtype)."""


@dataclass(frozen=True)
class Weights:
    """The weights direct logit attribution needs, in the dtype it is computed in.

    Attributes:
        head_out: W_O of each layer.
        neuron_out: W_out of each layer; empty where the model has no MLP that can be read.
        attn_bias, mlp_bias: output biases of each layer, zeros where there are none.
        unembed: W_U, one row per token.
        norm_scale: the final norm's weight.
        unembed_mean: mean row of W_U.
        token_bias: what the final norm's bias and b_U add to each token's logit, centred over the vocabulary.
        head_gram: W_O W_O^T of each head: z' gram z is the squared norm of what the head writes.
        centres: whether the final norm subtracts the mean (LayerNorm; RMSNorm does not).
        eps: what the final norm adds under its root.
    """

    head_out: list[Float[Tensor, "head d_head model"]]
    neuron_out: list[Float[Tensor, "neuron model"]]
    attn_bias: list[Float[Tensor, " model"]]
    mlp_bias: list[Float[Tensor, " model"]]
    unembed: Float[Tensor, "vocab model"]
    unembed_mean: Float[Tensor, " model"]
    token_bias: Float[Tensor, " vocab"]
    head_gram: list[Float[Tensor, "head d_head d_head"]]
    norm_scale: Float[Tensor, " model"]
    centres: bool
    eps: float


@dataclass(frozen=True)
class Model:
    """A loaded model: `spec` and `tokenizer` describe it, `run` is its forward pass.

    `attention` says how it runs: `fused`, or `eager` through TransformerLens where the fused kernel computes something
    else.
    """

    spec: ModelSpec
    tokenizer: Any
    bos_id: int | None
    weights: Weights
    bridge: TransformerBridge
    forward: Forward
    attention: Literal["fused", "eager"]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without any token put before or after."""
        return encode(self.tokenizer, text)

    @torch.inference_mode()
    def run(self, tokens: TokenIds, wanted: Wanted) -> Capture:
        """One forward pass of ids padded on the right."""
        device = self.weights.unembed.device
        return self.forward(tokens.to(device), wanted.to(device))


def load_model(config: ModelSettings) -> Model:
    """Load the model of `config`, its tokenizer, and what attribution needs of its weights.

    Raises:
        ModelError: it cannot be found or loaded, or its heads and neurons cannot be read.
    """
    place = str(BUNDLED) if config.model == "bundled" else config.model
    files.check(place, config.trust_remote_code, config.allow_pickle)
    tokenizer = read_tokenizer(config.model, place, trust_remote_code=config.trust_remote_code)
    network, notes = read_network(
        config.model,
        place,
        DTYPES[config.dtype],
        trust_remote_code=config.trust_remote_code,
        allow_pickle=config.allow_pickle,
    )
    return model_from(network.eval(), tokenizer, config, notes)


def model_from(network: PreTrainedModel, tokenizer: Any, config: ModelSettings, notes: tuple[str, ...] = ()) -> Model:
    """The same for a network in memory (changed in place: the bridge replaces its parts).

    Args:
        notes: what is to be said of how it was read.
    """
    weights_hash = _weights_hash(network)
    architecture = type(network).__name__
    try:
        plain = twin_of(network.to(config.device))
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        raise ModelError(f"--device {config.device} cannot be used here: {str(error).splitlines()[0]}") from error
    bridge = _bridge(network, tokenizer, config)
    try:
        spec = replace(_spec(bridge, config, architecture, weights_hash, tokenizer), notes=notes)
        weights = _weights(bridge, spec, config)
    except AttributeError as error:
        what = (
            f"{config.model!r} ({architecture}) is no decoder of attention heads and MLPs that write to one residual"
            " stream"
        )
        raise ModelError(f"{what}: TransformerLens finds a part missing ({error})") from error
    _refuse_tokenizer(tokenizer, spec)
    forward, attention = _fastest(plain, bridge, spec)
    _refuse_looking_ahead(forward, spec, bridge.W_U.device)
    use_bos = config.prepend_bos if config.prepend_bos is not None else tokenizer.bos_token_id is not None
    if use_bos and tokenizer.bos_token_id is None:
        raise ModelError(f"the tokenizer of {config.model!r} has no BOS token: drop --bos")
    bos_id = tokenizer.bos_token_id if use_bos else None
    return Model(spec, tokenizer, bos_id, weights, bridge, forward, attention)


def _bridge(network: PreTrainedModel, tokenizer: Any, config: ModelSettings) -> TransformerBridge:
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    try:
        return TransformerBridge.boot_transformers(
            config.model,
            hf_model=network,
            tokenizer=deepcopy(tokenizer),
            device=config.device,
            dtype=DTYPES[config.dtype],
        )  # a copy, because TransformerLens gives a tokenizer without a BOS its end token as one, in place
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"TransformerLens cannot read {config.model!r} ({type(network).__name__}) on {config.device!r}: {reason}"
        ) from error


def _refuse_tokenizer(tokenizer: Any, spec: ModelSpec) -> None:
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelError(
            f"the tokenizer of {spec.name!r} has no tokenizer.json: save a fast tokenizer beside the model"
        )
    largest = max(tokenizer.get_vocab().values())
    if largest >= spec.n_vocab:
        raise ModelError(
            f"the tokenizer of {spec.name!r} has token ids up to {largest}, its model knows 0 to {spec.n_vocab - 1}:"
            " they do not belong together, or tokens were added and the model's embeddings not resized"
        )


def _weights_hash(network: PreTrainedModel) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def _tokenizer_hash(tokenizer: Any) -> str:
    vocabulary = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.blake2b(repr((vocabulary, sorted(special_ids(tokenizer)))).encode(), digest_size=16).hexdigest()


def _spec(
    bridge: TransformerBridge, config: ModelSettings, architecture: str, weights_hash: str, tokenizer: Any
) -> ModelSpec:
    cfg = bridge.cfg
    card = BUNDLED / "card.md" if config.model == "bundled" else Path(config.model) / "card.md"
    longest = getattr(cfg, "n_ctx", None) or max(DEFAULT_CONTEXT, config.context_length or 0)
    if (config.context_length or 0) > longest:
        raise ModelError(
            f"--context-length {config.context_length} is longer than the {longest} positions that {config.model!r}"
            " knows: give that many or fewer"
        )
    return ModelSpec(
        name=config.model,
        architecture=architecture,
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        d_mlp=_width(bridge, config),
        d_model=cfg.d_model,
        n_vocab=bridge.W_U.shape[1],
        context_length=min(config.context_length or DEFAULT_CONTEXT, longest),
        weights_hash=weights_hash,
        tokenizer_hash=_tokenizer_hash(tokenizer),
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
    )


def _width(bridge: TransformerBridge, config: ModelSettings) -> int:
    """Neurons of a layer, from the weights: TransformerLens' own number is a guess where it does not know a config's
    field."""
    if not all(f"blocks.{i}.mlp.out.hook_in" in bridge.hook_dict for i in range(bridge.cfg.n_layers)):
        return 0
    widths = {block.mlp.W_out.shape[0] for block in bridge.blocks}
    if len(widths) > 1:
        raise ModelError(
            f"{config.model!r} has layers of {sorted(widths)} neurons: only models of one width can be read"
        )
    return widths.pop()


def names_of(bridge: TransformerBridge, spec: ModelSpec) -> dict[str, str]:
    """Where the parts that are watched are in the Hugging Face network."""
    place = bridge.adapter.translate_transformer_lens_path
    names = {"embed": place("embed"), "final_norm": place("ln_final"), "unembed": place("unembed")}
    if "pos_embed.hook_out" in bridge.hook_dict:
        names["pos_embed"] = place("pos_embed")
    for i in range(spec.n_layers):
        names |= {f"attn{i}": place(f"blocks.{i}.attn"), f"attn_out{i}": place(f"blocks.{i}.attn.o")}
        if spec.d_mlp:
            names[f"mlp_out{i}"] = place(f"blocks.{i}.mlp.out")
    return names


def _fastest(
    plain: PreTrainedModel, bridge: TransformerBridge, spec: ModelSpec
) -> tuple[Forward, Literal["fused", "eager"]]:
    """The plain network's forward pass, if it leaves on a few tokens what the bridge leaves; else the bridge's."""
    eager = _through_bridge(bridge, spec)
    try:
        fused = watch(plain, names_of(bridge, spec), spec.n_layers, spec.n_heads)
        equal = _agree(fused, eager, spec, bridge.W_U.device)
    except (AttributeError, KeyError, ValueError, TypeError, IndexError, RuntimeError):
        equal = False
    return (fused, "fused") if equal else (eager, "eager")


@torch.inference_mode()
def _agree(fused: Forward, eager: Forward, spec: ModelSpec, device: torch.device) -> bool:
    """Whether two forward passes leave the same, but for rounding, on two windows of a few tokens."""
    width = min(PROBE, spec.context_length)
    tokens = (torch.arange(2 * width, device=device).view(2, width) * 7 + 1) % spec.n_vocab
    rows = (torch.tensor([0, 1, 1], device=device), torch.tensor([width - 1, 0, width // 2], device=device))
    left, right = (forward(tokens, Wanted(rows, rows)) for forward in (fused, eager))
    pairs = zip(_tensors(left), _tensors(right), strict=True)
    return all(a.shape == b.shape and _near(a, b) for a, b in pairs)


@torch.inference_mode()
def _refuse_looking_ahead(forward: Forward, spec: ModelSpec, device: torch.device) -> None:
    """Refuse a model in which a token changes what stands before it, such as an encoder read as if it were a
    decoder."""
    width = min(PROBE, spec.context_length)
    tokens = (torch.arange(width, device=device).repeat(2, 1) * 7 + 1) % spec.n_vocab
    tokens[1, -1] = (tokens[1, -1] + 1) % spec.n_vocab
    left, right = forward(tokens, Wanted().to(device)).residual[:, :-1]
    rounding = 0.1 * AGREE[left.dtype] * left.abs().max()  # of the same sum in another row of the batch
    if (left - right).abs().max() > rounding:
        raise ModelError(
            f"{spec.name!r} ({spec.architecture}) lets tokens attend to what comes after them: it is no causal language"
            " model; name a decoder, or set `is_decoder` in its config.json if it was trained as one"
        )


def _tensors(capture: Capture) -> list[Tensor]:
    one = [capture.embed, capture.residual, capture.logits, *([] if capture.pos_embed is None else [capture.pos_embed])]
    return [*one, *capture.heads, *capture.neurons, *capture.attention]


def _near(a: Tensor, b: Tensor) -> bool:
    return (a - b).abs().max().item() <= AGREE[b.dtype] * max(1.0, b.abs().max().item())


def _through_bridge(bridge: TransformerBridge, spec: ModelSpec) -> Forward:
    """The forward pass of TransformerLens, which forms every pattern and every logit."""
    layers = range(spec.n_layers)
    heads = [f"blocks.{i}.attn.hook_z" for i in layers]
    patterns = [f"blocks.{i}.attn.hook_pattern" for i in layers]
    neurons = [f"blocks.{i}.mlp.out.hook_in" for i in layers] if spec.d_mlp else []
    places = ["hook_embed", "ln_final.hook_in", *(p for p in ("pos_embed.hook_out",) if p in bridge.hook_dict)]

    def forward(tokens: TokenIds, wanted: Wanted) -> Capture:
        windows, offsets = wanted.attention
        left: dict[str, Any] = {}

        def keep(name: str, of: Callable[[Tensor], Any] = lambda value: value) -> tuple[str, Callable[..., None]]:
            def hook(value: Tensor, hook: Any) -> None:
                left[name] = of(value.detach())

            return name, hook

        hooks = [keep(name) for name in (*heads, *neurons, *places)]
        hooks += [keep(name, lambda pattern: wanted.read(pattern[windows, :, offsets])) for name in patterns]
        with bridge.hooks(fwd_hooks=hooks):
            logits = bridge(tokens, return_type="logits")
        of = lambda names: [left[name] for name in names]  # noqa: E731
        return Capture(
            heads=of(heads),
            neurons=of(neurons),
            embed=left["hook_embed"],
            pos_embed=left.get("pos_embed.hook_out"),
            residual=left["ln_final.hook_in"],
            attention=of(patterns),
            logits=logits[wanted.logits],
        )

    return forward


def _parameter(read: Callable[[], Any], otherwise: Tensor) -> Tensor:
    """A parameter of the bridge, or what stands for it where the checkpoint has none."""
    try:
        value = read()
    except AttributeError:
        return otherwise
    return otherwise if value is None else value


def _weights(bridge: TransformerBridge, spec: ModelSpec, config: ModelSettings) -> Weights:
    work = torch.float64 if config.dtype == "float64" else torch.float32
    zeros = torch.zeros(spec.d_model, dtype=work, device=bridge.W_U.device)
    cast = lambda value: value.detach().to(work)  # noqa: E731
    blocks, norm = bridge.blocks, bridge.ln_final
    offset = 1.0 if getattr(bridge.cfg, "rmsnorm_uses_offset", False) else 0.0
    head_out = [cast(block.attn.W_O).contiguous() for block in blocks]
    unembed = cast(bridge.W_U).T.contiguous()
    token_bias = unembed @ cast(_parameter(lambda: norm.bias, zeros)) + cast(bridge.b_U)
    return Weights(
        head_out=head_out,
        neuron_out=[cast(block.mlp.W_out).contiguous() for block in blocks] if spec.d_mlp else [],
        attn_bias=[cast(_parameter(lambda b=block: b.attn.b_O, zeros)) for block in blocks],
        mlp_bias=(
            [cast(_parameter(lambda b=block: b.mlp.b_out, zeros)) for block in blocks]
            if spec.d_mlp
            else [zeros] * spec.n_layers
        ),
        unembed=unembed,
        unembed_mean=unembed.mean(0),
        token_bias=token_bias - token_bias.mean(),
        head_gram=[torch.einsum("hdm,hem->hde", w_o, w_o) for w_o in head_out],
        norm_scale=cast(_parameter(lambda: norm.weight, zeros + 1)) + offset,
        centres="RMS" not in str(bridge.cfg.normalization_type),
        eps=next((getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name)), bridge.cfg.eps),
    )


def logits_summary(
    logits: Float[Tensor, "row vocab"], targets: Int[Tensor, " row"]
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row 3"]]:
    """The centred target logit of the rows asked for, float64; and their loss (nats), rank and entropy (nats)."""
    target = targets.to(logits.device)[:, None]
    centred = logits.gather(-1, target)[:, 0].double() - logits.mean(-1, dtype=torch.float64)
    rows = logits.float() if logits.dtype != torch.float64 else logits
    log_p = rows.log_softmax(-1)
    loss = -log_p.gather(-1, target)[:, 0]
    rank = (rows > rows.gather(-1, target)).sum(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return centred, torch.stack([loss.double(), rank.double(), entropy.double()], -1)
