"""Dictionaries at their sites: what is read there is what TransformerLens has, and attributions add up to the write's.

The oracle of one unit is a gradient by the stream with the denominators of norms held; that of all of them together is
the sum of the attributions of the model's own components, which other tests hold against gradients.
"""

from pathlib import Path

import frozen
import made_dictionaries
import pytest
import tiny
import torch
import zoo

from profiler.config import RunConfig
from profiler.dictionaries.dictionary import Place
from profiler.dictionaries.hooks import SITES
from profiler.errors import DictionaryError
from profiler.model.components import ComponentId
from profiler.model.described.sites import Sites
from profiler.model.described.splice import losses
from profiler.model.direct import by_part, centred_logit, final_norm
from profiler.model.forward import Wanted
from profiler.model.load import Model, describe, load_model, model_from, twin_of

EXACT = 1e-12
QUICK = ("gpt2", "neox_parallel", "llama2", "gemma2", "granite")
"""Plain with biases, in parallel, RMSNorm, norms of blocks' own, multipliers."""
SLOW = ("gemma3", "olmo2", "cohere", "phi2", "qwen3", "stablelm2", "smollm3", "layer_norms_after_blocks")
FAMILIES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
LAYER = 1


def loaded(name: str) -> Model:
    config = RunConfig(model=name, corpora=("x",), dtype="float64", context_length=40)
    return model_from(zoo.double(zoo.build(name)), tiny.tokenizer(), config)


def tokens_of(n_windows: int = 2, width: int = 16) -> torch.Tensor:
    return torch.randint(1, zoo.VOCAB, (n_windows, width), generator=torch.Generator().manual_seed(3))


def asked(folder: Path, site: str, model: Model, **cfg: object) -> str:
    wide = {"mlp_post": model.spec.d_mlp}
    if site == "attn_z":
        heads = next(writer for block, writer in model.weights.writers.items() if block.kind == "head")
        wide["attn_z"] = heads.block.units * heads.width
    return made_dictionaries.random_one(folder / site, LAYER, site, wide.get(site, zoo.WIDTH), **cfg)


