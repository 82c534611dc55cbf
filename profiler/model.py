"""Load a model and run it on a batch. The only module that knows TransformerLens; all hook names end here.

Weights come through transformers, from safetensors unless the user allows pickle, and are read through TransformerLens'
`TransformerBridge` without any folding: logits are those of the Hugging Face model. Hooks are set once; a forward pass
leaves, per layer, what the heads and neurons wrote before their output matrices, and the attention rows asked for.

Cost: the bridge computes attention patterns in eager mode; memory per batch is positions * (layers * (d_model + d_mlp)
+ vocabulary) numbers.
"""

import hashlib
import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from profiler.axes import HeadOutputs, PerPosition, Residual, TokenIds
from profiler.components import ModelSpec
from profiler.config import RunConfig
from profiler.errors import ModelError

BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_CONTEXT = 1024
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
class Capture:
    """What one forward pass left.

    Attributes:
        heads: per layer, what each head read and mixed, before W_O.
        neurons: per layer, activations after the nonlinearity (gated MLPs: act(gate) * in), before W_out.
        embed, pos_embed: what the embeddings wrote; pos_embed is None where positions are not added.
        residual: the final residual stream, what the final norm reads.
        patterns: per layer, the attention rows asked for.
        logits: the model's logits.
    """

    heads: list[HeadOutputs]
    neurons: list[Float[Tensor, "window offset neuron"]]
    embed: Residual
    pos_embed: Residual | None
    residual: Residual
    patterns: list[Float[Tensor, "query head key_offset"]]
    logits: Float[Tensor, "window offset vocab"]


@dataclass(frozen=True)
class Model:
    """A loaded model: `spec` and `tokenizer` describe it, `run` is its forward pass."""

    spec: ModelSpec
    tokenizer: Any
    bos_id: int | None
    weights: Weights
    bridge: TransformerBridge
    slots: dict[str, Any]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without any token put before or after."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    @torch.inference_mode()
    def run(self, tokens: TokenIds, queries: tuple[Int[Tensor, " query"], Int[Tensor, " query"]]) -> Capture:
        """One forward pass.

        Args:
            tokens: ids, padded on the right.
            queries: window and offset of each attention row to keep.
        """
        device = self.weights.unembed.device
        self.slots["queries"] = tuple(index.to(device) for index in queries)
        logits = self.bridge(tokens.to(device), return_type="logits")
        layers = range(self.spec.n_layers)
        return Capture(
            heads=[self.slots.pop(f"z{i}") for i in layers],
            neurons=[self.slots.pop(f"post{i}") for i in layers] if self.spec.d_mlp else [],
            embed=self.slots.pop("embed"),
            pos_embed=self.slots.pop("pos_embed", None),
            residual=self.slots.pop("residual"),
            patterns=[self.slots.pop(f"pattern{i}") for i in layers],
            logits=logits,
        )


def load_model(config: RunConfig) -> Model:
    """Load the model of `config`, its tokenizer, and what attribution needs of its weights.

    Raises:
        ModelError: it cannot be found or loaded, or its heads and neurons cannot be read.
    """
    place = str(BUNDLED) if config.model == "bundled" else config.model
    tokenizer = _load(AutoTokenizer, place, config)
    network = _load(AutoModelForCausalLM, place, config, dtype=DTYPES[config.dtype], **_weights_format(config))
    return model_from(network.eval(), tokenizer, config)


def model_from(network: PreTrainedModel, tokenizer: Any, config: RunConfig) -> Model:
    """The same for a network that is already in memory (it is changed in place: the bridge replaces its parts)."""
    weights_hash = _weights_hash(network)
    architecture = type(network).__name__
    bridge = _bridge(network, tokenizer, config)
    spec = _spec(bridge, config, architecture, weights_hash, tokenizer)
    _refuse_tokenizer(tokenizer, spec)
    slots: dict[str, Any] = {}
    _set_hooks(bridge, spec, slots)
    use_bos = config.prepend_bos if config.prepend_bos is not None else tokenizer.bos_token_id is not None
    if use_bos and tokenizer.bos_token_id is None:
        raise ModelError(f"the tokenizer of {config.model!r} has no BOS token: drop --bos")
    bos_id = tokenizer.bos_token_id if use_bos else None
    return Model(spec, tokenizer, bos_id, _weights(bridge, spec, config), bridge, slots)


def _weights_format(config: RunConfig) -> dict[str, Any]:
    return {} if config.allow_pickle else {"use_safetensors": True}


def _load(loader: Any, place: str, config: RunConfig, **options: Any) -> Any:
    """`loader.from_pretrained(place)`, its many failures turned into one sentence."""
    try:
        return loader.from_pretrained(place, trust_remote_code=config.trust_remote_code, **options)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model {config.model!r} cannot be loaded: {reason} Give `bundled`, a Hugging Face name, or a local directory "
            "with config.json, model.safetensors and tokenizer files"
        ) from error


