"""Ways to the logits that no tiny model of transformers has, and models that are refused by what they are."""

import pytest
import tiny
import torch
import zoo
from torch import nn

from profiler.config import RunConfig
from profiler.errors import ComponentError, ModelError
from profiler.model import norms, validation, wiring
from profiler.model.components import (
    Block,
    ComponentId,
    ModelSpec,
    blocks_from_facts,
    parse_label,
    uniform,
    unit_in_words,
    units_in_words,
)
from profiler.model.load import model_from

TOKENS = torch.arange(1, 13)[None]


def spec(*blocks: Block) -> ModelSpec:
    return ModelSpec("m", "M", 1 + max(b.layer for b in blocks), 8, 10, 16, "w", "t", blocks)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "gemma2", "olmo2", "granite", "gpt1", "bloom", "nanochat"])
def test_the_way_of_each_family(name):
    """Norms on the way: the final one alone, two in each layer beside it, those of the stream, the embedding's (of
    NanoChat the first call of the final norm's module)."""
    found = wiring.find(zoo.build(name), TOKENS, torch.float64)
    on_the_way = {
        "gemma2": 2 * zoo.LAYERS + 1,
        "olmo2": 2 * zoo.LAYERS + 1,
        "gpt1": 2 * zoo.LAYERS,
        "bloom": 2,
        "nanochat": 2,
    }
    assert len(found.path_norms) == on_the_way.get(name, 1)
    multipliers = {wire.multiplier for sink in found.sinks for wire in sink.wires}
    assert multipliers == ({1.0, 0.22, 12.0} if name == "granite" else {1.0})
    assert found.logit_scale == (1 / 8 if name == "granite" else 1.0)
    assert found.soft_cap == {"gemma2": 30.0, "nanochat": 15.0}.get(name)
    assert found.path_norms[-1:] == (("model.norm",) if name == "nanochat" else found.path_norms[-1:])


def test_query_projections_are_no_writers():
    """Their output has the width of the residual stream too, but attention stands between."""
    found = wiring.find(zoo.build("llama2"), TOKENS, torch.float64)
    assert [site for site in found.sources if "q_proj" in site or "v_proj" in site] == []
    assert sum("o_proj" in site for site in found.sources) == zoo.LAYERS


class Broken(nn.Module):
    """A layer's MLP whose output is changed after its last matrix."""

    def __init__(self, inner: nn.Module, how: str):
        super().__init__()
        self.inner, self.how = inner, how

    def forward(self, x):
        y = self.inner(x)
        return {
            "tanh": y.tanh,
            "by token": lambda: y * x.mean(-1, keepdim=True),
            "constant": lambda: y + torch.linspace(0, 1, y.shape[-1], dtype=y.dtype),
        }[self.how]()


@pytest.mark.parametrize("how", ["tanh", "by token"])
def test_what_is_no_fixed_multiplication_is_refused(how):
    network = zoo.build("llama2")
    network.model.layers[1].mlp = Broken(network.model.layers[1].mlp, how)
    config = RunConfig(model="m", corpora=("x",), dtype="float64")
    with pytest.raises(ModelError, match="multiplied by another number at each token"):
        model_from(network, tiny.tokenizer(), config)


def test_a_part_that_writes_past_its_last_matrix_does_not_add_up():
    """A constant that no module's output holds."""
    network = zoo.build("llama2")
    network.model.layers[1].mlp = Broken(network.model.layers[1].mlp, "constant")
    with pytest.raises(ModelError, match="do not add up to its logits"):
        model_from(network, tiny.tokenizer(), RunConfig(model="m", corpora=("x",), dtype="float64"))


def test_a_sliding_window_is_passed_by_the_windows_that_a_model_is_tried_on():
    """A shorter window cannot show that a watched pass leaves the sliding window out."""
    network = zoo.build("mistral")
    network.config.sliding_window = 700
    assert [w.shape[1] for w in validation.probe_windows(network, 1024)] == [12, 708]
    assert [w.shape[1] for w in validation.probe_windows(network, 300)] == [12, 300]
    network.config.sliding_window = None
    assert [w.shape[1] for w in validation.probe_windows(network, 1024)] == [12]


def test_weights_that_are_no_numbers_are_named():
    network = zoo.build("llama2")
    network.model.layers[1].mlp.down_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"NaN or infinite weights in model.layers.1.mlp.down_proj.weight"):
        model_from(network, tiny.tokenizer(), RunConfig(model="m", corpora=("x",), dtype="float64"))


def test_ids_follow_blocks_of_any_size():
    blocks = (Block(0, "head", 2), Block(0, "neuron", 3), Block(1, "mixer", 4), Block(1, "neuron", 5, "S0"))
    made = spec(*blocks)
    labels = [component.label for component in made.components()]
    assert labels[:14] == ("L0H0 L0H1 L0N0 L0N1 L0N2 L1M0 L1M1 L1M2 L1M3 L1S0N0 L1S0N1 L1S0N2 L1S0N3 L1S0N4".split())
    assert (
        labels[14:]
        == "embed pos_embed L0_attn_bias L0_mlp_bias L1_attn_bias L1_mlp_bias L1_mixer_bias final_bias".split()
    )
    assert made.n_components == len(labels)
    for i, label in enumerate(labels[:14]):
        assert made.id_of(parse_label(label)) == i
    assert blocks_from_facts(made.blocks_as_facts()) == blocks
    assert made.described() == "2 layers of 2 heads and 3 to 5 neurons and 4 mixer channels"