def attributed(model: Model, tokens: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """DLA of each component by its label, of the model's own and of dictionaries' units."""
    targets = tokens.roll(-1, 1)
    capture = model.run(tokens, Wanted())
    labels = [component.label for component in model.spec.components()]
    parts = list(by_part(capture, model.weights, model.spec, targets))
    described = [part for part, _ in model.described.parts(capture.sites, capture.scales, model.spec, targets)]
    own, theirs = (
        {
            label: part.dla[..., i]
            for part in of
            for i, label in enumerate(labels[part.components.start : part.components.stop])
        }
        for of in (parts, described)
    )
    return own, theirs


def members(model: Model, site: str) -> list[str]:
    """The model's own components whose writes together stand at a site."""
    spec = model.spec
    in_layer = {kind: [f"L{LAYER}{letter}{i}" for i in range(n)] for kind, letter, n in _sizes(model)}
    if site in ("attn_z", "attn_out"):
        return in_layer["head"] + ([f"L{LAYER}_attn_bias"] if site == "attn_out" else [])
    if site in ("mlp_post", "mlp_out"):
        return in_layer["neuron"] + ([f"L{LAYER}_mlp_bias"] if site == "mlp_out" else [])
    before = LAYER + (site == "resid_post")
    written = [c.label for c in spec.components() if c.layer is not None and c.layer < before and "D" not in c.label]
    return ["embed", "pos_embed", *written]


def _sizes(model: Model) -> list[tuple[str, str, int]]:
    units = {block.kind: block.units for block in model.spec.blocks if block.layer == LAYER}
    return [("head", "H", units["head"]), ("neuron", "N", units["neuron"])]


@pytest.mark.parametrize("name", FAMILIES)
def test_units_bias_and_error_add_up_to_what_is_written(name: str, tmp_path: Path) -> None:
    """At every site that a dictionary writes; with a norm undone, and for a transcoder too."""
    plain = loaded(name)
    sites = ["resid_pre", "resid_post", "attn_z", "attn_out", "mlp_post", "mlp_out"]
    norms = {"resid_post": {"normalize_activations": "layer_norm"}}
    norms["resid_pre"] = {"normalize_activations": "constant_norm_rescale"}
    texts = [asked(tmp_path, site, plain, **norms.get(site, {})) for site in sites]
    texts.append(asked(tmp_path, "mlp_in", plain, d_out=zoo.WIDTH, architecture="jumprelu_skip_transcoder"))
    own, theirs = attributed(describe(plain, texts), tokens_of())
    for site in [*sites, "transcoder"]:
        wanted = sum(own[label] for label in members(plain, "mlp_out" if site == "transcoder" else site))
        found = [dla for label, dla in theirs.items() if label.startswith(f"L{LAYER}.{site}:")]
        assert len(found) == 12 + 2
        assert float((sum(found) - wanted).abs().max()) <= EXACT * float(wanted.abs().max()), site
        assert min(float(dla.abs().max()) for dla in found[-2:]) > 0


@pytest.mark.parametrize("name", ["gpt2", "llama2", "gemma2"])
@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "mlp_out"])
def test_a_unit_s_attribution_is_its_part_times_a_gradient(name: str, site: str, tmp_path: Path) -> None:
    """Blocks cut, denominators held, and the gradient taken at the very tensor that stands at the site."""
    tokens, network, caught = tokens_of(), zoo.double(zoo.build(name)), list[torch.Tensor]()
    layer = next(m for n, m in network.named_modules() if n.endswith((f"layers.{LAYER}", f"h.{LAYER}")))

    def keep(_module: object, given: object, out: object = None) -> None:
        value = given[0] if out is None else out
        caught.append(value[0] if isinstance(value, tuple) else value)

    if site == "mlp_out":
        inside = {"gpt2": "mlp", "llama2": "mlp", "gemma2": "post_feedforward_layernorm"}[name]
        layer.get_submodule(inside).register_forward_hook(keep)
    else:
        (layer.register_forward_pre_hook if site == "resid_pre" else layer.register_forward_hook)(keep)
    left, targets = frozen.cut_pass(network, tokens), tokens.roll(-1, 1)
    z = left.unembedded if name == "gemma2" else left.logits
    centred = z.gather(-1, targets[..., None])[..., 0] - z.mean(-1)
    (toward,) = torch.autograd.grad(centred.sum(), caught[0])
    model = describe(loaded(name), [asked(tmp_path, site, loaded(name), normalize_activations="layer_norm")])
    _, theirs = attributed(model, tokens)
    dictionary = model.described.attached[0].dictionary
    encoded = dictionary.encode(caught[0].detach())
    wanted = encoded.values * encoded.size * (toward @ dictionary.w_dec.T)
    found = torch.stack([theirs[f"L{LAYER}D{unit}"] for unit in range(dictionary.units)], -1)
    assert float(found.abs().max()) > 0
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


def test_a_cross_layer_transcoder_s_units_write_later_layers_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    plain, tokens, units = loaded("llama2"), tokens_of(), 5
    rows = torch.randn(units, zoo.LAYERS - LAYER, zoo.WIDTH, dtype=torch.float64)
    encoder = {f"W_enc_{LAYER}": torch.randn(units, zoo.WIDTH, dtype=torch.float64)}
    save_file(encoder | {f"b_enc_{LAYER}": torch.ones(units)}, tmp_path / f"W_enc_{LAYER}.safetensors")
    save_file({f"W_dec_{LAYER}": rows}, tmp_path / f"W_dec_{LAYER}.safetensors")
    model = describe(plain, [f"L{LAYER}={tmp_path}"])
    capture = model.run(tokens, Wanted())
    targets = tokens.roll(-1, 1)
    ((part, rebuild),) = model.described.parts(capture.sites, capture.scales, model.spec, targets)
    sites = model.described.sites
    toward = [sites.toward(sites.cut(Place(n, "mlp_out")), targets, capture.scales) for n in range(LAYER, zoo.LAYERS)]
    wanted = sum((d.directions() @ rows[:, i].T for i, d in enumerate(toward)), torch.zeros(())) * part.activation
    assert rebuild is None
    assert model.spec.dictionaries[0].remainders == ()
    torch.testing.assert_close(part.dla, wanted)


