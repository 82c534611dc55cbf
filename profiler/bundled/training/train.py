"""The training loop of the bundled model: restartable, seeded, logged.

    python -m profiler.bundled.training.train --out DIR --minutes 30 --threads 1

Why: the model that ships must be made by a command in the project. The loop stops when its minutes are over and
continues from the checkpoint at the next call; the result does not depend on where it was interrupted, because
windows and learning rate are functions of the step.

Cost: in bfloat16 on one core of a recent server CPU some 8,000 tokens a second; memory below 2 GB. Files in DIR:
`checkpoint.pt` (replaced whole, never half-written), `log.jsonl`, and the tokenizer.
"""

import argparse
import copy
import dataclasses
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from profiler.bundled.training.curriculum import PLANS, ModelShape, TrainingPlan
from profiler.bundled.training.mixture import Mixture, TrainingBatch
from profiler.bundled.training.tokenizer import save_tokenizer, train_tokenizer
from profiler.text import stdlib

LOG_EVERY = 50


class Trainer:
    """A run in progress: weights, optimizer, position. `advance` makes one step."""

    def __init__(self, plan: TrainingPlan, mixture: Mixture, vocabulary: int) -> None:
        """Seeded initial weights.

        Args:
            plan: decides everything.
            mixture: gives the windows.
            vocabulary: number of ids of the tokenizer, which may be fewer than the plan asked for.
        """
        torch.manual_seed(plan.seed)
        self.plan, self.mixture = plan, mixture
        self.model = new_model(plan.shape, vocabulary)
        low = plan.precision == "bfloat16"
        self._working = _rounded(self.model) if low else self.model
        self._optimizer = _optimizer(self.model, plan)
        self.step, self.tokens, self.seconds = 0, 0, 0.0

    def advance(self) -> dict[str, Any]:
        """One optimizer step. Returns step, loss (nats per token), the mean loss of each source, rate and tokens."""
        began = time.monotonic()
        phase, rate = self.plan.phase(self.step), self.plan.learning_rate(self.step)
        batch = self.mixture.batch(self.step, phase.windows, phase.context, phase.shares, phase.loose)
        losses = _losses(self._working, torch.from_numpy(batch.ids))
        weights = torch.from_numpy(_weights(batch, first_copies=phase.first_copies))
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        self._update(rate)
        self.step, self.tokens = self.step + 1, self.tokens + batch.ids.size
        self.seconds += time.monotonic() - began
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 1),
            "threads": torch.get_num_threads(),
            "rate": rate,
            "loss": loss.item(),
            "by_source": _by_source(losses.detach(), batch),
        }

    def _update(self, rate: float) -> None:
        pairs = list(zip(self.model.parameters(), self._working.parameters(), strict=True))
        for master, working in pairs:
            if working is not master and working.grad is not None:
                master.grad, working.grad = working.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._refresh()

    @torch.no_grad()
    def _refresh(self) -> None:
        """Round the float32 weights into the working copy."""
        if self._working is not self.model:
            for master, working in zip(self.model.parameters(), self._working.parameters(), strict=True):
                working.copy_(master)

    def save(self, path: Path) -> None:
        """Write the checkpoint beside `path`, then move it there in one step."""
        state: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}
        state |= {"step": self.step, "tokens": self.tokens, "seconds": self.seconds, "random": torch.get_rng_state()}
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same plan's shape."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        torch.set_rng_state(state["random"])
        self._refresh()


def new_model(shape: ModelShape, vocabulary: int) -> GPTNeoXForCausalLM:
    """A GPT-NeoX model of this shape with random weights, special token 0, and no dropout."""
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0},
        use_parallel_residual=False,
        tie_word_embeddings=True,
        hidden_act="gelu",
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    model: GPTNeoXForCausalLM = GPTNeoXForCausalLM._from_config(config, attn_implementation="eager")
    return model


def _rounded(model: GPTNeoXForCausalLM) -> GPTNeoXForCausalLM:
    """A copy of the model in bfloat16."""
    rounded: Any = copy.deepcopy(model)
    return cast(GPTNeoXForCausalLM, rounded.to(torch.bfloat16))


def train(
    out: Path, plan: TrainingPlan, minutes: float, documents: Iterable[stdlib.StdlibDocument] | None = None
) -> Trainer:
    """Start or continue the run in `out` until the plan's steps are done or the minutes are over.

    Args:
        out: folder of checkpoint, log and tokenizer; made if absent.
        plan: the same at every call, except that `steps` may be changed to lengthen or shorten the run.
        minutes: wall time of this call.
        documents: training text; by default the train split of the bundled corpus.
    """
    out.mkdir(parents=True, exist_ok=True)
    texts = list(documents if documents is not None else stdlib.documents("train"))
    tokenizer = _tokenizer(out, plan, texts)
    trainer = Trainer(plan, Mixture(tokenizer, texts, plan.seed), len(tokenizer))
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    end = time.monotonic() + 60 * minutes
    while trainer.step < plan.steps and time.monotonic() < end:
        record = trainer.advance()
        if trainer.step % LOG_EVERY == 0:
            _log(out, record)
        if trainer.step % plan.checkpoint_every == 0:
            trainer.save(checkpoint)
    trainer.save(checkpoint)
    return trainer


def _tokenizer(out: Path, plan: TrainingPlan, texts: list[stdlib.StdlibDocument]) -> PreTrainedTokenizerFast:
    if not (out / "tokenizer.json").exists():
        save_tokenizer(train_tokenizer((d["text"] for d in texts), plan.shape.vocabulary), out)
    return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(out))


def _optimizer(model: GPTNeoXForCausalLM, plan: TrainingPlan) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.phases[0].rate, betas=plan.betas, fused=True)


def _losses(model: GPTNeoXForCausalLM, ids: Int64[Tensor, "windows context"]) -> Float[Tensor, "windows context-1"]:
    """Cross-entropy of each next token, in nats, in float32."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    flat = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return flat.view(len(ids), -1)


def _weights(batch: TrainingBatch, *, first_copies: bool) -> Float32[np.ndarray, "windows predicted"]:
    """The batch's weights; where first copies count, every token of a window of random segments counts alike."""
    repeated = np.array(batch.sources) == "repeats"
    return np.where(repeated[:, None] & first_copies, np.float32(1), batch.weights)


def _by_source(losses: Float[Tensor, "windows predicted"], batch: TrainingBatch) -> dict[str, float]:
    """Mean loss of each source over tokens that can be predicted."""
    labels, each = np.array(batch.sources), losses.numpy()
    by_source = {}
    for source in sorted(set(batch.sources)):
        rows = labels == source
        by_source[source] = round(float(each[rows][batch.weights[rows] > 0].mean()), 3)
    return by_source


def _log(out: Path, record: dict[str, Any]) -> None:
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the bundled model, or continue training it.")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and tokenizer")
    parser.add_argument("--minutes", type=float, default=60.0, help="wall time of this call")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--plan", choices=sorted(PLANS), default="bundled")
    parser.add_argument("--steps", type=int, help="optimizer steps in all, instead of the plan's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plan = PLANS[options.plan]
    if options.steps:
        plan = dataclasses.replace(plan, steps=options.steps)
    trainer = train(options.out, plan, options.minutes)
    print(f"{trainer.step} of {plan.steps} steps, {trainer.tokens} tokens, {trainer.seconds:.0f} s in all")


if __name__ == "__main__":
    main()
