"""Training: the tokenizer's promises, windows without anything held out, a loop that restarts where it stopped."""

import dataclasses
import json
import random
from itertools import islice

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from profiler.bundled.scores import card
from profiler.bundled.training.curriculum import PLANS
from profiler.bundled.training.export import export
from profiler.bundled.training.mixture import ANSWER_WEIGHT, SOURCES, Mixture, MixtureShares
from profiler.bundled.training.tokenizer import END_OF_TEXT, save_tokenizer, train_tokenizer
from profiler.bundled.training.train import Trainer, new_model, train
from profiler.errors import ProfilerError
from profiler.prompts.tasks import words
from profiler.text import stdlib

TINY = PLANS["tiny"]


@pytest.fixture(scope="module")
def documents() -> list[stdlib.StdlibDocument]:
    """A few short documents of each domain, all from the train split."""
    chosen = []
    for domain in ("code", "tests", "prose"):
        found = (d for d in stdlib.documents("train") if d["domain"] == domain or domain == "tests")
        chosen += [{**d, "domain": domain, "text": d["text"][:4000]} for d in islice(found, 5)]
    return chosen


@pytest.fixture(scope="module")
def tokenizer(documents):
    return train_tokenizer((d["text"] for d in documents), TINY.shape.vocabulary)


@pytest.fixture(scope="module")
def mixture(tokenizer, documents) -> Mixture:
    return Mixture(tokenizer, documents, seed=0)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


