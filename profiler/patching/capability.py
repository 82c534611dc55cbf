"""The pair linter's second half: does the model do the task, and what else differs between the two prompts?

Why: a circuit of a behaviour that the model does not show is a circuit of nothing; and a corruption that changes what the
model knows about everything isolates nothing (the essay: patching holds the many shared circuits fixed). Cost: none beyond
the two runs.
"""

import torch

from profiler.pairs.checks import Check
from profiler.patching.batch import at
from profiler.patching.metrics import METRICS, panel
from profiler.patching.setting import Setting

MOVED = 0.1


def capability(setting: Setting) -> list[Check]:
    """Checks of the model on the pairs."""
    before, after = (panel(run.logits, setting.batch.options, setting.clean.logits).mean(0).tolist()
                     for run in (setting.clean, setting.corrupted))  # fmt: skip
    clean, corrupted = (dict(zip(METRICS, values, strict=True)) for values in (before, after))
    right = float((setting.metric_clean > 0).mean())
    kept = float((setting.metric_corrupted > 0).mean())
    return [
        Check("answer above distractors, clean", f"{right:.0%} of pairs", right, "ok" if right >= 0.75 else "warning"),
        Check("answer is first choice, clean", f"{clean['top1']:.0%} of pairs", clean["top1"]),
        Check("answer above distractors, corrupted", f"{kept:.0%} of pairs", kept, "ok" if kept <= 0.75 else "note"),
        Check("logit difference, clean to corrupted", f"{clean['logit_diff']:.2f} to {corrupted['logit_diff']:.2f} logits",
              clean["logit_diff"] - corrupted["logit_diff"], "ok" if setting.whole.mean() > 0 else "warning"),
        Check("entropy, clean to corrupted", f"{clean['entropy']:.2f} to {corrupted['entropy']:.2f} nats",
              corrupted["entropy"] - clean["entropy"], "ok" if abs(corrupted["entropy"] - clean["entropy"]) < 0.5 else "note"),
        Check("KL of the answer's distribution", f"{corrupted['kl_from_reference']:.2f} nats", corrupted["kl_from_reference"]),
        isolation(setting),
    ]  # fmt: skip


def isolation(setting: Setting) -> Check:
    """Share of heads whose output at the end moved by more than a tenth: other behaviour that the corruption touched."""
    moved = []
    for live, other in zip(setting.clean["head"], setting.corrupted["head"], strict=True):
        a, b = (at(value, setting.batch.ends)[:, 0] for value in (live, other))
        moved.append(((a - b).norm(dim=-1) / a.norm(dim=-1).clamp_min(1e-12)).mean(0) > MOVED)
    share = torch.cat(moved).double().mean().item()
    return Check("heads that changed at the end", f"{share:.0%} of heads", share, "note" if share > 0.75 else "ok")
