"""Behaviour scores against known answers: models whose behaviour is written by hand."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from profiler import statistics
from profiler.bundled.scores import attention, bigram, card, choices, language, table
from profiler.bundled.scores.scored_model import ScoredModel, as_scored_model, load_scored_model, padded
from profiler.bundled.training.curriculum import PLANS
from profiler.bundled.training.tokenizer import save_tokenizer, train_tokenizer
from profiler.bundled.training.train import new_model
from profiler.cli import models
from profiler.errors import ProfilerError
from profiler.prompts.tasks import Prompt
from profiler.text import stdlib

LAYERS, HEADS = 2, 3
SMALL = table.Size(sequences=6, prompts=12, documents=3, characters=400)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["def f(x):\n    return x\n", "When they met at the store, they said: good day."], 800)


class Scripted:
    """A model whose logits and attention are functions of the ids."""

    def __init__(self, tokenizer, logits=None, pattern=None):
        self.config = SimpleNamespace(vocab_size=len(tokenizer), max_position_embeddings=256)
        self._logits, self._pattern = logits or uniform_logits, pattern or uniform_pattern

    def eval(self):
        return self

    def __call__(self, input_ids, use_cache=False, output_attentions=False):
        logits = torch.stack([self._logits(row, self.config.vocab_size) for row in input_ids])
        pattern = torch.stack([self._pattern(row) for row in input_ids])
        layers = [pattern if layer == 1 else torch.stack([uniform_pattern(r) for r in input_ids]) for layer in (0, 1)]
        return SimpleNamespace(logits=logits, attentions=layers if output_attentions else None)


def uniform_logits(ids, vocabulary):
    return torch.zeros(len(ids), vocabulary)


def uniform_pattern(ids):
    rows = torch.tril(torch.ones(len(ids), len(ids)))
    return (rows / rows.sum(-1, keepdim=True)).expand(HEADS, -1, -1).clone()


def pattern_of_head_two(source):
    """Head 2 attends from each position wholly to `source(ids, position)`; the others uniformly."""

    def pattern(ids):
        heads = uniform_pattern(ids)
        heads[2] = 0
        for position in range(len(ids)):
            heads[2, position, source(ids.tolist(), position)] = 1
        return heads

    return pattern


def after_first_occurrence(ids, position):
    earlier = [i for i in range(1, position) if ids[i] == ids[position]]
    return earlier[-1] + 1 if earlier else 0


def copier(ids, vocabulary):
    """Certain of the token that followed the same token before; otherwise without any opinion."""
    logits = torch.zeros(len(ids), vocabulary)
    for position in range(len(ids)):
        source = after_first_occurrence(ids.tolist(), position)
        if source:
            logits[position, ids[source]] = 50.0
    return logits


def by_count(sign):
    """Prefers tokens by how often they stand in the window: `sign` -1 the rarer, +1 the more frequent."""

    def logits(ids, vocabulary):
        counts = torch.bincount(ids, minlength=vocabulary).float()
        row = torch.where(counts > 0, sign * counts, torch.full_like(counts, -50.0))
        return row.expand(len(ids), -1)

    return logits


def subject(tokenizer, **script) -> ScoredModel:
    return as_scored_model("scripted", Scripted(tokenizer, **script), tokenizer)


class TestAttention:
    def test_perfect_induction_scores_one(self, tokenizer):
        found = attention.induction_head(subject(tokenizer, pattern=pattern_of_head_two(after_first_occurrence)), 8, 20)
        assert found.head == "L1H2"
        assert found.estimate.value == found.estimate.low == found.estimate.high == pytest.approx(1)
        assert found.estimate.n == 4

    def test_uniform_attention_scores_one_over_the_keys(self, tokenizer):
        found = attention.induction_head(subject(tokenizer), 4, 20)
        expected = np.mean([1 / (position + 1) for position in range(21, 41)])
        assert found.estimate.value == pytest.approx(expected, rel=1e-5)

    def test_perfect_previous_token_scores_one(self, tokenizer):
        script = pattern_of_head_two(lambda _, position: max(0, position - 1))
        found = attention.previous_token_head(
            subject(tokenizer, pattern=script), [range(5, 25), range(9), range(3, 60)]
        )
        assert found.head == "L1H2"
        assert found.estimate.value == pytest.approx(1)

    def test_previous_token_leaves_out_the_first_position_and_padding(self):
        pattern = torch.full((1, 2, 1, 6, 6), 0.25)
        sums, counts = attention.previous_attention(pattern, torch.tensor([6, 4]))
        assert counts.tolist() == [4, 2]
        assert sums.flatten().tolist() == pytest.approx([1.0, 0.5])

    def test_copying_model_has_ratio_near_zero_and_uniform_model_one(self, tokenizer):
        assert attention.copy_ratio(subject(tokenizer, logits=copier), 4, 20).value == pytest.approx(0, abs=1e-6)
        assert attention.copy_ratio(subject(tokenizer), 4, 20).value == pytest.approx(1)

    def test_best_head_is_measured_on_the_other_half(self):
        sums = np.zeros((4, 1, 2))
        sums[0::2, 0, 1] = 0.9
        sums[1::2, 0, 0] = 0.7
        found = attention._best(sums, np.ones(4))
        assert found.head == "L0H1"
        assert found.estimate.value == 0


class TestChoices:
    @pytest.mark.parametrize(("sign", "accuracy"), [(-1, 1.0), (1, 0.0)])
    @pytest.mark.parametrize("order", ["ABBA", "BABA"])
    def test_indirect_object_is_the_name_that_stands_once(self, tokenizer, sign, accuracy, order):
        prompts = choices.indirect_object_prompts(40, "held_out", order)
        found = choices.choose(subject(tokenizer, logits=by_count(sign)), prompts)
        assert (found.margin > 0).mean() == accuracy
        assert found.difference == pytest.approx(-sign)
        assert found.skipped == 0

    def test_docstring_margin_is_over_the_best_distractor(self, tokenizer):
        prompts = choices.docstring_prompts(40, "held_out")
        found = choices.choose(subject(tokenizer, logits=by_count(-1)), prompts)
        several = np.array([len(p.distractors) - int(p.role("described")) > 0 for p in prompts])
        assert several.any()
        assert (found.margin[several] <= 0).all()
        assert (found.difference >= found.margin).all()

    def test_undecidable_prompts_are_counted_not_guessed(self, tokenizer):
        same = Prompt("ioi", "When they", " zqx", (" zqy",), "t", (), "train")
        fine = dataclasses.replace(same, answer=" Mary", distractors=(" John",))
        assert tokenizer(" zqx")["input_ids"][0] == tokenizer(" zqy")["input_ids"][0]
        found = choices.choose(subject(tokenizer), [same, fine])
        assert (len(found.margin), found.skipped) == (1, 1)

    def test_prompts_are_the_same_at_every_call_and_differ_between_splits(self):
        again = choices.indirect_object_prompts(5, "held_out", "ABBA")
        assert again == choices.indirect_object_prompts(5, "held_out", "ABBA")
        assert again != choices.indirect_object_prompts(5, "train", "ABBA")


class TestBigram:
    @pytest.fixture
    def fitted(self) -> bigram.Bigram:
        return bigram.fit_bigram([[0, 1, 2, 1, 2, 1, 3], [0, 1, 2, 4]], vocabulary=6)

    def test_probabilities_sum_to_one_after_any_token(self, fitted):
        for before in range(6):
            p = fitted.probabilities(np.full(6, before), np.arange(6))
            assert p.sum() == pytest.approx(1)
            assert (p > 0).all()

    def test_values_by_hand(self, fitted):
        """Pairs: 01 twice, 12 three times, 21 twice, 13 once, 24 once; so D = 2 / (2 + 2 * 2) = 1/3."""
        assert fitted.discount == pytest.approx(1 / 3)
        base = np.array([0, 2, 1, 1, 1, 0]) + 1.0
        base /= base.sum()
        after_one = (3 - 1 / 3) / 4 + (1 / 3) * 2 / 4 * base[2]
        unseen_pair = (1 / 3) * 2 / 4 * base[5]
        got = fitted.probabilities(np.array([1, 1, 5]), np.array([2, 5, 3]))
        assert got == pytest.approx([after_one, unseen_pair, base[3]])

    def test_no_pair_crosses_documents(self, fitted):
        assert 3 * 6 + 0 not in fitted.pairs

    def test_nats_is_the_sum_over_all_tokens_but_the_first(self, fitted):
        expected = -np.log(fitted.probabilities(np.array([0, 1]), np.array([1, 2]))).sum()
        assert fitted.nats([0, 1, 2]) == pytest.approx(expected)

    def test_nothing_to_fit_is_an_error(self):
        with pytest.raises(ValueError, match="at least one document"):
            bigram.fit_bigram([[0]], 5)


class TestLanguage:
    def test_uniform_model_loses_the_log_of_the_vocabulary_on_every_token(self, tokenizer):
        text = "def f(x):\n    return x + 1743\n" * 40 + "é"
        model = subject(tokenizer)
        fitted = bigram.fit_bigram([[0, *model.encode(text)]], len(tokenizer))
        found = language.losses(model, fitted, [text, "x"])
        assert found.tokens.tolist() == [len(tokenizer(text)["input_ids"]), 1]
        assert found.tokens[0] > 2 * model.context
        assert found.model == pytest.approx(found.tokens * math.log(len(tokenizer)), rel=1e-5)
        assert found.bytes.tolist() == [len(text.encode()), 1]
        assert found.bigram[0] == pytest.approx(fitted.nats([0, *model.encode(text)]))

    def test_held_out_texts_are_held_out(self):
        texts = language.held_out_texts(limit=4, characters=50)
        assert {d: len(t) for d, t in texts.items() if t} == {d: 4 for d in texts if texts[d]}
        train = {d["text"][:50] for d in stdlib.documents("train")}
        unlike = [t for part in texts.values() for t in part if t not in train]
        assert len(unlike) >= 6
        assert all(len(t) <= 50 for part in texts.values() for t in part)


class TestIntervals:
    def test_wilson_at_its_edges_and_by_hand(self):
        none = statistics.proportion(np.zeros(20, dtype=bool))
        assert (none.value, none.low) == (0, pytest.approx(0, abs=1e-12))
        z = 1.959963984540054
        assert none.high == pytest.approx(z**2 / (20 + z**2))

    def test_bootstrap_is_near_the_normal_interval(self):
        values = np.random.default_rng(0).normal(3, 2, 400)
        found = statistics.mean(values)
        half = 1.96 * values.std(ddof=1) / 20
        assert found.value == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)

    def test_ratio_weighs_units_by_their_size(self):
        above, below = np.array([1.0, 30.0]), np.array([1.0, 10.0])
        assert statistics.ratio(above, below).value == pytest.approx(31 / 11)
        assert statistics.reduction(above, 2 * below).value == pytest.approx(1 - 31 / 22)

    def test_proportional_units_leave_no_doubt(self):
        sizes = np.arange(1.0, 30.0)
        found = statistics.ratio(3 * sizes, sizes)
        assert found.low == pytest.approx(3)
        assert found.high == pytest.approx(3)

    def test_an_empty_sample_tells_nothing(self):
        for found in (statistics.proportion(np.array([], bool)), statistics.mean(np.array([]))):
            assert found.n == 0
            assert math.isnan(found.value)
        row = table.Score("b", "m", found, "prompt", target=0.5)
        assert row.reached is None
        kept = json.loads(json.dumps(card.as_record(row), allow_nan=False))
        assert math.isnan(card.from_record(kept).estimate.high)


class TestTable:
    @pytest.fixture(scope="class")
    @staticmethod
    def folder(tokenizer, tmp_path_factory):
        """A random model directory."""
        folder = tmp_path_factory.mktemp("model")
        torch.manual_seed(0)
        new_model(dataclasses.replace(PLANS["tiny"].shape, context=256), len(tokenizer)).save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
        return folder

    @pytest.fixture(scope="class")
    @staticmethod
    def rows(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(language, "fit_on_train_split", few_documents)
            return table.score(load_scored_model(str(folder)), SMALL)

    def test_every_behaviour_has_rows_with_intervals(self, rows):
        assert {r.behaviour for r in rows if r.target is not None} == {
            "induction",
            "previous token",
            "indirect object",
            "docstring argument",
            "language",
        }
        for row in rows:
            one, rounding = row.estimate, 1e-9  # means of equal values, weighted in two ways
            assert one.low - rounding <= one.value <= one.high + rounding, row.measure
            assert row.estimate.n > 0

    def test_a_random_model_has_none_of_the_behaviours(self, rows, folder):
        by_behaviour = {r.measure: r for r in rows}
        assert not any(r.reached for r in rows if r.behaviour in ("induction", "previous token", "language"))
        per_token = next(r for m, r in by_behaviour.items() if m.startswith("nats per token, held-out code"))
        assert per_token.estimate.value == pytest.approx(
            math.log(len(load_scored_model(str(folder)).tokenizer)), rel=0.05
        )

    def test_card_keeps_every_row(self, rows, folder):
        card.write_card(folder, rows)
        assert card.read_scores(folder) == rows
        text = (folder / "card.md").read_text()
        assert all(row.measure in text for row in rows)
        assert text.count("misses its target by") == sum(row.reached is False for row in rows)

    def test_command_prints_the_same_scores_as_json(self, rows, folder, monkeypatch):
        monkeypatch.setattr("profiler.bundled.scores.score", lambda *_, **__: rows)
        result = CliRunner().invoke(models.app, ["score", str(folder), "--format", "json"])
        assert result.exit_code == 0
        assert [card.from_record(r) for r in json.loads(result.stdout)] == rows

    def test_command_writes_a_table(self, rows, folder, monkeypatch, tmp_path):
        monkeypatch.setattr("profiler.bundled.scores.score", lambda *_, **__: rows)
        result = CliRunner().invoke(models.app, ["score", str(folder), "--out", str(tmp_path / "scores.txt")])
        assert result.exit_code == 0
        assert (tmp_path / "scores.txt").read_text().count("docstring argument") == 2


def few_documents(subject):
    return bigram.fit_bigram([[subject.start, *subject.encode("def f(x):\n    return x\n" * 9)]], 800)


def test_reached_follows_the_direction():
    row = table.Score("b", "m", statistics.Estimate(0.2, 0.1, 0.3, 5), "prompt", target=0.15)
    assert row.reached is True
    assert dataclasses.replace(row, better="lower").reached is False
    assert dataclasses.replace(row, target=None).reached is None


def test_a_folder_that_is_no_model_says_what_was_expected(tmp_path):
    with pytest.raises(ProfilerError, match=r"config\.json"):
        load_scored_model(str(tmp_path))


def test_padding_goes_to_the_right():
    ids, lengths = padded([[5, 6, 7], [8]], filler=0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert lengths.tolist() == [3, 1]
