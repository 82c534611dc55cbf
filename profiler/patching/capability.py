"""The pair linter's second half: does the model do the task, and what else differs between the two prompts?

Why: a circuit of a behaviour that the model does not show is a circuit of nothing; and a corruption that changes what
the model knows about everything isolates nothing (the essay: patching holds the many shared circuits fixed). So the
linter also says which shared circuits moved with the one that is looked for: heads whose output changed though what
they write to the answer did not, well-known attention (first token, token before, copies, what followed a copy) that
went elsewhere, and other tokens that came up. Cost: two forward passes beyond the two runs.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler.model.steps.network import at
from profiler.patching.batch import Tokens
from profiler.patching.metrics import METRICS, logit_diff, panel
from profiler.patching.redundancy import self_repair
from profiler.patching.setting import PairRuns
from profiler.prompts.pairs.lint import Check

MOVED = 0.1
DIRECT = 0.02
ATTENDS = 0.3
NAMED = 6
TOP_TOKENS = 10
MOST_PAIRS = 0.75
"""The clean prompts should be answered on at least this share of pairs, the corrupted ones on at most this."""
ENTROPY_MOVED = 0.5
"""Nats by which the two prompts may differ in entropy."""
MOST_HEADS, MANY_BYSTANDERS, FEW_TOKENS = 0.75, 0.5, 0.5
"""Shares of heads that moved, of heads that moved beside the answer, and of likely tokens in common, that are noted."""


def capability(setting: PairRuns) -> list[Check]:
    """Checks of the model on the pairs."""
    before, after = (
        panel(run.logits, setting.batch.options, setting.clean.logits).mean(0).tolist()
        for run in (setting.clean, setting.corrupted)
    )
    clean, corrupted = (dict(zip(METRICS, values, strict=True)) for values in (before, after))
    right, still_right = (
        float((logit_diff(run.logits, setting.batch.options) > 0).double().mean())
        for run in (setting.clean, setting.corrupted)
    )
    return [
        Check(
            "answer above distractors, clean",
            f"{right:.0%} of pairs",
            right,
            "ok" if right >= MOST_PAIRS else "warning",
        ),
        Check("answer is first choice, clean", f"{clean['top1']:.0%} of pairs", clean["top1"]),
        Check(
            "answer above distractors, corrupted",
            f"{still_right:.0%} of pairs",
            still_right,
            "ok" if still_right <= MOST_PAIRS else "note",
        ),
        Check(
            "logit difference, clean to corrupted",
            f"{clean['logit_diff']:.2f} to {corrupted['logit_diff']:.2f} logits",
            clean["logit_diff"] - corrupted["logit_diff"],
            "ok" if clean["logit_diff"] > corrupted["logit_diff"] else "warning",
        ),
        Check(
            "entropy, clean to corrupted",
            f"{clean['entropy']:.2f} to {corrupted['entropy']:.2f} nats",
            corrupted["entropy"] - clean["entropy"],
            "ok" if abs(corrupted["entropy"] - clean["entropy"]) < ENTROPY_MOVED else "note",
        ),
        Check(
            "KL of the answer's distribution",
            f"{corrupted['kl_from_reference']:.2f} nats",
            corrupted["kl_from_reference"],
        ),
        isolation(setting),
        *([bystanders(setting)] if setting.net.heads_direct else []),
        attention_moved(setting),
        other_tokens(setting),
    ]


def moved(setting: PairRuns) -> list[Float[Tensor, " head"]]:
    """How far each layer's heads' outputs at the end moved: |corrupted - clean| / |clean|, mean over pairs."""
    by_layer = []
    for live, other in zip(setting.clean["head"], setting.corrupted["head"], strict=True):
        a, b = (at(value, setting.batch.ends)[:, 0] for value in (live, other))
        by_layer.append(((a - b).norm(dim=-1) / a.norm(dim=-1).clamp_min(1e-12)).mean(0))
    return by_layer


def isolation(setting: PairRuns) -> Check:
    """Share of heads whose output at the end moved by more than a tenth."""
    share = (torch.cat(moved(setting)) > MOVED).double().mean().item()
    return Check(
        "heads that changed at the end", f"{share:.0%} of heads", share, "note" if share > MOST_HEADS else "ok"
    )


def bystanders(setting: PairRuns) -> Check:
    """Heads that moved by more than a tenth, but whose direct write moved the logit difference by less than 2 %.

    What they carry is not the answer, at least not directly: another circuit that the corruption changes too, or an
    earlier part of this one; patching the other heads leaves it as it is.
    """
    net, batch = setting.net, setting.batch
    runs = [self_repair.run_writes(net, tokens, batch) for tokens in (batch.clean, batch.corrupted)]
    change = (runs[1].dla - runs[0].dla).mean(0).abs() / max(abs(float(setting.whole.mean())), 1e-12)
    direct = dict(zip(self_repair.names(net), change.tolist(), strict=True))
    sizes = {f"L{i}H{h}": size for i, row in enumerate(moved(setting)) for h, size in enumerate(row.tolist())}
    beside = {name: size for name, size in sizes.items() if size > MOVED and direct[name] < DIRECT}
    share = len(beside) / len(sizes)
    return Check(
        "heads that moved beside the answer",
        _listed(beside, len(beside)),
        share,
        "note" if share > MANY_BYSTANDERS else "ok",
    )


def _listed(sizes: dict[str, float], n: int) -> str:
    """The largest by name, and how many there are."""
    first = sorted(sizes, key=lambda name: (-sizes[name], name))[:NAMED]
    shown = ", ".join(f"{name} {sizes[name]:.0%}" for name in first)
    return f"{n}: {shown}{', ...' if n > NAMED else ''}" if n else "none"


def attention_patterns(tokens: Tokens, ends: Tensor) -> dict[str, Bool[Tensor, "prompt key"]]:
    """Keys of well-known attention from the end: first token, token before, copies, what followed a copy."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    last = ends[:, None]
    copies = (tokens == tokens.gather(1, last)) & (positions < last)
    return {
        "first token": positions.expand_as(tokens) == 0,
        "token before": positions == last - 1,
        "copy": copies,
        "induction": torch.nn.functional.pad(copies[:, :-1], (1, 0)) & (positions < last),
    }


