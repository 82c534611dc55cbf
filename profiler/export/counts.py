"""What an export holds and what it leaves out, counted while it is written."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from profiler.export.profiles import Profile, ProfileExample


@dataclass
class ExportCounts:
    """Sizes of an export.

    Attributes:
        components, examples: written.
        values: activations of tokens written.
        unknown: of these, activations that the run does not hold.
        left_out: what was not written, by what it is and why.
    """

    components: int = 0
    examples: int = 0
    values: int = 0
    unknown: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, written: Iterable[ProfileExample]) -> None:
        """Count a component and those of its examples that were written."""
        self.components += 1
        for example in written:
            self.examples += 1
            self.values += len(example.activations)
            self.unknown += sum(value is None for value in example.activations)

    def leave_out(self, reason: str, n: int = 1) -> None:
        """Count what was not written."""
        if n:
            self.left_out[reason] += n

    def sentences(self, stands_as: str) -> tuple[str, ...]:
        """What there is to say of them.

        Args:
            stands_as: how an activation that the run does not hold is written.
        """
        said = [f"{self.components:,} components with {self.examples:,} examples"]
        if self.unknown:
            said.append(
                f"{self.unknown:,} of {self.values:,} token activations are not in the run and stand as {stands_as};"
                " --recompute runs the model for them"
            )
        return (*said, *(f"left out: {n:,} {reason}" for reason, n in sorted(self.left_out.items())))


OTHER_EXTREMES = "examples of smallest activation and of extreme DLA, for which the format has no field"
NO_EXAMPLE = "components without an example, which the format refuses"


def shown_examples(
    profile: Profile, counts: ExportCounts
) -> tuple[tuple[ProfileExample, ...], tuple[ProfileExample, ...]]:
    """The largest activations and the samples of a profile; its other extremes are counted as left out."""
    top = tuple(example for example in profile.examples if example.group == "top")
    samples = tuple(example for example in profile.examples if example.group == "sample")
    counts.leave_out(OTHER_EXTREMES, len(profile.examples) - len(top) - len(samples))
    return top, samples
