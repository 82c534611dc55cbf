"""How long an experiment will take, said before it begins. Cost: none."""

from profiler.patching import sweep_tables, values
from profiler.patching.factorial import PROMPTS
from profiler.patching.setting import SCHEME_PAIRS, PairRuns, PatchSettings, parts_of_file
from profiler.patching.sites import every
from profiler.prompts.pairs import find_task
from profiler.prompts.pairs.crossed import cells


def stages(settings: PatchSettings, *, given: bool) -> int:
    """How many stages will be reported."""
    parts = parts_of_file(settings) if settings.is_file else None
    test, held_out = (True, True) if parts is None else (bool(parts.test), bool(parts.held_out))
    return 16 + 3 * test + held_out + (not given)


def forecast(main: PairRuns, settings: PatchSettings, each: float) -> str:
    """About how long all of it takes, from the seconds `each` of one run of all pairs.

    A patch costs about a third of a forward pass, a gradient three; a circuit the part of one that lies behind the
    first token that differs.
    """
    patches = sum(
        len(plan.targets)
        for plan in sweep_tables.plans(
            main, dict.fromkeys(("zero", "mean", "noise"), values.zero(main.clean)), by_role=settings.by_role
        )
    )
    tested = not settings.is_file or bool(parts_of_file(settings).test)
    circuits = (1 + tested) * 3 * settings.draws + 400
    passes = 0.33 * (patches + 2 * settings.neurons + _of_schemes(main, settings))
    passes += _left(main) * circuits + 6 * (settings.steps + 1)
    return (
        f"forecast: about {max(1, round(passes * each / 60))} min for {patches:,} patches and about {circuits:,}"
        " circuits"
    )


def _of_schemes(main: PairRuns, settings: PatchSettings) -> float:
    """Patches under other schemes and under all of them crossed, as patches of all pairs."""
    if settings.is_file:
        return 0.0
    task, targets = find_task(settings.task), len(every(main.net, "head")) + len(every(main.net, "mlp_out"))
    pairs = 2 * (len(task.schemes) - 1) * SCHEME_PAIRS + (len(cells(task.factors)) - 1) * PROMPTS
    return targets * pairs / len(main.batch)


def _left(main: PairRuns) -> float:
    """The part of all tokens that lies behind the first that differs: what circuits have to run."""
    if main.outside is not None:
        return 1.0
    left = sum(len(pair.clean) - pair.first_difference for pair in main.batch.pairs)
    return 1.2 * left / main.batch.clean.numel()