def attention_moved(setting: PairRuns) -> Check:
    """Well-known attention of the end that is at least 0.3 in one run and moved by more than 0.1 in the other."""
    batch, changes = setting.batch, {}
    kinds = [attention_patterns(tokens, batch.ends) for tokens in (batch.clean, batch.corrupted)]
    for layer in range(setting.net.n_layers):
        rows = [
            at(run["pattern"][layer].transpose(1, 2), batch.ends)[:, 0] for run in (setting.clean, setting.corrupted)
        ]
        for kind in kinds[0]:
            masses = [(row * of[kind][:, None]).sum(-1).mean(0).tolist() for row, of in zip(rows, kinds, strict=True)]
            for head, (before, after) in enumerate(zip(*masses, strict=True)):
                if max(before, after) >= ATTENDS and abs(after - before) > MOVED:
                    changes[f"{kind} L{layer}H{head} {before:.0%} to {after:.0%}"] = abs(after - before)
    first = sorted(changes, key=lambda name: (-changes[name], name))
    words = "; ".join(first[:NAMED]) + ("; ..." if len(first) > NAMED else "")
    return Check("well-known attention that moved", words or "none", float(len(changes)), "note" if changes else "ok")


def other_tokens(setting: PairRuns) -> Check:
    """Overlap of the ten likeliest tokens of both runs, answers and distractors left out."""
    options, shares = setting.batch.options, []
    for row, logits in enumerate(zip(setting.clean.logits, setting.corrupted.logits, strict=True)):
        asked = torch.cat([options.answers[row], options.distractors[row]])
        tops = [
            set(x.index_fill(0, asked, -torch.inf).topk(min(TOP_TOKENS, len(x) - len(asked.unique()))).indices.tolist())
            for x in logits
        ]
        shares.append(len(tops[0] & tops[1]) / max(1, len(tops[0])))
    share = sum(shares) / len(shares)
    return Check(
        "other likely tokens kept", f"{share:.0%} of the ten likeliest", share, "note" if share < FEW_TOKENS else "ok"
    )