def _bridge(network: PreTrainedModel, tokenizer: Any, config: RunConfig) -> TransformerBridge:
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    try:
        network.to(config.device)
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
        raise ModelError(f"the tokenizer of {spec.name!r} has no tokenizer.json: save a fast tokenizer beside the model")
    largest = max(tokenizer.get_vocab().values())
    if largest >= spec.n_vocab:
        raise ModelError(
            f"the tokenizer of {spec.name!r} has token ids up to {largest}, its model knows {spec.n_vocab}: they do not belong together"
        )


def _weights_hash(network: PreTrainedModel) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def _tokenizer_hash(tokenizer: Any) -> str:
    vocabulary = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.blake2b(repr(vocabulary).encode(), digest_size=16).hexdigest()


def _spec(
    bridge: TransformerBridge, config: RunConfig, architecture: str, weights_hash: str, tokenizer: Any
) -> ModelSpec:
    cfg = bridge.cfg
    card = BUNDLED / "card.md" if config.model == "bundled" else Path(config.model) / "card.md"
    readable_mlp = all(f"blocks.{i}.mlp.out.hook_in" in bridge.hook_dict for i in range(cfg.n_layers))
    longest = getattr(cfg, "n_ctx", None) or DEFAULT_CONTEXT
    return ModelSpec(
        name=config.model,
        architecture=architecture,
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        d_mlp=cfg.d_mlp if readable_mlp else 0,
        d_model=cfg.d_model,
        n_vocab=bridge.W_U.shape[1],
        context_length=min(config.context_length or DEFAULT_CONTEXT, longest),
        weights_hash=weights_hash,
        tokenizer_hash=_tokenizer_hash(tokenizer),
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
    )


def _set_hooks(bridge: TransformerBridge, spec: ModelSpec, slots: dict[str, Any]) -> None:
    """Let every forward pass leave its parts in `slots`."""

    def keep(slot: str) -> Callable[..., None]:
        def hook(value: Tensor, hook: Any) -> None:
            slots[slot] = value.detach()

        return hook

    def keep_rows(slot: str) -> Callable[..., None]:
        def hook(value: Tensor, hook: Any) -> None:
            windows, offsets = slots["queries"]
            slots[slot] = value.detach()[windows, :, offsets]

        return hook

    for layer in range(spec.n_layers):
        bridge.add_hook(f"blocks.{layer}.attn.hook_z", keep(f"z{layer}"))
        bridge.add_hook(f"blocks.{layer}.attn.hook_pattern", keep_rows(f"pattern{layer}"))
        if spec.d_mlp:
            bridge.add_hook(f"blocks.{layer}.mlp.out.hook_in", keep(f"post{layer}"))
    bridge.add_hook("hook_embed", keep("embed"))
    bridge.add_hook("ln_final.hook_in", keep("residual"))
    if "pos_embed.hook_out" in bridge.hook_dict:
        bridge.add_hook("pos_embed.hook_out", keep("pos_embed"))


def _parameter(read: Callable[[], Any], otherwise: Tensor) -> Tensor:
    """A parameter of the bridge, or zeros where the checkpoint has none."""
    try:
        value = read()
    except AttributeError:
        return otherwise
    return otherwise if value is None else value


def _weights(bridge: TransformerBridge, spec: ModelSpec, config: RunConfig) -> Weights:
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
        mlp_bias=[cast(_parameter(lambda b=block: b.mlp.b_out, zeros)) for block in blocks]
        if spec.d_mlp
        else [zeros] * spec.n_layers,
        unembed=unembed,
        unembed_mean=unembed.mean(0),
        token_bias=token_bias - token_bias.mean(),
        head_gram=[torch.einsum("hdm,hem->hde", w_o, w_o) for w_o in head_out],
        norm_scale=cast(norm.weight) + offset,
        centres="RMS" not in str(bridge.cfg.normalization_type),
        eps=next((getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name)), bridge.cfg.eps),
    )


def logits_summary(
    logits: Float[Tensor, "window offset vocab"],
    targets: TokenIds,
    queries: tuple[Int[Tensor, " query"], Int[Tensor, " query"]],
) -> tuple[PerPosition, Float[Tensor, "query 3"]]:
    """The centred target logit of every position; loss (nats), rank and entropy (nats) of the queried ones."""
    targets = targets.to(logits.device)
    chosen = logits.gather(-1, targets[..., None])[..., 0]
    centred = chosen.double() - logits.mean(-1, dtype=torch.float64)
    rows = logits[queries].float() if logits.dtype != torch.float64 else logits[queries]
    log_p = rows.log_softmax(-1)
    target = targets[queries][:, None]
    loss = -log_p.gather(-1, target)[:, 0]
    rank = (rows > rows.gather(-1, target)).sum(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return centred, torch.stack([loss.double(), rank.double(), entropy.double()], -1)