@pytest.mark.parametrize("name", ["gpt2", "neox", "llama"])
def test_what_stands_at_a_site_is_what_transformer_lens_has_there(name: str, model_dirs: dict[str, Path]) -> None:
    """The names of its hooks are those of published dictionaries."""
    config = RunConfig(model=str(model_dirs[name]), corpora=("x",), context_length=24)
    model = load_model(config)
    _, cache = model.bridge.run_with_cache(tokens_of(), prepend_bos=False)
    sites = Sites(model.network, model.weights, lambda: twin_of(model.unwatched))
    places = [Place(1, site) for site in SITES if site in made_dictionaries.HOOKS]
    for place in places:
        sites.watch(place)
    model.run(tokens_of(), Wanted())
    left = sites.take()
    for place in places:
        hook = f"blocks.1.{made_dictionaries.HOOKS[place.site]}"
        if hook in cache:
            theirs = cache[hook].flatten(2)
            torch.testing.assert_close(left[place].reshape(theirs.shape), theirs, rtol=1e-4, atol=1e-5, msg=place.site)
    assert sum(f"blocks.1.{made_dictionaries.HOOKS[place.site]}" in cache for place in places) >= 7


def test_a_subspace_is_one_unit_with_the_projection_s_effect(tmp_path: Path) -> None:
    import numpy as np

    plain, tokens = loaded("llama2"), tokens_of()
    rows = np.random.default_rng(0).normal(size=(3, zoo.WIDTH))
    np.save(tmp_path / "m.npy", rows)
    model = describe(plain, [f"L{LAYER}.resid_post=subspace:{tmp_path / 'm.npy'}"])
    capture, targets = model.run(tokens, Wanted()), tokens.roll(-1, 1)
    ((part, _),) = model.described.parts(capture.sites, capture.scales, model.spec, targets)
    projector = torch.from_numpy(np.linalg.pinv(rows) @ rows)
    projected = capture.sites[Place(LAYER, "resid_post")] @ projector
    cut = model.described.sites.cut(Place(LAYER, "resid_post"))
    toward = model.described.sites.toward(cut, targets, capture.scales)
    torch.testing.assert_close(part.activation[..., 0], projected.norm(dim=-1))
    torch.testing.assert_close(part.dla[..., 0], toward.along(projected))


def test_all_that_is_written_before_the_final_norm_is_the_logit(tmp_path: Path) -> None:
    """A dictionary of the last layer's stream: its parts and the biases after it are the centred target logit."""
    plain, tokens = loaded("gpt2"), tokens_of()
    text = made_dictionaries.random_one(tmp_path / "a", zoo.LAYERS - 1, "resid_post", zoo.WIDTH)
    model, targets = describe(plain, [text]), tokens.roll(-1, 1)
    own, theirs = attributed(model, tokens)
    capture = model.run(tokens, Wanted())
    logit = centred_logit(*final_norm(capture, model.weights), model.weights, targets)
    torch.testing.assert_close(sum(theirs.values()) + own["final_bias"], logit, rtol=1e-12, atol=1e-12)


