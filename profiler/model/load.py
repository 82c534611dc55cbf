"""Load a model, find how it is wired, and check that what is read off it is what it computes.

Weights come through transformers, from safetensors unless the user allows pickle, without any folding: logits are those
of the Hugging Face model. What writes to its residual stream is found from the model itself (profiler.model.wiring),
and the pass runs through the plain network with hooks there (profiler.model.forward). TransformerLens reads the same
model where it knows its family, when it is asked for (`Model.bridge`): its names are those of published dictionaries.

Cost: weights are shared, not copied; memory of a batch is what `ModelSpec.footprint` says of each of its positions.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from profiler.axes import TokenIds
from profiler.config import ModelSettings
from profiler.errors import ComponentError, ModelError
from profiler.model import files, lora, validation
from profiler.model.components import OF_DICTIONARIES, Block, ComponentId, ModelSpec, PositionValues
from profiler.model.described.attached import Described, attach, with_dictionaries
from profiler.model.described.sites import Sites
from profiler.model.direct import Part, Weights, by_part, weights_of
from profiler.model.forward import Capture, Forward, Wanted, watch
from profiler.model.gates import gates_of
from profiler.model.weight_files import read_network, read_settings, read_tokenizer, refuse_not_finite
from profiler.model.wiring import is_experts
from profiler.model.writers import Sources
from profiler.text.token_classes import encode, special_ids

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BUNDLED = Path(__file__).parents[1] / "bundled"
DEFAULT_CONTEXT = 1024
LENGTH_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length")
"""Where a configuration says how many positions the model knows."""
HASHED_BYTES = 2**26  # of a tensor, copied from its device and hashed in one go
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Model:
    """A loaded model: `spec` and `tokenizer` describe it, `run` is its forward pass.

    Attributes:
        network: the network that `forward` watches.
        unwatched: a network of the same tensors that nothing hooks.
        attention: which attention runs, by transformers' name for it: `sdpa` is PyTorch's fused kernel.
        watching: how its attention rows are read: options of `profiler.model.forward.watch`.
        described: its dictionaries; None where there are none.
    """

    spec: ModelSpec
    tokenizer: Any
    bos_id: int | None
    weights: Weights
    network: PreTrainedModel
    unwatched: PreTrainedModel = field(repr=False)
    forward: Forward
    attention: str
    watching: Mapping[str, Any] = field(default_factory=dict)
    described: Described | None = None

    @cached_property
    def bridge(self) -> "TransformerBridge | None":
        """TransformerLens' view of it, made when it is first asked for; None where TransformerLens cannot make one."""
        return _bridge(self)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without any token put before or after."""
        return encode(self.tokenizer, text)

    @torch.inference_mode()
    def run(self, tokens: TokenIds, wanted: Wanted) -> Capture:
        """One forward pass of ids padded on the right."""
        device = self.weights.unembed.device
        capture = self.forward(tokens.to(device), wanted.to(device))
        return capture if self.described is None else replace(capture, sites=self.described.sites.take())

    def parts_of(
        self, component: ComponentId | None, capture: Capture, targets: Int[Tensor, "window offset"]
    ) -> Iterator[Part]:
        """The parts of a pass that a component is among: of the model itself, or of its dictionaries.

        Args:
            component: None stands for all of the model itself.
            capture: what the pass left.
            targets: each position's token, on the model's device.

        Raises:
            ComponentError: the component is of a dictionary, and the model was loaded without.
        """
        if component is None or component.kind not in OF_DICTIONARIES:
            yield from by_part(capture, self.weights, self.spec, targets)
            return
        if self.described is None:
            raise ComponentError(
                f"{component.label} is of a dictionary, and the model was loaded without: load it with the settings"
                " dictionaries=('L2=FOLDER',)"
            )
        yield from (part for part, _ in self.described.parts(capture.sites, capture.scales, self.spec, targets))


def load_model(config: ModelSettings) -> Model:
    """Load the model of `config`, its tokenizer, and what attribution needs of its weights.

    Raises:
        ModelError: it cannot be found or loaded, or its heads and neurons cannot be read.
    """
    name = config.base or config.model
    place = str(BUNDLED) if name == "bundled" else name
    files.check(place, remote_code=config.trust_remote_code, pickle=config.allow_pickle)
    if config.base is not None:
        _refuse_no_adapter(config)
    rights = {"trust_remote_code": config.trust_remote_code, "allow_pickle": config.allow_pickle}
    read_settings(name, place, **rights)  # before what is wrong with them shows in the tokenizer
    tokenizer = read_tokenizer(name, place, trust_remote_code=config.trust_remote_code)
    network, notes = read_network(name, place, DTYPES[config.dtype], **rights, **_placed(config))
    if config.base is not None:
        notes = (*notes, lora.merge(network, config.model, config.model))
        refuse_not_finite(config.model, network, DTYPES[config.dtype])
    model = model_from(network.eval(), tokenizer, config, notes)
    return describe(model, config.dictionaries) if config.dictionaries else model


def describe(model: Model, asked: Sequence[str]) -> Model:
    """A model with dictionaries at its sites.

    Args:
        asked: as `--dictionary` takes them.

    Raises:
        DictionaryError: one cannot be read, or does not fit the model.
    """
    described = attach(asked, Sites(model.network, model.weights, lambda: twin_of(model.unwatched)))
    return replace(model, spec=with_dictionaries(model.spec, described), described=described)


def _refuse_no_adapter(config: ModelSettings) -> None:
    """Refuse a base beside what is no adapter.

    Raises:
        ModelError: there is no adapter, or its files cannot be loaded.
    """
    files.check(config.model)
    if not files.is_adapter(config.model):
        raise ModelError(f"--base is for a LoRA adapter, and {config.model!r} has no adapter_config.json: leave it out")


def model_from(network: PreTrainedModel, tokenizer: Any, config: ModelSettings, notes: tuple[str, ...] = ()) -> Model:
    """The same for a network in memory.

    Args:
        notes: what is to be said of how it was read.
    """
    weights_hash = _weights_hash(network)
    _refuse_other_kinds(network, config.model)
    if config.dtype == "float64" and any(is_experts(module) for module in network.modules()):
        network.set_experts_implementation("eager")  # PyTorch's grouped product knows no float64
    try:
        network.to(torch.device(config.device))  # type: ignore[arg-type]
        plain = twin_of(network).eval()
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        raise ModelError(f"--device {config.device} cannot be used here: {str(error).splitlines()[0]}") from error
    attention = str(plain.config._attn_implementation)
    work = torch.float64 if config.dtype == "float64" else torch.float32
    with validation.failures_told(plain, config.model):
        context = _context(plain, config)
        windows = validation.probe_windows(plain, context)
        expected = validation.own_logits(plain, windows, config.model)
        wiring, sources = validation.read(twin_of(plain), windows, config.model, work)
        weights = weights_of(plain, wiring, sources, work)
        spec = _spec(plain, sources, config, context, weights_hash, tokenizer)
        _refuse_tokenizer(tokenizer, spec)
        forward, watched, unread, watching = _watched(plain, weights, spec, windows, expected)
        spec = replace(spec, footprint=spec.footprint.with_factors(watching["gates"]))
    use_bos = config.prepend_bos if config.prepend_bos is not None else tokenizer.bos_token_id is not None
    if use_bos and tokenizer.bos_token_id is None:
        raise ModelError(f"the tokenizer of {config.model!r} has no BOS token: drop --bos")
    bos_id = tokenizer.bos_token_id if use_bos else None
    said = [validation.unread_note(unread, spec)] if unread else []
    spec = replace(spec, notes=(*notes, *said))
    return Model(spec, tokenizer, bos_id, weights, watched, network, forward, attention, watching)


def _placed(config: ModelSettings) -> dict[str, Any]:
    """How `from_pretrained` is told to read the weights straight onto the device of the pass.

    That device is named: accelerate's own choice spreads a model over all cards, and a pass runs on one device.

    Raises:
        ModelError: that needs accelerate, which is not installed.
    """
    if config.device_map is None:
        return {}
    if find_spec("accelerate") is None:
        raise ModelError(
            "--device-map needs accelerate, which is not installed: pip install accelerate, or leave it out"
        )
    return {"device_map": {"": config.device}}


def _watched(
    plain: PreTrainedModel, weights: Weights, spec: ModelSpec, windows: validation.Windows, expected: list[Tensor]
) -> tuple[Forward, PreTrainedModel, frozenset[Block], dict[str, Any]]:
    """The watched forward pass, the network that it runs, blocks of heads whose attention weights it does not read, and
    how it is watched.

    Some models hand their attention weights over only when asked. That can make a model compute something else (Falcon
    then attends to what comes after); it then runs as it does by itself. Rows that are not what the model computes are
    not read.
    """
    asked, bare = twin_of(plain), twin_of(plain)
    gates = gates_of(plain, weights.sources)
    forward = watch(plain, weights.sources, weights.wiring, gates=gates)
    unread = validation.check(forward, weights, spec, windows, expected)
    if unread:
        with suppress(ModelError, TypeError):
            asking = watch(asked, weights.sources, weights.wiring, ask_for_weights=True, gates=gates)
            if not validation.check(asking, weights, spec, windows, expected):
                return asking, asked, frozenset(), {"ask_for_weights": True, "gates": gates}
        forward = watch(bare, weights.sources, weights.wiring, without=unread, gates=gates)
        validation.check(forward, weights, spec, windows, expected)
        return forward, bare, unread, {"without": unread, "gates": gates}
    return forward, plain, unread, {"gates": gates}


def twin_of(network: PreTrainedModel) -> PreTrainedModel:
    """A second network of the same modules over the very same tensors: hooks on one are not on the other."""
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return deepcopy(network, tensors)


def _refuse_other_kinds(network: PreTrainedModel, name: str) -> None:
    """Refuse what is no decoder that writes to one unembedding, by what it is.

    Raises:
        ModelError: it is an encoder-decoder, or has no unembedding.
    """
    what = f"{name!r} ({type(network).__name__})"
    if getattr(network.config, "is_encoder_decoder", False):
        raise ModelError(f"{what} is an encoder-decoder: name a decoder (a causal language model)")
    if "MaskedLM" in type(network).__name__:
        raise ModelError(f"{what} is a masked language model: it predicts what stands at a position; name a decoder")
    for site, module in network.named_modules():
        of_experts = type(module).__name__.endswith("Experts")
        if of_experts and (not is_experts(module) or module.has_post_expert_norm):
            raise ModelError(
                f"{what} is a mixture of experts ({site!r}) of a form that cannot be read: experts that transformers"
                " computes through its experts interface, without a norm after each expert, can; name such a model"
            )
    head = network.get_output_embeddings()
    if getattr(head, "weight", None) is None:
        raise ModelError(f"{what} has no unembedding, so no logits to attribute: name a causal language model")


def with_reader_note(model: Model) -> Model:
    """The model, and in its notes that TransformerLens does not read its family, where that is so.

    A run says this; whoever only runs the model need not import TransformerLens, which takes seconds.
    """
    from transformer_lens.tools.model_registry import HF_SUPPORTED_ARCHITECTURES

    family = type(model.network).__name__
    if family in HF_SUPPORTED_ARCHITECTURES:
        return model
    note = f"TransformerLens does not read {family}: its module tree was read"
    return replace(model, spec=replace(model.spec, notes=(*model.spec.notes, note)))


def _bridge(model: Model) -> "TransformerBridge | None":
    """TransformerLens' view of a model; None where it cannot make one."""
    from transformer_lens.model_bridge import TransformerBridge

    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    with suppress(Exception):  # whatever it fails with, of a family that it does not know
        return TransformerBridge.boot_transformers(
            model.spec.name,
            hf_model=twin_of(model.unwatched),  # it replaces parts of the network
            tokenizer=deepcopy(model.tokenizer),  # one without a BOS gets its end token as BOS, in place
            device=str(model.weights.unembed.device),
            dtype=model.weights.unembed.dtype,
        )
    return None


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
    """Hash of every tensor's name, dtype, shape and bytes, a block of bytes at a time."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        for block in value.detach().reshape(-1).view(torch.uint8).split(HASHED_BYTES):
            digest.update(block.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _tokenizer_hash(tokenizer: Any) -> str:
    vocabulary = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.blake2b(repr((vocabulary, sorted(special_ids(tokenizer)))).encode(), digest_size=16).hexdigest()


def _context(network: PreTrainedModel, config: ModelSettings) -> int:
    """Tokens of a window.

    Raises:
        ModelError: more were asked for than the model knows positions.
    """
    text, asked = network.config.get_text_config(), config.context_length
    known = (getattr(text, field, None) for field in LENGTH_FIELDS)
    longest = next((n for n in known if isinstance(n, int) and n > 0), max(DEFAULT_CONTEXT, asked or 0))
    if (asked or 0) > longest:
        raise ModelError(
            f"--context-length {asked} is longer than the {longest} positions that {config.model!r} knows: give that"
            " many or fewer"
        )
    return min(asked or DEFAULT_CONTEXT, longest)


def _spec(
    network: PreTrainedModel, sources: Sources, config: ModelSettings, context: int, weights_hash: str, tokenizer: Any
) -> ModelSpec:
    card = BUNDLED / "card.md" if config.model == "bundled" else Path(config.model) / "card.md"
    n_vocab, d_model = network.get_output_embeddings().weight.shape
    return ModelSpec(
        name=config.model,
        architecture=type(network).__name__,
        n_layers=sources.n_layers,
        d_model=d_model,
        n_vocab=n_vocab,
        context_length=context,
        weights_hash=weights_hash,
        tokenizer_hash=_tokenizer_hash(tokenizer),
        blocks=tuple(writer.block for writer in sources.writers),
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
        footprint=_footprint(network, sources, d_model),
    )


def _footprint(network: PreTrainedModel, sources: Sources, d_model: int) -> PositionValues:
    """Values of a position; a module of experts reads the residual stream, and runs one expert after the other."""
    values = {w.site: d_model if w.expert is not None else w.block.units * w.width for w in sources.writers}
    largest = max((writer.block.units * writer.width for writer in sources.writers), default=0)
    fused = network.config._attn_implementation != "eager"
    heads = 0 if fused else max((w.block.units for w in sources.writers if w.block.kind == "head"), default=0)
    embeddings_and_final = 2 + len(sources.pos_embeds)
    return PositionValues(sum(values.values()) + embeddings_and_final * d_model, max(largest, d_model), heads)
