"""The model that ships: loads offline, runs the same through TransformerLens, and has what its card says."""

from pathlib import Path

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

from profiler import statistics
from profiler.bundled.scores import Score, attention, card, choices, language, load_scored_model
from profiler.prompts.tasks import words

BUNDLED = Path(language.__file__).parents[1]
LIMIT = 16_000_000


@pytest.fixture(scope="module")
def subject():
    return load_scored_model(str(BUNDLED))


@pytest.fixture(scope="module")
def rows() -> dict[str, Score]:
    return {row.measure: row for row in card.read_scores(BUNDLED)}


def row_that(rows: dict[str, Score], *parts: str) -> Score:
    """The only row whose measure holds all the parts."""
    (found,) = [row for measure, row in rows.items() if all(part in measure for part in parts)]
    return found


def agrees(stated: Score, measured: statistics.Estimate, slack: float = 0.0) -> bool:
    """Whether the stated interval and the measured one overlap, up to a slack for the smaller sample."""
    return stated.estimate.low - slack <= measured.high and measured.low <= stated.estimate.high + slack


def test_folder_is_complete_and_small():
    files = {path.name for path in BUNDLED.iterdir() if path.name != "__init__.py"}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= files
    assert {"tokenizer_config.json", "training.json", "card.json", "card.md"} <= files
    assert not [name for name in files if name.endswith(".py")]
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < LIMIT


def test_loads_plainly_as_a_model_with_heads_and_neurons():
    model = AutoModelForCausalLM.from_pretrained(BUNDLED)
    assert model.config.num_hidden_layers >= 4
    assert model.config.num_attention_heads >= 8
    assert model.config.intermediate_size == 4 * model.config.hidden_size
    assert next(model.parameters()).dtype == torch.float32
    assert model.config.bos_token_id == AutoTokenizer.from_pretrained(BUNDLED).bos_token_id == 0


def test_logits_are_the_same_through_the_bridge(subject):
    ids = torch.tensor([[0, *subject.encode("When Mary and John went to the store, John gave a drink to")]])
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(BUNDLED).eval()(ids).logits
        got = TransformerBridge.boot_transformers(str(BUNDLED), device="cpu")(ids, return_type="logits")
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_names_and_arguments_are_single_tokens(subject):
    everything = (words.NAMES_TRAIN, words.untrained(), words.ARGUMENTS_TRAIN)
    for word in [w for part in everything for w in part]:
        assert len(subject.encode(f" {word}")) == 1, word


def test_card_states_every_target_and_its_verdict(rows):
    targets = [row for row in rows.values() if row.target is not None]
    assert {row.behaviour for row in targets} == {
        "induction",
        "previous token",
        "indirect object",
        "docstring argument",
        "language",
    }
    text = (BUNDLED / "card.md").read_text()
    assert ("Every target is reached." in text) == all(row.reached for row in targets)


def test_induction_is_as_stated(subject, rows):
    head = attention.induction_head(subject, n=16, seed=11)
    stated = row_that(rows, "attention from the second copy")
    assert head.head == stated.note
    assert agrees(stated, head.estimate, slack=0.02)
    assert agrees(row_that(rows, "loss on the second copy"), attention.copy_ratio(subject, n=16, seed=12), slack=0.01)


@pytest.mark.parametrize("order", ["ABBA", "BABA"])
def test_indirect_object_is_as_stated(subject, rows, order):
    found = choices.choose(subject, choices.indirect_object_prompts(80, "held_out", order, seed=13))
    assert agrees(row_that(rows, "IO over S", order, "held-out"), statistics.proportion(found.margin > 0))
    assert agrees(row_that(rows, "logit difference", order), statistics.mean(found.difference))


def test_docstring_argument_is_as_stated(subject, rows):
    found = choices.choose(subject, choices.docstring_prompts(60, "held_out", seed=14))
    assert agrees(row_that(rows, "next :param", "held-out"), statistics.proportion(found.margin > 0))


def test_loss_on_held_out_code_is_as_stated(subject, rows):
    texts = language.held_out_texts(limit=12, characters=2_000)["code"]
    flat = language.fit_bigram([[0, 1, 2]], len(subject.tokenizer))
    found = language.losses(subject, flat, texts)
    stated = row_that(rows, "nats per byte, held-out code")
    assert agrees(stated, statistics.ratio(found.model, found.bytes), slack=0.05)
