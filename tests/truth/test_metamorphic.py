"""The same model in another form is the same experiment: members, roles, p values and the word stay what they were.

Each change is made to a whole model directory, and the whole experiment is run on it again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from profiler import statistics
from profiler.actions import patch_settings
from profiler.circuits import choose, circuit_tables
from profiler.circuits.positions import position_role
from profiler.config import ModelSettings
from profiler.generality.distributions.subject import CheckSettings
from profiler.model.load import load_model
from profiler.model.steps.as_network import network_of_direct_heads
from profiler.patching import setting
from profiler.truth import decide
from profiler.truth.circuit import DISCOVERY_PROMPTS, ModelSize
from profiler.truth.directory import HandBuilt, build
from profiler.truth.models import hand_models
from profiler.truth.sketch import HandModel, SketchHead

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # scipy warns of effects equal up to rounding
BASE = ModelSize("base", 4, 2, 4, 8)
MODELS = ("or", "serial-backup", "induction", "half-elsewhere", "over-recovers")
COSTLY = {"or", "half-elsewhere", "over-recovers"}
"""Monthly tests, for their cost."""
PAIRS, DRAWS = 40, 20


@dataclass(frozen=True)
class Outcome:
    """What an experiment says, with members by their names in the model's sketch.

    Attributes:
        members: names of the members; `other` where a head has none.
        roles: what each member's role names, by name.
        p: family-wise p of the effect of each named head, the smaller of both directions.
        score: share of the effect of each named head.
        word: of the verdict.
    """

    members: tuple[str, ...]
    roles: dict[str, object]
    p: dict[str, float]
    score: dict[str, float]
    word: str


def outcome(built: HandBuilt, names: dict[str, str], pairs: int = PAIRS, draws: int = DRAWS, seed: int = 0) -> Outcome:
    """The whole experiment on a model directory; `names` are those of labels."""
    model = load_model(ModelSettings(model=str(built.folder), dtype="float64"))
    task = patch_settings(str(built.pairs_file(DISCOVERY_PROMPTS)), seed=seed)
    net = network_of_direct_heads(model)
    found = decide.decide_circuit(model, net, task)
    wider = [f"{p.name}={built.pairs_file(p.name)}" for p in built.prompts if p.name != DISCOVERY_PROMPTS]
    asked = CheckSettings(pairs=max(20, pairs // 2), draws=draws, seed=seed, distributions=tuple(wider))
    said = decide.decide_word(model, net, found.circuit, task, asked, built.folder / "none.duckdb")
    main = setting.prepare("discovery", net, setting.encoded(model, setting.draw(model, task, "train", 0)))
    nodes = circuit_tables.evaluator(main, mlps=False).nodes
    effects = circuit_tables.effects_of(main, (), nodes)
    p = choose.tests(effects).adjusted.reshape(2, -1).min(0)
    scores = dict(found.scores)
    roles = {names.get(m.component, "other"): position_role(m.role) for m in found.circuit.members}
    return Outcome(
        tuple(sorted(names.get(label, "other") for label in found.circuit.components)),
        roles,
        {names[node]: float(p[i]) for i, node in enumerate(nodes) if node in names},
        {names[node]: scores[node] for node in nodes if node in names},
        said.word,
    )


def made(name: str, folder: Path, size: ModelSize = BASE, pairs: int = PAIRS, seed: int = 0) -> tuple[HandBuilt, dict]:
    """A model directory, and the name of each label of a member."""
    return _built(hand_models([name])[0], folder, size, pairs, seed)


def _built(model: HandModel, folder: Path, size: ModelSize, pairs: int, seed: int) -> tuple[HandBuilt, dict]:
    built = build(model, folder, size, seed, pairs)
    return built, dict(zip(built.truth.members, model.members, strict=True))


# --- changes of a directory: the names of its labels afterwards ---


def permuted_heads(folder: Path, names: dict[str, str]) -> dict[str, str]:
    """Heads of every layer in another order."""
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    heads, width = config["n_head"], config["n_embd"]
    order = torch.tensor([2, 0, 3, 1, *range(4, heads)])
    for layer in range(config["n_layer"]):
        block = f"transformer.h.{layer}.attn"
        read, write = tensors[f"{block}.c_attn.weight"], tensors[f"{block}.c_proj.weight"]
        read = read.reshape(width, 3, heads, -1)[:, :, order].reshape(width, -1)
        tensors[f"{block}.c_attn.weight"] = read.contiguous()
        tensors[f"{block}.c_proj.weight"] = write.reshape(heads, -1, width)[order].reshape(width, width).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    new = {int(old): place for place, old in enumerate(order.tolist())}
    return {f"{label.split('H')[0]}H{new[int(label.split('H')[1])]}": name for label, name in names.items()}


def renamed_tokens(folder: Path, names: dict[str, str]) -> dict[str, str]:
    """Every word in the other case, in tokenizer and pairs."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word if word.startswith("<") else word.swapcase(): i for word, i in words.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for file in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        asked = ("clean", "corrupted", "answer", "answers", "distractor", "distractors")
        changed = [row | {key: _swapped(row[key]) for key in asked if key in row} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in changed))
    return names