def test_experts_have_labels_of_their_own_and_a_presence_each():
    blocks = (
        Block(0, "head", 2),
        Block(0, "neuron", 3, "E0"),
        Block(0, "neuron", 3, "E1"),
        Block(0, "neuron", 2, "S0"),
    )
    made = spec(*blocks, Block(1, "neuron", 4, "E0"))
    assert [c.label for c in made.components()][4:10] == ["L0E0N2", "L0E1N0", "L0E1N1", "L0E1N2", "L0S0N0", "L0S0N1"]
    assert made.id_of(parse_label("L1E0N3")) == 13
    assert made.presence_runs == (
        (0, slice(0, 2)),
        (1, slice(2, 5)),
        (2, slice(5, 8)),
        (0, slice(8, 10)),
        (3, slice(10, 14)),
        (0, slice(14, 21)),
    )
    assert (made.d_mlp, made.n_components) == (8, 21)
    assert made.described() == "2 layers of 2 heads and 2 neurons and 1 to 2 experts of 3 to 4 neurons"
    assert unit_in_words(parse_label("L0E1N2")) == "neuron 2 of expert 1 in layer 0"
    assert units_in_words(block.kind for block in made.blocks) == "heads and neurons"


@pytest.mark.parametrize("label", ["L0H2", "L2H0", "L1H0", "L1N0", "L0M0", "L1S1N0"])
def test_units_that_the_model_lacks_are_refused(label):
    made = spec(Block(0, "head", 2), Block(1, "mixer", 4), Block(1, "neuron", 5, "S0"))
    with pytest.raises(ComponentError, match=rf"{label} is not in m, which has 2 layers"):
        made.id_of(parse_label(label))
    with pytest.raises(ComponentError, match="is no head or neuron"):
        made.id_of(ComponentId("embed"))


def test_uniform_blocks_may_lack_neurons():
    assert uniform(2, 3, 0) == (Block(0, "head", 3), Block(1, "head", 3))


@pytest.mark.parametrize("d", [8, 7], ids=["even", "odd"])
@pytest.mark.parametrize("kind", ["layer", "rms", "offset", "none"])
def test_a_norm_is_found_by_calling_it(kind, d):
    g = torch.Generator().manual_seed(0)
    made = {"layer": nn.LayerNorm(d), "rms": nn.RMSNorm(d, eps=1e-6), "offset": Offset(d)}.get(kind)
    made = (nn.LayerNorm(d, elementwise_affine=False) if made is None else made).double()
    for parameter in made.parameters():
        parameter.data = torch.randn(d, generator=g, dtype=torch.float64)
    held = norms.read(made, "norm", d, torch.float64)
    x, toward = torch.randn(2, 3, d, generator=g, dtype=torch.float64)
    assert held.centres == (kind in ("layer", "none"))
    assert (held.bias is None) == (kind != "layer")
    bias = torch.zeros(d, dtype=torch.float64) if held.bias is None else held.bias
    y = held.centred(x) * held.gain / held.denominator(x) + bias
    torch.testing.assert_close(y, made(x), rtol=1e-12, atol=1e-12)
    before = held.pull_back(toward, held.denominator(x))
    torch.testing.assert_close((x * before).sum(-1) + toward @ bias, (made(x) * toward).sum(-1))


class Offset(nn.Module):
    """Gemma's norm: the stored weight is the gain less 1."""

    def __init__(self, d: int):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(d)), 1e-6

    def forward(self, x):
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * (1 + self.weight)


def test_a_norm_of_another_form_is_refused():
    with pytest.raises(ModelError, match="is no LayerNorm and no RMSNorm of 8 values"):
        norms.read(nn.Softsign(), "norm", 8, torch.float64)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("llama4", "is a mixture of experts .* of a form that cannot be read"),
        ("jetmoe", "is a mixture of experts .* of a form that cannot be read"),
        ("gemma3n", "several residual streams are mixed between the last layer and the unembedding"),
        ("rwkv", "is multiplied by another number at each token"),
        ("opt_350m", "a matrix stands before the first layer or after the last"),
        ("modernbert_decoder", "a prediction head stands between the last layer and the unembedding"),
        ("bart", "is an encoder-decoder"),
        ("bert", "is a masked language model"),
    ],
)
def test_a_family_that_is_not_read_is_refused_by_its_cause(name, why):
    """The second table of docs/models.md."""
    torch.manual_seed(0)
    network = zoo.REFUSED[name]().eval()
    for parameter in network.parameters():
        parameter.data.add_(zoo.NOISE * torch.randn_like(parameter))
    with pytest.raises(ModelError, match=why):
        model_from(network, tiny.tokenizer(), RunConfig(model=name, corpora=("x",), context_length=40))
