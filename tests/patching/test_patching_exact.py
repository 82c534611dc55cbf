"""The functional forward equals the model, patches equal hooks on the model, and sweeps equal plain forward passes."""

import dataclasses
from pathlib import Path

import patch_models
import pytest
import tiny
import torch
from transformers import MistralConfig, MistralForCausalLM, OPTConfig, OPTForCausalLM, PhiConfig, PhiForCausalLM

from profiler.bench import patching
from profiler.config import RunConfig
from profiler.errors import ModelError, PairError, PatchError
from profiler.model.load import load_model
from profiler.model.steps import as_network
from profiler.model.steps.network import forward
from profiler.patching import batch as batches
from profiler.patching import setting, sites, sweep
from profiler.patching.metrics import logit_diff
from profiler.patching.setting import PatchSettings
from profiler.patching.sites import Target
from profiler.prompts.pairs import Pair, TokenPair, jsonl

HOOKS = {
    "head": "attn.hook_z",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "pattern": "attn.hook_pattern",
    "neuron": "mlp.out.hook_in",
    "mlp_out": "hook_mlp_out",
    "attn_out": "hook_attn_out",
    "resid_pre": "hook_resid_pre",
}
SITES = tuple(HOOKS)
LIKE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 48,
} | tiny.SIZES


@pytest.mark.parametrize("form", patch_models.FORMS)
@pytest.mark.parametrize("plain", [False, True], ids=["modules", "written out"])
def test_the_forward_pass_is_the_models(form: str, plain: bool) -> None:
    model, net = patch_models.loaded(form), patch_models.network(form)
    net = net.plain if plain else net
    tokens = torch.randint(1, 257, (3, 21), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs = as_network.logits_of(model, tokens)
    ours = forward(net, tokens)
    assert (ours - theirs).abs().max() < 1e-10
    ends = torch.tensor([3, 20, 7])
    assert (forward(net, tokens, ends=ends) - ours[torch.arange(3), ends]).abs().max() < 1e-12


def test_weights_that_give_other_logits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = patch_models.loaded("gpt2")
    monkeypatch.setattr(as_network, "ACT2FN", {"gelu_new": torch.relu})
    net = as_network.network_of(model)
    with pytest.raises(ModelError, match="their logits are off by"):
        _ = net.plain


UNLIKE = {
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            hidden_size=16,
            ffn_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=48,
            word_embed_proj_dim=16,
            pad_token_id=1,
            **tiny.SIZES,
        )
    ),
    "phi": lambda: PhiForCausalLM(PhiConfig(**LIKE)),
}