def _swapped(value: str | list[str]) -> str | list[str]:
    return value.swapcase() if isinstance(value, str) else [one.swapcase() for one in value]


def other_ids(folder: Path, names: dict[str, str]) -> dict[str, str]:
    """Every word with another id, but the token in front."""
    tokenizer, tensors = json.loads((folder / "tokenizer.json").read_text()), load_file(folder / "model.safetensors")
    words = tokenizer["model"]["vocab"]
    order = [0, *range(len(words) - 1, 0, -1)]
    tokenizer["model"]["vocab"] = {word: order.index(i) for word, i in words.items()}
    for name in ("transformer.wte.weight", "lm_head.weight"):
        tensors[name] = tensors[name][order].contiguous()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return names


SIZES = {
    "inert heads": replace(BASE, heads=9),
    "inert layers appended": replace(BASE, layers=5),
    "more neurons": replace(BASE, neurons=40),
    "a wider residual stream": replace(BASE, spare=40),
}
CHANGES: dict[str, Callable[[Path, dict[str, str]], dict[str, str]]] = {
    "permuted heads": permuted_heads,
    "renamed tokens": renamed_tokens,
    "other ids of tokens": other_ids,
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.monthly if name in COSTLY else ()) for name in MODELS],
)
def base(request, tmp_path_factory) -> tuple[str, Outcome]:
    found = outcome(*made(request.param, tmp_path_factory.mktemp("base")))
    assert set(found.members) == set(hand_models([request.param])[0].members)
    return request.param, found


def assert_same(found: Outcome, before: Outcome) -> None:
    """The same pairs give the same effects, so only random flips and rounding may differ."""
    assert (found.members, found.roles, found.word) == (before.members, before.roles, before.word)
    assert found.score == pytest.approx(before.score, abs=1e-6)
    for name, p in before.p.items():
        error = 3 * (2 * p * (1 - p) / statistics.DRAWS) ** 0.5 + 1 / statistics.DRAWS
        assert found.p[name] == pytest.approx(p, abs=error), name


@pytest.mark.parametrize("size", list(SIZES))
def test_what_does_nothing_changes_nothing(base, size, tmp_path) -> None:
    name, before = base
    assert_same(outcome(*made(name, tmp_path, SIZES[size])), before)


@pytest.mark.parametrize("change", list(CHANGES))
def test_another_order_or_name_of_things_changes_nothing(base, change, tmp_path) -> None:
    name, before = base
    built, names = made(name, tmp_path)
    assert_same(outcome(built, CHANGES[change](tmp_path, names)), before)


@pytest.mark.parametrize(
    "more", [{"pairs": 80}, {"draws": 60}, {"seed": 7}], ids=["more pairs", "more draws", "other draws and references"]
)
def test_more_data_and_other_draws_change_no_member_role_or_word(base, more, tmp_path) -> None:
    """Another seed divides the pairs otherwise into those of discovery, of the test and of means, and draws other
    random circuits."""
    name, before = base
    found = outcome(*made(name, tmp_path, pairs=more.get("pairs", PAIRS)), **more)
    assert (found.members, found.roles, found.word) == (before.members, before.roles, before.word)
    assert all((found.p[name] < 0.05) == (p < 0.05) for name, p in before.p.items())


def test_a_head_in_two_halves_is_two_members_and_the_same_word(base, tmp_path) -> None:
    name, before = base
    model = hand_models([name])[0]
    doubled, split = _halved(model, model.members[0])
    found = outcome(*_built(doubled, tmp_path, BASE, PAIRS, 0))
    assert found.members == tuple(sorted((*before.members, split)))
    assert found.word == before.word
    assert found.roles[split] == before.roles[model.members[0]] == found.roles[model.members[0]]


def _halved(model: HandModel, name: str) -> tuple[HandModel, str]:
    """The model with a head as two heads that attend alike and write half each; and the name of the second."""
    second = f"{name} again"

    def halves(head: SketchHead) -> tuple[SketchHead, ...]:
        copy = tuple((value, {key: size / 2 for key, size in written.items()}) for value, written in head.copy)
        return (replace(head, copy=copy), replace(head, name=second, copy=copy)) if head.name == name else (head,)

    layers = tuple(
        replace(layer, heads=tuple(half for head in layer.heads for half in halves(head)))
        for layer in model.sketch.layers
    )
    return replace(model, sketch=replace(model.sketch, layers=layers), members=(*model.members, second)), second
