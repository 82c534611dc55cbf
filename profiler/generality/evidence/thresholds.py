"""Every number that decides a verdict or what a finding says: one dataclass, stored with each check. No torch.

Why: a word such as `generalises` means nothing without the margins behind it. A check carries one instance, the run
file keeps it beside the check (table check_thresholds), and the check's page prints it. Levels of intervals (95 %) and
sizes of samples are not here: they say how well a number is known, not what follows from it. Cost: none, plain data.
"""

from dataclasses import dataclass, field, fields


@dataclass(frozen=True)
class ThresholdValue:
    """One threshold as a row of the run file: its name, its value and what it means."""

    name: str
    value: float
    meaning: str


def _means(text: str) -> dict[str, str]:
    """Metadata of a threshold: its meaning, which the run file and the page repeat."""
    return {"meaning": text}


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of verdicts and findings. `rows` gives each with its meaning.

    Defensible choices in measuring one circuit on one task move its faithfulness by about a fifth of the effect (Miller
    et al. 2024), so a smaller `margin` could not be told from them. `over` is as far above 1 as circuits are accepted
    on their discovery prompts (profiler.circuits.choose).
    """

    # --- the verdict and the ledger ---
    alpha: float = field(default=0.05, metadata=_means("level of every test"))
    margin: float = field(default=0.2, metadata=_means("largest difference in faithfulness that still counts as equal"))
    over: float = field(default=0.1, metadata=_means("a faithfulness above 1 by more than this is over-recovery"))
    faithful: float = field(
        default=0.5, metadata=_means("least faithfulness on the discovery prompts that leaves something to generalise")
    )
    necessity: float = field(
        default=0.5, metadata=_means("least drop when the circuit is removed that a circuit must show to generalise")
    )
    role_share: float = field(
        default=0.5, metadata=_means("a role must hold on more than this share of the component's importance")
    )
    no_better: float = field(
        default=0.1,
        metadata=_means(
            "an edit that succeeds at most this much more often than its control, or a role that fills at most this"
            " share of the room above its null, shows nothing"
        ),
    )
    explained: float = field(
        default=0.5, metadata=_means("a replacement must explain more than this share of the effect")
    )
    refuted_share: float = field(
        default=0.5, metadata=_means("from this share of refuted roles on, the circuit does something else")
    )
    # --- when there is a number at all ---
    fewest: int = field(
        default=20, metadata=_means("fewest prompts, documents or positions that a number is given for")
    )
    fewest_documents: int = field(default=5, metadata=_means("fewest documents or prompts that a circuit is run on"))
    least_kl: float = field(
        default=0.001,
        metadata=_means("least divergence of the empty circuit, nats a position, of which a share is given"),
    )
    repairable: float = field(
        default=0.05, metadata=_means("least direct effect of a member, as a share of the model's, to ask for repair")
    )
    # --- edits and swaps ---
    edit_shift: float = field(
        default=0.1, metadata=_means("least shift of a successful edit: share of attention or value, or logits")
    )
    broken_share: float = field(
        default=0.5, metadata=_means("a swap breaks a role where what the component does falls to this share")
    )
    acts_attention: float = field(
        default=0.5, metadata=_means("attention from which on a head acts as claimed, before a swap")
    )
    acts_logit: float = field(
        default=0.1, metadata=_means("logits from which on a head acts as claimed, before a swap")
    )
    acts_activation: float = field(
        default=0.1, metadata=_means("share of the largest activation from which on a neuron acts, before a swap")
    )
    # --- counter-examples ---
    matters_share: float = field(
        default=0.05, metadata=_means("a head matters on this share of positions, those of its largest |DLA|")
    )
    # --- replacement ---
    least_ablation_kl: float = field(
        default=1e-5, metadata=_means("least KL of mean ablation, nats a position, of which a share is given")
    )
    least_ablation_loss: float = field(default=1e-5, metadata=_means("the same for the net loss"))
    least_ablation_change: float = field(default=1e-4, metadata=_means("the same for the |change of loss|"))
    clear_of_zero: float = field(
        default=3.0, metadata=_means("standard errors by which the cost of mean ablation must lie above 0")
    )
    made_up: float = field(
        default=0.5,
        metadata=_means("ablation that costs less than this share of its cost on the direct path is made up"),
    )
    stand_ins: float = field(
        default=2.0, metadata=_means("ablation that costs more than this many times as much without similar heads")
    )
    least_alike: float = field(
        default=0.05, metadata=_means("least overlap of attention of a head that may stand in for another")
    )

    def rows(self) -> tuple[ThresholdValue, ...]:
        """Each threshold with its value and meaning, in order."""
        return tuple(
            ThresholdValue(field.name, float(getattr(self, field.name)), field.metadata["meaning"])
            for field in fields(self)
        )


DEFAULT = Thresholds()
"""The thresholds of a check for which nobody chose others."""
