"""The models written by hand are exact: what they answer, and what silencing does, by transformers alone."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from profiler.config import ModelSettings
from profiler.errors import CircuitError
from profiler.generality.coverage.at_positions import importance
from profiler.model.load import load_model
from profiler.model.steps.as_network import longest, network_of, network_of_direct_heads
from profiler.patching.setting import PatchSettings, draw, encoded, prepare
from profiler.prompts.pairs import encode, read
from profiler.truth.circuit import DISCOVERY_PROMPTS, SIZES, ModelSize
from profiler.truth.decide import decide_circuit
from profiler.truth.directory import HandBuilt, build
from profiler.truth.models import MODELS, hand_models

TINY = ModelSize("tiny", 1, 1, 1, 0)
WIDE = ModelSize("wide", 5, 3, 3, 5)
ROUNDING = 1e-8


class Answers:
    """A model directory read by transformers in float64; heads are silenced by zeros in what they mix."""

    def __init__(self, folder: Path) -> None:
        self.network = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float64).eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.silent: set[tuple[int, int]] = set()
        width = self.network.config.n_embd // self.network.config.n_head
        for number, block in enumerate(self.network.transformer.h):

            def hook(_module, inputs, number=number):
                mixed = inputs[0].clone()
                for layer, head in self.silent:
                    if layer == number:
                        mixed[..., head * width : (head + 1) * width] = 0.0
                return (mixed,)

            block.attn.c_proj.register_forward_pre_hook(hook)

    @torch.no_grad()
    def differences(self, texts, pairs, silent=()):
        """Logit difference of each text, with heads silenced by label."""
        self.silent = {tuple(map(int, label[1:].split("H"))) for label in silent}
        differences = []
        for text, pair in zip(texts, pairs, strict=True):
            (answer,), (wrong,) = (
                self.tokenizer.convert_tokens_to_ids(list(o)) for o in (pair.answers, pair.distractors)
            )
            logits = self.network(torch.tensor([[0, *self.tokenizer(text)["input_ids"]]])).logits[0, -1]
            differences.append((logits[answer] - logits[wrong]).item())
        return differences


def unnamed(built: HandBuilt, answers: Answers) -> list[str]:
    """Heads that no silencing names."""
    known = {head for prompts in built.prompts for silencing in prompts.silencings for head in silencing.heads}
    config = answers.network.config
    labels = [f"L{layer}H{head}" for layer in range(config.n_layer) for head in range(config.n_head)]
    return [label for label in labels if label not in known]


CASES = [(name, WIDE) for name in MODELS] + [("and", TINY)]


@pytest.mark.parametrize(("name", "size"), CASES, ids=[f"{name} {size.name}" for name, size in CASES])
def test_a_model_answers_what_its_truth_says_with_any_heads_silenced(name, size, tmp_path):
    built = build(hand_models([name])[0], tmp_path, size, seed=3, pairs=4)
    model = Answers(tmp_path)
    inert = unnamed(built, model)
    for prompts in built.prompts:
        pairs = prompts.pairs
        clean, corrupted = ([getattr(pair, side) for pair in pairs] for side in ("clean", "corrupted"))
        assert model.differences(corrupted, pairs) == pytest.approx(prompts.corrupted, abs=ROUNDING)
        for silencing in prompts.silencings:
            assert model.differences(clean, pairs, silencing.heads) == pytest.approx(silencing.clean, abs=ROUNDING), (
                silencing.heads
            )
        whole = prompts.silencings[0]
        assert whole.heads == ()
        assert model.differences(clean, pairs, inert) == pytest.approx(whole.clean, abs=ROUNDING)


@pytest.mark.parametrize("name", list(MODELS))
def test_members_are_the_heads_without_which_some_discovery_answer_changes(name, tmp_path):
    built = build(hand_models([name])[0], tmp_path, TINY, pairs=6)
    discovery = next(prompts for prompts in built.prompts if prompts.name == DISCOVERY_PROMPTS)
    clean = {frozenset(silencing.heads): silencing.clean for silencing in discovery.silencings}
    needed = set()
    for heads, answers in clean.items():
        needed |= {head for head in heads if len(heads) <= 2 and answers != clean[heads - {head}]}
    assert needed == set(built.truth.members)
    whole = [sum(clean[frozenset()]), sum(clean[frozenset(built.truth.members)])]
    assert whole[0] > sum(discovery.corrupted)
    assert whole[1] == pytest.approx(sum(discovery.corrupted))


@pytest.mark.parametrize(
    ("name", "silent", "share"),
    [
        ("and", ["left"], 0.0),
        ("or", ["first"], 1.0),
        ("or", ["first", "second"], 0.0),
        ("sum", ["second"], 0.5),
        ("serial-backup", ["reader"], 1.0),
        ("serial-backup", ["backup"], 1.0),
        ("serial-backup", ["reader", "backup"], 0.0),
        ("induction", ["previous"], 0.0),
        ("induction", ["induction"], 1 / 7),
        ("induction", ["negative"], 9 / 7),
        ("one-template", ["casual"], 1.0),
    ],
)
def test_silencing_leaves_the_share_of_the_answer_that_the_gate_says(name, silent, share):
    model = hand_models([name])[0]
    for seed in range(5):
        draw = model.prompts[DISCOVERY_PROMPTS](Random(seed))
        whole = model.answers(draw.clean, frozenset())[draw.answer]
        left = model.answers(draw.clean, frozenset(silent)).get(draw.answer, 0.0)
        assert left == pytest.approx(share * whole)


def test_a_seed_decides_words_heads_and_basis_and_nothing_else_does(tmp_path):
    model = hand_models(["induction"])[0]
    seeds = {"a": 1, "b": 1, "c": 2}
    first, again, other = (build(model, tmp_path / name, WIDE, seed, 3) for name, seed in seeds.items())
    names = sorted(path.name for path in first.folder.iterdir())
    assert names == sorted(path.name for path in other.folder.iterdir())
    same = [name for name in names if (first.folder / name).read_bytes() == (again.folder / name).read_bytes()]
    kept = [name for name in names if (first.folder / name).read_bytes() == (other.folder / name).read_bytes()]
    assert same == names
    assert set(kept) == {"config.json", "generation_config.json", "tokenizer_config.json"}
    assert json.loads((first.folder / "truth.json").read_text())["members"] == list(first.truth.members)


def test_sizes_have_as_many_heads_as_they_say(tmp_path):
    heads = [build(hand_models(["or"])[0], tmp_path / size.name, size, pairs=2).heads for size in SIZES[:2]]
    assert heads == [8, 56]


def test_a_model_is_read_in_float32_by_the_product_and_its_pairs_are_encoded(tmp_path):
    built = build(hand_models(["polysemantic"])[0], tmp_path, WIDE, pairs=4)
    model = load_model(ModelSettings(model=str(tmp_path)))
    net = network_of(model)
    for prompts in built.prompts:
        encoded = encode(read(built.pairs_file(prompts.name)), model.tokenizer, model.bos_id, longest(model))
        assert not encoded.dropped
        runs = prepare(prompts.name, net, encoded)
        assert runs.metric_clean == pytest.approx(prompts.silencings[0].clean, abs=1e-4)
        assert runs.metric_corrupted == pytest.approx(prompts.corrupted, abs=1e-4)


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(CircuitError, match="no model 'xor' with a known circuit: choose and, or"):
        hand_models(["xor"])


@pytest.mark.parametrize(("name", "roles"), [("or", ["at end attends to signal-s (100%)"] * 2), ("serial-backup", 1)])
def test_a_head_weighs_what_it_loses_or_restores_alone(name, roles, tmp_path):
    """Neither head of an OR loses anything alone, and each restores all; a backup does neither, so it has no role."""
    built = build(hand_models([name])[0], tmp_path, TINY, pairs=8)
    model = load_model(ModelSettings(model=str(tmp_path), dtype="float64"))
    settings = PatchSettings(str(built.pairs_file(DISCOVERY_PROMPTS)))
    circuit = decide_circuit(model, network_of_direct_heads(model), settings).circuit
    assert set(circuit.components) == set(built.truth.members)
    weighed = [member for member in circuit.members if member.role]
    assert [member.role for member in weighed] == (roles if name == "or" else ["at end attends to signal-s (100%)"])
    runs = prepare("discovery", network_of(model), encoded(model, draw(model, settings, "train", 0)))
    weights = importance(runs, [(label, "end") for label in built.truth.members])
    does = {label: weight == pytest.approx(runs.whole, abs=ROUNDING) for label, weight in weights.items()}
    assert does == {(label, "end"): name == "or" or label == weighed[0].component for label in built.truth.members}