class TestTokenizer:
    def test_special_token_is_zero_and_not_added(self, tokenizer):
        assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 0
        assert tokenizer.convert_ids_to_tokens(0) == END_OF_TEXT
        assert 0 not in tokenizer("x = 1")["input_ids"]

    @pytest.mark.parametrize(
        "text", ["def f(x):\n    return x[1743]\n", "When Mary met Walter, é 💡", "\t  a\r\n", "  2026"]
    )
    def test_decoding_gives_the_text_back(self, tokenizer, text):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text

    def test_task_words_are_single_tokens(self, tokenizer):
        lists = (words.NAMES_TRAIN, words.untrained(), words.ARGUMENTS_TRAIN)
        for word in [w for part in (*lists, words.PLACES, words.OBJECTS, words.MONTHS) for w in part]:
            assert len(tokenizer(f" {word}")["input_ids"]) == 1, word

    def test_digits_come_in_pairs_without_a_space(self, tokenizer):
        pieces = [tokenizer.decode([i]) for i in tokenizer("in 1743, 5")["input_ids"]]
        assert pieces[-6:] == [" ", "17", "43", ",", " ", "5"]

    def test_loads_offline_with_the_same_ids(self, tokenizer, documents, tmp_path):
        save_tokenizer(tokenizer, tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        for d in documents:
            assert again(d["text"])["input_ids"] == tokenizer(d["text"])["input_ids"]

    def test_size_is_never_more_than_asked(self, tokenizer):
        assert TINY.shape.vocabulary - 20 <= len(tokenizer) <= TINY.shape.vocabulary
        assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1

    def test_too_small_a_vocabulary_says_why(self):
        with pytest.raises(ValueError, match="no room for bytes"):
            train_tokenizer(["x"], 300)


class TestMixture:
    def test_windows_depend_on_the_step_alone(self, mixture, tokenizer, documents):
        first = mixture.batch(5, 8, 32, MixtureShares(repeats=0.3))
        again = Mixture(tokenizer, documents, seed=0).batch(5, 8, 32, MixtureShares(repeats=0.3))
        other = mixture.batch(6, 8, 32, MixtureShares(repeats=0.3))
        assert np.array_equal(first.ids, again.ids)
        assert first.sources == again.sources
        assert not np.array_equal(first.ids, other.ids)

    def test_every_window_begins_with_the_special_token(self, mixture, tokenizer):
        for step in range(30):
            ids = mixture.batch(step, 8, 24, MixtureShares(repeats=0.3)).ids
            assert ids.shape == (8, 24)
            assert (ids[:, 0] == 0).all()
            assert ids.max() < len(tokenizer)

    def test_shares_are_kept(self, mixture):
        shares = MixtureShares(repeats=0.2, mentions=0.05)
        assert sum(shares.weights()) == pytest.approx(1)
        sources = mixture.batch(0, 4000, 8, shares).sources
        for source, weight in zip(SOURCES, shares.weights(), strict=True):
            assert sources.count(source) / 4000 == pytest.approx(weight, abs=5 * (weight / 4000) ** 0.5)

    def test_a_held_out_document_is_refused(self, tokenizer):
        kept = next(stdlib.documents("held_out"))
        with pytest.raises(ValueError, match="is held out"):
            Mixture(tokenizer, [kept], seed=0)

    def test_no_held_out_name_stands_in_a_story(self, mixture, tokenizer):
        only = MixtureShares(repeats=0.0, ioi=0.5, docstring=0.5, sequences=0.0)
        barred = {tokenizer(f" {w}")["input_ids"][0] for w in words.untrained()}
        barred -= {tokenizer(f" {w}")["input_ids"][0] for w in (*words.OBJECTS, *words.PLACES)}
        plain = {"line", "first", "output", "task", "field", "group", "key"}
        barred -= {tokenizer(f" {w}")["input_ids"][0] for w in plain}
        for step in range(40):
            ids = mixture.batch(step, 8, 64, only, loose=0.4).ids
            assert not barred & set(ids.flatten().tolist())

    def test_first_copies_have_no_weight(self, mixture):
        batch = mixture.batch(3, 40, 64, MixtureShares(repeats=1.0, ioi=0.0, docstring=0.0, sequences=0.0))
        for ids, weights_of in zip(batch.ids, batch.weights, strict=True):
            unknown = int((weights_of == 0).sum())
            assert (weights_of[:unknown] == 0).all()
            assert (weights_of[unknown:] == 1).all()
            period = unknown - 1
            assert np.array_equal(ids[1 + period :], ids[1 : len(ids) - period])

    def test_answers_weigh_more_and_arbitrary_words_nothing(self, mixture, tokenizer):
        only = MixtureShares(repeats=0.0, ioi=1.0, docstring=0.0, sequences=0.0)
        strict, loose = mixture.batch(0, 20, 64, only), mixture.batch(0, 20, 64, only, loose=0.4)
        assert set(np.unique(strict.weights)) == {1, ANSWER_WEIGHT}
        assert set(np.unique(loose.weights)) == {0, 1, ANSWER_WEIGHT}
        before = strict.ids[:, :-1][strict.weights == ANSWER_WEIGHT]
        words_before = {tokenizer.decode([i]) for i in before}
        assert {" to", " for"} & words_before

    def test_names_become_other_tokens_one_to_one(self, mixture, tokenizer):
        renamed = mixture._renamed(random.Random(0))
        assert set(renamed) == {tokenizer(f" {name}")["input_ids"][0] for name in words.NAMES_TRAIN}
        assert len(set(renamed.values())) == len(renamed)
        assert not {tokenizer(f" {name}")["input_ids"][0] for name in words.untrained()} & set(renamed.values())

    def test_pieces_are_tokenized_as_the_whole_text_is(self, mixture, tokenizer):
        for seed in range(40):
            for make in mixture._makers.values():
                for loose in (0.0, 0.4):
                    pieces = make(random.Random(seed), loose)
                    apart = [i for piece in pieces for i in tokenizer(piece.text)["input_ids"]]
                    assert apart == tokenizer("".join(p.text for p in pieces))["input_ids"]


@pytest.mark.slow
class TestTrainer:
    def test_stopping_and_continuing_changes_nothing(self, mixture, tokenizer, tmp_path):
        whole, first = (Trainer(TINY, mixture, len(tokenizer)) for _ in range(2))
        for _ in range(12):
            whole.advance()
        for _ in range(5):
            first.advance()
        first.save(tmp_path / "checkpoint.pt")
        second = Trainer(dataclasses.replace(TINY, seed=9), mixture, len(tokenizer))
        second.load(tmp_path / "checkpoint.pt")
        for _ in range(7):
            second.advance()
        assert torch.equal(weights(whole), weights(second))
        assert (second.step, second.tokens) == (whole.step, whole.tokens)
        assert not torch.equal(weights(whole), weights(first))

    def test_loss_falls(self, mixture, tokenizer):
        trainer = Trainer(dataclasses.replace(TINY, steps=40), mixture, len(tokenizer))
        losses = [trainer.advance()["loss"] for _ in range(40)]
        assert losses[0] == pytest.approx(np.log(len(tokenizer)), rel=0.05)
        assert np.mean(losses[-8:]) < losses[0] - 0.3

    def test_low_precision_keeps_full_weights(self, mixture, tokenizer):
        trainer = Trainer(dataclasses.replace(TINY, precision="bfloat16"), mixture, len(tokenizer))
        trainer.advance()
        for master, working in zip(trainer.model.parameters(), trainer._working.parameters(), strict=True):
            assert master.dtype == torch.float32
            assert torch.equal(master.to(torch.bfloat16), working)
        assert not torch.equal(weights(trainer), weights(trainer).to(torch.bfloat16).float())

    def test_learning_rate_rises_stays_and_falls(self):
        plan = dataclasses.replace(TINY, steps=100, warmup=10, decay_from=0.5, floor=0.1)
        rates = [plan.learning_rate(step) for step in range(100)]
        assert rates[0] == pytest.approx(plan.phases[0].rate / 10)
        assert rates[5] > rates[4]
        assert rates[40] == rates[45] == plan.phases[1].rate
        assert rates[75] == pytest.approx(plan.phases[1].rate / 2)
        assert rates[-1] == pytest.approx(plan.phases[1].rate * plan.floor)

    def test_decay_is_on_matrices_only(self, mixture, tokenizer):
        groups = Trainer(TINY, mixture, len(tokenizer))._optimizer.param_groups
        assert {(p.ndim > 1, g["weight_decay"]) for g in groups for p in g["params"]} == {(True, 0.05), (False, 0.0)}

    def test_first_copies_are_counted_only_where_the_phase_says_so(self, mixture, tokenizer):
        phase = dataclasses.replace(
            TINY.phases[0], shares=MixtureShares(repeats=1.0, ioi=0.0, docstring=0.0, sequences=0.0)
        )
        losses = {}
        for counted in (True, False):
            plan = dataclasses.replace(TINY, phases=(dataclasses.replace(phase, first_copies=counted),))
            record = Trainer(plan, mixture, len(tokenizer)).advance()
            losses[counted] = record
        assert losses[False]["loss"] == pytest.approx(losses[False]["by_source"]["repeats"], abs=1e-3)
        assert losses[True]["by_source"] == losses[False]["by_source"]
        assert losses[True]["loss"] != losses[False]["loss"]

    def test_shape_is_as_planned(self):
        config = new_model(TINY.shape, 300).config
        assert config.use_parallel_residual is False
        assert config.rope_parameters["partial_rotary_factor"] == 1.0
        assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_dropout) == (2, 2, 0.0)


