"""How long an experiment will take, said before it begins. Cost: none."""

from profiler.patching import measure, values
from profiler.patching.setting import PatchSettings, Setting


def stages(settings: PatchSettings, given: bool) -> int:
    """How many stages will be reported."""
    return 16 + 4 * (not settings.is_file) + (not given)


def forecast(main: Setting, settings: PatchSettings, each: float) -> str:
    """About how long all of it takes, from the seconds `each` of the pairs' own two runs took.

    A patch costs about a third of a forward pass, a circuit two thirds (both compute the answer's offset alone at the
    end), a gradient three.
    """
    patches = sum(
        len(plan.targets)
        for plan in measure.plans(
            main, dict.fromkeys(("zero", "mean", "noise"), values.zero(main.clean)), settings.by_role
        )
    )
    circuits = (1 if settings.is_file else 2) * 3 * settings.draws + 400
    passes = 0.33 * (patches + 2 * settings.neurons) + 0.67 * circuits + 6 * (settings.steps + 1)
    return f"forecast: about {max(1, round(passes * each / 60))} min for {patches:,} patches and about {circuits:,} circuits"
