"""The models written by hand are exact: what they answer, and what silencing does, by transformers alone."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from profiler.truth.circuit import ModelSize
from profiler.truth.directory import HandBuilt, build
from profiler.truth.models import MODELS, hand_models

TINY = ModelSize("tiny", 1, 1, 1, 0)
WIDE = ModelSize("wide", 5, 3, 3, 5)
ROUNDING = 1e-6


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
        found = []
        for text, pair in zip(texts, pairs, strict=True):
            (answer,), (wrong,) = (
                self.tokenizer.convert_tokens_to_ids(list(o)) for o in (pair.answers, pair.distractors)
            )
            logits = self.network(torch.tensor([[0, *self.tokenizer(text)["input_ids"]]])).logits[0, -1]
            found.append((logits[answer] - logits[wrong]).item())
        return found


def others(built: HandBuilt, answers: Answers) -> list[str]:
    """Heads that no silencing names."""
    known = {head for prompts in built.prompts for one in prompts.silencings for head in one.heads}
    config = answers.network.config
    labels = [f"L{layer}H{head}" for layer in range(config.n_layer) for head in range(config.n_head)]
    return [label for label in labels if label not in known]


@pytest.mark.parametrize("size", [TINY, WIDE], ids=lambda size: size.name)
@pytest.mark.parametrize("name", list(MODELS))
def test_a_model_answers_what_its_truth_says_with_any_heads_silenced(name, size, tmp_path):
    built = build(hand_models([name])[0], tmp_path, size, seed=3, pairs=4)
    model = Answers(tmp_path)
    inert = others(built, model)
    for prompts in built.prompts:
        pairs = prompts.pairs
        clean, corrupted = ([getattr(pair, side) for pair in pairs] for side in ("clean", "corrupted"))
        assert model.differences(corrupted, pairs) == pytest.approx(prompts.corrupted, abs=ROUNDING)
        for one in prompts.silencings:
            assert model.differences(clean, pairs, one.heads) == pytest.approx(one.clean, abs=ROUNDING), one.heads
        whole = prompts.silencings[0]
        assert whole.heads == ()
        assert model.differences(clean, pairs, inert) == pytest.approx(whole.clean, abs=ROUNDING)
