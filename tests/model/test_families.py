"""Every family that is read: its parts add up, equal a gradient's, and its attention rows are the model's own."""

import frozen
import models_table
import pytest
import tiny
import torch
import zoo

from profiler.config import RunConfig
from profiler.model import attention
from profiler.model.direct import add_up, block_denominators, by_part, centred_logit, final_norm, logit_directions
from profiler.model.forward import Wanted
from profiler.model.load import Model, model_from

ROUNDED = {"mamba": 2e-6, "mamba2": 2e-6, "xglm": 2e-6, "nemotron_h": 2e-6}
"""Families whose residual stream or logits are float32 whatever their dtype, and one that runs in float32 alone."""
NO_ROWS = {"mamba", "mamba2", "falcon", "falcon_new", "falcon_alibi"}
"""Without attention, or with attention that computes something else where it forms its weights: transformers' Falcon
then attends to what comes after, and adds ALiBi twice."""


def built(name: str):
    return zoo.build(name, torch.float32 if name == "xglm" else torch.float64)


def loaded(name: str, network) -> Model:
    dtype = "float32" if name == "xglm" else "float64"
    config = RunConfig(model=name, corpora=("x",), dtype=dtype, context_length=40)
    return model_from(network, tiny.tokenizer(), config)


def tokens_of(n_windows: int = 2, width: int = 40):
    return torch.randint(1, zoo.VOCAB, (n_windows, width), generator=torch.Generator().manual_seed(3))


FORMS = {
    "gpt2",
    "neox_parallel",
    "llama2",
    "gemma2",
    "gemma3",
    "qwen3",
    "olmo2",
    "falcon",
    "bloom",
    "opt",
    "mamba",
    "lfm2",
    "bamba",
}
"""Families without experts that take part in the quick tests, one of each form; the others are slow."""
QUICK = {"mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3_experts", "granitemoe", "jamba", "gemma4_moe", "nemotron_h"}
"""Of the mixtures of experts one of each form: plain, shared with a gate, biases, shared, multipliers, in some layers,
norms after blocks, without gates. The others take part in the slow tests."""
NAMES = [name if name in FORMS | QUICK else pytest.param(name, marks=pytest.mark.slow) for name in zoo.FAMILIES]