def test_a_reconstruction_is_put_in_at_ordinary_positions(tmp_path: Path) -> None:
    """A perfect one changes no loss; nothing in its place gives the loss of a network whose MLP writes 0 there."""
    plain, tokens, d = loaded("gpt2"), tokens_of(), zoo.WIDTH
    eye = torch.eye(d, dtype=torch.float64)
    both = {"W_enc": torch.cat([eye, -eye], 1), "W_dec": torch.cat([eye, -eye], 0)}
    both |= {"b_enc": torch.zeros(2 * d), "b_dec": torch.zeros(d)}
    text = made_dictionaries.save(tmp_path / "a", both, metadata={"hook_name": f"blocks.{LAYER}.hook_mlp_out"})
    model, targets = describe(plain, [text]), tokens.roll(-1, 1)
    ordinary = torch.ones(tokens.shape, dtype=torch.bool)
    ordinary[:, 0] = ordinary[:, -1] = False
    capture = model.run(tokens, Wanted())
    rebuilds = [r for _, r in model.described.parts(capture.sites, capture.scales, model.spec, targets) if r]
    found = losses(model, tokens, targets, ordinary, rebuilds)
    network = zoo.double(zoo.build("gpt2"))

    def off(_module: object, _args: object, out: torch.Tensor) -> torch.Tensor:
        return torch.where(ordinary[..., None], 0.0, out)

    def loss() -> torch.Tensor:
        with torch.no_grad():
            log_p = network(tokens, use_cache=False).logits.log_softmax(-1)
        return -(log_p.gather(-1, targets[..., None])[..., 0] * ordinary).sum(1)

    wanted = loss()
    network.transformer.h[LAYER].mlp.register_forward_hook(off)
    torch.testing.assert_close(found[:, 0], wanted)
    torch.testing.assert_close(found[:, 1], wanted)
    torch.testing.assert_close(found[:, 2], loss())
    assert model.described.sites.passing.put == {}


def test_labels_tell_dictionaries_of_one_layer_apart(tmp_path: Path) -> None:
    plain = loaded("llama2")
    texts = [asked(tmp_path / str(i), "mlp_out", plain, seed=i) for i in range(2)]
    texts.append(made_dictionaries.random_one(tmp_path / "other", 0, "mlp_out", zoo.WIDTH))
    spec = describe(plain, texts).spec
    assert [facts.block.name for facts in spec.dictionaries] == ["L1.mlp_out:D", "L1.mlp_out2:D", "L0D"]
    for number, component in enumerate(spec.components()):
        if component.unit is not None or component in spec.remainder_ids:
            assert spec.named(component.label) == component
            assert spec.id_of(component) == number
    assert ComponentId("dictionary_error", 0) in spec.remainder_ids
    own = list(plain.spec.components())
    assert list(spec.components())[: len(own)] == own, "the model's own components have the ids that they have without"


def test_the_network_of_a_model_is_the_one_that_runs() -> None:
    """Falcon's runs in a copy of its own, without its attention weights: hooks belong there."""
    model, ran = loaded("falcon"), list[bool]()
    model.network.transformer.h[LAYER].register_forward_hook(lambda *_: ran.append(True))
    model.run(tokens_of(), Wanted())
    assert ran


def test_what_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    plain = loaded("llama2")
    wide = made_dictionaries.random_one(tmp_path / "wide", LAYER, "mlp_out", zoo.WIDTH + 1)
    with pytest.raises(DictionaryError, match="belongs to another model or site"):
        describe(plain, [wide])
    beyond = made_dictionaries.random_one(tmp_path / "beyond", zoo.LAYERS, "mlp_out", zoo.WIDTH)
    with pytest.raises(DictionaryError, match="not in a model of 3 layers"):
        describe(plain, [beyond])
    with pytest.raises(DictionaryError, match="read by the MLP alone"):
        describe(plain, [f"{asked(tmp_path, 'mlp_out', plain).replace('=', '.mlp_out:mlp_in=')}"])
    mixture = loaded("mixtral")
    with pytest.raises(DictionaryError, match="experts"):
        describe(mixture, [made_dictionaries.random_one(tmp_path / "moe", LAYER, "mlp_out", zoo.WIDTH)])