@pytest.mark.slow
class TestRun:
    @pytest.fixture(scope="class")
    @staticmethod
    def run(documents, tmp_path_factory):
        out = tmp_path_factory.mktemp("run")
        train(out, TINY, minutes=0.0, documents=documents)
        stopped = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
        trainer = train(out, dataclasses.replace(TINY, steps=60), minutes=5.0, documents=documents)
        return out, stopped, trainer

    def test_continues_until_the_steps_are_done(self, run):
        out, stopped, trainer = run
        assert stopped == 0
        assert trainer.step == torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 60
        assert not list(out.glob("*.partial"))
        (record,) = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert record["step"] == 50
        assert record["tokens"] == 6 * 4 * 16 + 44 * 4 * 32
        assert set(record["by_source"]) <= set(SOURCES)

    def test_export_gives_the_trained_model(self, run, tmp_path):
        out, _, trainer = run
        (out / "remarks.txt").write_text("Made by a test.\n")
        export(out, tmp_path / "model", TINY)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
        ids = torch.arange(1, 30)[None]
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, trainer.model.eval()(ids).logits)
        facts = json.loads((tmp_path / "model" / "training.json").read_text())
        assert (facts["steps"], facts["tokens"]) == (60, trainer.tokens)
        assert facts["parameters"] == weights(trainer).numel()
        assert facts["documents"]["train/code"]["documents"] > 100
        assert facts["curve"][-1]["step"] == 50
        assert facts["remarks"] == ["Made by a test."]
        text = card.markdown([], facts, size=4 * facts["parameters"])
        assert f"{trainer.tokens:,} tokens" in text
        assert "Made by a test." in text
        assert text.count(f"| {facts['curve'][-1]['step']:,} | {facts['curve'][-1]['tokens']:,} |") == 1
        assert "Trained on a CPU" in text

    def test_export_without_a_run_says_what_to_do(self, tmp_path):
        with pytest.raises(ProfilerError, match="Train first"):
            export(tmp_path, tmp_path / "model", TINY)