@pytest.mark.parametrize("name", [*NAMES, *zoo.MADE_UP])
def test_parts_add_up_and_equal_a_gradient(name):
    tokens = tokens_of()
    targets = tokens.roll(-1, 1)
    want, by_matrix = frozen.attributions(zoo.double(built(name)), tokens, targets)
    model = loaded(name, zoo.double(built(name)))
    every = (torch.arange(2).repeat_interleave(40), torch.arange(40).repeat(2))
    capture = model.run(tokens, Wanted(every))
    stream, scale = final_norm(capture, model.weights)
    logits = centred_logit(stream, scale, model.weights, targets)
    limit = ROUNDED.get(name, 1e-12) * float(want.abs().max())
    assert float((logits - want).abs().max()) <= limit
    total = torch.zeros_like(logits)
    parts = list(by_part(capture, model.weights, model.spec, targets))
    for part in parts:
        add_up(total, part)
    assert float((total - logits).abs().max()) <= limit
    for (block, writer), part in zip(model.weights.writers.items(), parts, strict=False):
        if writer.expert is not None:
            theirs = by_matrix[writer.site][:, :, writer.expert].flatten(0, 1)
            assert part.present.tolist() == theirs[:, 0].isfinite().nonzero()[:, 0].tolist()
            theirs = theirs[part.present][None]
            if not len(part.present):
                continue
        else:
            theirs = by_matrix[writer.site].unflatten(-1, (block.units, writer.width)).sum(-1)
        assert float((part.dla - theirs).abs().max()) <= limit, block
        assert float(theirs.abs().max()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_attention_rows_are_those_of_the_models_default_pass(name):
    """Where the model also forms its weights with the same logits, they are equal; elsewhere none are given."""
    tokens = tokens_of()
    own = built(name)
    with torch.no_grad():
        default = own(tokens, use_cache=False).logits
    own.set_attn_implementation("eager")
    with torch.no_grad():
        formed = own(tokens, use_cache=False, output_attentions=True)
    same = torch.allclose(formed.logits, default, atol=1e-4)
    model = loaded(name, built(name))
    rows = (torch.tensor([0, 1, 1]), torch.tensor([5, 39, 20]))
    capture = model.run(tokens, Wanted(rows, rows))
    heads = [block for block in model.spec.blocks if block.kind == "head"]
    assert list(capture.attention) == ([] if name in NO_ROWS else heads)
    assert bool(capture.attention) <= same
    patterns = [
        pattern for pattern in getattr(formed, "attentions", None) or () if pattern is not None and pattern.dim() == 4
    ]
    for got, pattern in zip(capture.attention.values(), patterns, strict=False):
        torch.testing.assert_close(got.double(), pattern[rows[0], :, rows[1]].double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt_oss", "llama2"])
def test_the_mass_on_a_learned_sink_is_what_a_row_lacks(name):
    """A softmax over the tokens and one logit more, for a family that has such a logit."""
    tokens, network = tokens_of(1), built(name)
    network.set_attn_implementation("eager")
    with torch.no_grad():
        formed = network(tokens, use_cache=False, output_attentions=True).attentions
    rows = (torch.zeros(3, dtype=torch.int64), torch.tensor([1, 20, 39]))
    counted = attention.masks(tokens.expand(3, -1), torch.zeros(3, 40, dtype=torch.int64), rows[1])
    read = lambda pattern: attention.summarise(pattern, counted, rows[1])  # noqa: E731
    capture = loaded(name, built(name)).run(tokens, Wanted(attention=rows, read=read))
    for measures, pattern in zip(capture.attention.values(), formed, strict=True):
        sink = measures[..., attention.MEASURES.index("sink")]
        torch.testing.assert_close(sink.double(), 1 - pattern[0, :, rows[1]].double().sum(-1).T, rtol=1e-5, atol=1e-6)
        assert bool((sink > 0.01).all()) if name == "gpt_oss" else not bool(sink.any())


ADDED = [
    "llama2",
    "gpt2",
    "gemma2",
    "gemma3",
    "gemma4",
    "olmo2",
    "glm4",
    "granite",
    "cohere",
    "falcon_h1",
    *zoo.MADE_UP,
]
"""One of each way to the residual stream: none of its own, a norm, a norm and a scale of the layer, multipliers."""


@pytest.mark.parametrize("name", ADDED)
def test_a_heads_activation_is_the_norm_of_what_it_adds_to_the_residual_stream(name):
    tokens = tokens_of(1, 20)
    network = zoo.double(built(name))
    model = loaded(name, zoo.double(built(name)))
    parts = by_part(model.run(tokens, Wanted()), model.weights, model.spec, tokens.roll(-1, 1))
    for (block, writer), part in zip(model.weights.writers.items(), parts, strict=False):
        if block.kind == "head":
            added = frozen.added_by_heads(network, tokens, writer.site, block.units)
            torch.testing.assert_close(part.activation, added, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ADDED)
def test_logit_effects_are_what_a_neuron_adds_per_unit_of_activation(name):
    tokens = tokens_of(1, 20)
    targets = tokens.roll(-1, 1)
    model = loaded(name, built(name))
    capture, weights = model.run(tokens, Wanted()), model.weights
    scale = final_norm(capture, weights)[1][0]
    own = block_denominators(capture, weights)
    parts = by_part(capture, weights, model.spec, targets)
    for (number, block), part in zip(enumerate(weights.writers), parts, strict=False):
        if block.kind == "neuron" and weights.has_fixed_way(block):
            effects = weights.matrix(block) @ logit_directions(weights, block, targets[0]).T
            at = scale * own[number][0] if number in own else scale
            torch.testing.assert_close(part.activation[0] * effects.T / at, part.dla[0], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma2", "qwen3", "mixtral", "deepseek_v3_experts", "lfm2", "mamba"])
def test_the_page_of_families_says_what_is_true_of_some(name):
    assert models_table.row(name) in models_table.written().splitlines()


@pytest.mark.monthly
def test_the_page_of_families_says_what_is_true():
    assert models_table.written() == models_table.table()


def test_the_page_of_families_says_what_is_refused_and_why():
    assert models_table.written(models_table.REFUSALS) == models_table.refusals()