def _made(name: str, build, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(tiny.ARCHITECTURES, name, build)
    return load_model(RunConfig(model=str(tiny.save(name, folder)), corpora=("none",)))


@pytest.mark.parametrize("name", UNLIKE)
def test_weights_of_other_architectures_are_not_written_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = as_network.network_of(_made(name, UNLIKE[name], tmp_path, monkeypatch))
    with pytest.raises(ModelError, match=r"one by one.* the forms known are those of GPT-2, GPT-NeoX, Llama"):
        _ = net.plain


def test_attention_over_the_last_tokens_alone_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistral with a window of 20: the model's own logits beyond it, too; weights written out would give others."""
    build = lambda: MistralForCausalLM(MistralConfig(num_key_value_heads=1, sliding_window=20, **LIKE))  # noqa: E731
    model = _made("mistral", build, tmp_path, monkeypatch)
    net = as_network.network_of(model)
    tokens = torch.arange(1, 41)[None]
    with torch.no_grad():
        theirs = MistralForCausalLM.from_pretrained(model.spec.name, attn_implementation="eager")(tokens).logits
    assert (forward(net, tokens) - theirs).abs().max() < 1e-4
    difference = (forward(as_network.plain_of(model), tokens) - theirs).abs().amax(-1)[0]
    assert difference[:20].max() < 1e-4
    assert difference[20:].max() > 1e-3
    with pytest.raises(ModelError, match="attend to the last 20 tokens alone"):
        _ = net.plain
    pairs = patch_models.pairs(4)
    jsonl.write(tmp_path / "toy.jsonl", pairs)
    assert len(setting.encoded(model, pairs).pairs) == len(pairs)


def _hooked(form: str, batch: batches.PairBatch, target: Target, given: torch.Tensor) -> torch.Tensor:
    """Logits at the ends with the target patched through hooks of the bridge."""
    tl = patch_models.loaded(form).bridge
    mask = batch.mask(target.positions)
    seen = []

    def hook(value: torch.Tensor, hook: object) -> torch.Tensor:
        shaped = value.unflatten(-1, (-1, given.shape[-1])) if given.ndim == 4 and value.ndim == 3 else value
        new = sweep.put(shaped, given, mask, target)
        seen.append(target)
        return new.reshape(value.shape)

    with torch.no_grad():
        logits = tl.run_with_hooks(batch.clean, fwd_hooks=[(f"blocks.{target.layer}.{HOOKS[target.site]}", hook)])
    assert seen
    return logits[torch.arange(len(batch)), batch.ends]


@pytest.mark.parametrize("form", ["gpt2", "neox", "neox_sequential"])
@pytest.mark.parametrize("site", SITES)
def test_patch_is_that_of_a_hook(form: str, site: str) -> None:
    net, batch = patch_models.network(form), patch_models.batch()
    other = batches.trace(net, batch.corrupted, batch.ends)
    target = sites.every(net, site)[1]
    ours = sweep.intervene(net, batch.clean, batch.ends, batch, [target], sweep.resample(other))
    unrotated = batches.trace(net.plain, batch.corrupted, batch.ends)  # the bridge's hooks stand before rotation
    assert (ours - _hooked(form, batch, target, unrotated[site][target.layer])).abs().max() < 1e-10


@pytest.mark.parametrize("form", patch_models.FORMS)
@pytest.mark.parametrize("positions", ["all", "second", "end"])
def test_sweep_is_the_plain_forward_pass(form: str, positions: str) -> None:
    net, batch = patch_models.network(form), patch_models.batch()
    base, other = (batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    targets = [t for site in SITES for t in sites.every(net, site, positions) if t.unit is None or t.unit < 3]
    donors = {"resample": sweep.resample(other), "zero": lambda site, layer: torch.zeros_like(base[site][layer])}
    for donor in donors.values():
        got = {}
        for indices, logits in sweep.sweep(net, base, batch, targets, donor, tokens_at_once=2 * batch.clean.numel()):
            got |= dict(zip(indices, logits, strict=True))
        assert sorted(got) == list(range(len(targets)))
        for i, target in enumerate(targets):
            plain = sweep.intervene(net, batch.clean, batch.ends, batch, [target], donor)
            assert (got[i] - plain).abs().max() < 1e-11, target


def test_a_self_patch_changes_nothing_bitwise() -> None:
    """A3."""
    net, batch = patch_models.network("gpt2"), patch_models.batch()
    base = batches.trace(net, batch.clean, batch.ends)
    targets = [t for site in SITES for t in sites.every(net, site)]
    for _, logits in sweep.sweep(net, base, batch, targets, sweep.resample(base)):
        assert torch.equal(logits, base.logits.expand_as(logits))


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_patching_everything_gives_the_other_run(form: str) -> None:
    """A4."""
    net, batch = patch_models.network(form), patch_models.batch()
    base, other = (batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    donor = sweep.resample(other)
    for target in (Target("resid_pre", layer) for layer in range(net.n_layers)):
        _, logits = next(iter(sweep.sweep(net, base, batch, [target], donor)))
        assert (logits[0] - other.logits).abs().max() < 1e-12
    everything = [Target("resid_pre", 0), *sites.every(net, "head"), *sites.every(net, "mlp_out")]
    joint = sweep.intervene(net, batch.clean, batch.ends, batch, everything, donor)
    assert (joint - other.logits).abs().max() < 1e-12


def test_a_patch_that_never_fires_is_an_error() -> None:
    """A21."""
    net, batch = patch_models.network("gpt2"), patch_models.batch()
    base = batches.trace(net, batch.clean, batch.ends)
    donor = sweep.resample(base)
    for target in (
        Target("head", 9, 0),
        Target("head", 0, 99),
        Target("head", 0),
        Target("mlp_out", 0, 1),
        Target("nose", 0, 0),
    ):
        with pytest.raises(PatchError):
            list(sweep.sweep(net, base, batch, [target], donor))
        with pytest.raises(PatchError):
            sweep.intervene(net, batch.clean, batch.ends, batch, [target], donor)
    empty = dataclasses.replace(batch, roles=batch.roles | {"nobody": torch.zeros_like(batch.valid)})
    with pytest.raises(PatchError, match="never fires"):
        list(sweep.sweep(net, base, empty, [Target("head", 0, 0, "nobody")], donor))
    with pytest.raises(PatchError, match="L0H1 at all never fired"):
        sweep.refuse_unfired([Target("head", 0, 1)], set())
    with pytest.raises(PairError, match="no pair has the role"):
        list(sweep.sweep(net, base, batch, [Target("head", 0, 0, "subject")], donor))


@pytest.mark.parametrize(
    ("label", "target"),
    [
        ("L2H3", Target("head", 2, 3)),
        ("L2H3.q", Target("q", 2, 3)),
        ("L0N17", Target("neuron", 0, 17)),
        ("L1_mlp_out", Target("mlp_out", 1)),
        ("L1H0.pattern", Target("pattern", 1, 0)),
        ("L3_resid_pre", Target("resid_pre", 3)),
    ],
)
def test_labels_are_read_and_written(label: str, target: Target) -> None:
    assert sites.parse_target(label) == target
    assert target.label == label


@pytest.mark.parametrize("label", ["", "H3", "L2H", "L2H3.z", "L2_mlp", "L2N1.q"])
def test_unreadable_labels_are_errors(label: str) -> None:
    with pytest.raises(PatchError, match="names nothing"):
        sites.parse_target(label)


@pytest.mark.parametrize("form", ["gpt2", "neox_sequential"])
def test_a_head_sweep_is_that_of_transformer_lens(form: str) -> None:
    net, batch = patch_models.network(form), patch_models.batch()
    clean, corrupted = (batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    model = patch_models.loaded(form)
    theirs = patching.head_sweep(model, batch)
    for indices, logits in sweep.sweep(net, corrupted, batch, sites.every(net, "head"), sweep.resample(clean)):
        ours = torch.stack([logit_diff(row, batch.options) for row in logits])
        assert (ours - theirs[indices]).abs().max() < 1e-6  # it keeps results in float32


def test_speed_is_told_beside_transformer_lens(tmp_path: Path) -> None:
    """What is measured, not how fast it is."""
    model = patch_models.loaded("gpt2")
    jsonl.write(tmp_path / "toy.jsonl", patch_models.pairs(4))
    told = list(patching.compare(model, PatchSettings(str(tmp_path / "toy.jsonl"))))
    assert "4 heads" in told[0]
    assert sum(line.endswith(" s of CPU") for line in told) == 6
    assert sum("forward passes" in line for line in told) == 3
    assert float(told[-1].split()[-1]) < 1e-5


@pytest.mark.parametrize("form", ["gpt2", "neox"])
def test_a_patch_after_the_end_of_a_shorter_prompt(form: str) -> None:
    """Its answer is read before the first offset that changes in the longer one, and stays what it was."""
    net = patch_models.network(form)
    short = TokenPair(
        Pair("short", "t", "s", (1,), (2,), (3,), (4,)), (0, 7, 8), (0, 7, 9), (3,), (4,), (("end", (2,)),), 2
    )
    tokens = (0, 7, 8, 10, 11, 12, 13)
    long = TokenPair(
        Pair("long", "t", "s", (1,), (2,), (3,), (4,)),
        tokens,
        (*tokens[:5], 20, 13),
        (3,),
        (4,),
        (("late", (5,)), ("end", (6,))),
        5,
    )
    both = batches.batch_of([short, long], dtype=torch.float64)
    clean, other = (batches.trace(net, ids, both.ends) for ids in (both.clean, both.corrupted))
    for site in ("head", "v", "mlp_out", "resid_pre"):
        targets = sites.every(net, site, "late")
        for indices, logits in sweep.sweep(net, clean, both, targets, sweep.resample(other)):
            for i, row in zip(indices, logits, strict=True):
                slow = sweep.intervene(net, both.clean, both.ends, both, [targets[i]], sweep.resample(other))
                torch.testing.assert_close(row, slow, rtol=0, atol=1e-10)
                torch.testing.assert_close(row[0], clean.logits[0], rtol=0, atol=1e-10)
