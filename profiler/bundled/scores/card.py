"""The model card: how a model was trained and which behaviours it was measured to have.

Why: a circuit in a model without the behaviour is no circuit. Every number is measured or read from the run's own
record; nothing is typed in. `card.json` holds the numbers, `card.md` the same for readers.
Cost: that of the score table.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from profiler.bundled.scores.table import Score
from profiler.statistics import Estimate


def as_record(row: Score) -> dict[str, Any]:
    """A row as JSON values; its verdict under `reached`, and null for a number that could not be estimated."""
    record = dataclasses.asdict(row)
    record["estimate"] = {k: None if math.isnan(v) else v for k, v in record["estimate"].items()}
    return {**record, "reached": row.reached}


def from_record(record: dict[str, Any]) -> Score:
    """The row that `as_record` wrote."""
    fields = {key: value for key, value in record.items() if key != "reached"}
    numbers: dict[str, Any] = {k: math.nan if v is None else v for k, v in fields["estimate"].items()}
    return Score(**{**fields, "estimate": Estimate(**numbers)})


def write_card(folder: Path, rows: Sequence[Score]) -> None:
    """Write `card.json` and `card.md` into a model directory, with `training.json` where there is one."""
    facts = folder / "training.json"
    training = json.loads(facts.read_text()) if facts.exists() else None
    size = _weight(folder)
    content = {"scores": [as_record(row) for row in rows], "bytes": size}
    (folder / "card.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "card.md").write_text(markdown(rows, training, size))


def read_scores(folder: Path) -> list[Score]:
    """The rows of a model directory's `card.json`."""
    return [from_record(record) for record in json.loads((folder / "card.json").read_text())["scores"]]


def markdown(rows: Sequence[Score], training: dict[str, Any] | None, size: int) -> str:
    """The card's text.

    Args:
        rows: of the score table.
        training: the content of `training.json`, or None for a model that was trained elsewhere.
        size: bytes of the weights.
    """
    parts = ["# Model card", ""]
    if training:
        parts += [_what(training, size), "", _how(training), "", *_phases(training), "", *_data(training), ""]
    parts += ["## Scores", "", _reading(), "", *_table(rows), "", *_misses(rows), ""]
    if training:
        parts += ["## Course of the training loss", "", _CURVE, "", *_curve(training), ""]
    return "\n".join(parts)


_CURVE = (
    "Mean nats per token of each source over the steps since the row before, in windows of the length and mixture of "
    "that part of the curriculum. First copies of random tokens cannot be predicted, so `repeats` never reaches zero."
)


def _weight(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _what(training: dict[str, Any], size: int) -> str:
    shape = training["plan"]["shape"]
    return (
        f"GPT-NeoX with {shape['layers']} layers, {shape['heads']} heads per layer, width {shape['width']}, MLP "
        f"{4 * shape['width']} (GELU), sequential residual stream, rotary positions, tied embeddings, context "
        f"{shape['context']}, vocabulary {training['vocabulary']:,}: {training['parameters']:,} parameters, "
        f"{size / 1e6:.2f} MB in float32. Put `<|endoftext|>` (id 0) in front of every window: it was there in "
        "training, and the tokenizer does not add it."
    )


def _how(training: dict[str, Any]) -> str:
    plan = training["plan"]
    return (
        f"Trained on a CPU, {_cores(training['most_cores'])} at most, in {training['seconds'] / 60:.0f} minutes "
        f"({training['core_seconds'] / 60:.0f} core minutes): {training['steps']:,} steps, {training['tokens']:,} "
        f"tokens, AdamW, forward and backward pass in {plan['precision']}, weights in float32, seed {plan['seed']}, "
        f"torch {training['torch']}. Command: `profiler models train`. Phases, with the shares of windows:"
    )


def _phases(training: dict[str, Any]) -> Iterable[str]:
    plan = training["plan"]
    yield (
        "| until step | window | windows | repeats | indirect object | docstring | sequences | mentions | rate | first"
        " copies | loose |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for phase in plan["phases"]:
        shares = phase["shares"]
        given = [f"{shares[task]:.0%}" for task in ("repeats", "ioi", "docstring", "sequences", "mentions")]
        row = [f"{min(phase['until'], plan['steps']):,}", phase["context"], phase["windows"], *given, phase["rate"]]
        row += ["counted" if phase["first_copies"] else "not counted", f"{phase['loose']:.0%}"]
        yield "| " + " | ".join(map(str, row)) + " |"
    yield ""
    yield (
        "Window: tokens in each of the step's windows. First copies: whether the loss counts the first copy of random"
        " segments, which nothing can predict. Loose: up to which share words of task texts are replaced by arbitrary"
        f" ones. What the shares leave is the library's text. The rate rises over the first {plan['warmup']} steps and"
        f" falls in a straight line over the last {1 - plan['decay_from']:.0%} of all steps."
    )
    for remark in training["remarks"]:
        yield ""
        yield remark


def _cores(n: int) -> str:
    return "one core" if n == 1 else f"{n} cores"


def _data(training: dict[str, Any]) -> Iterable[str]:
    yield (
        f"Data: source, tests and documentation of the standard library of Python {training['python']}, and task text"
        " that the project writes itself (indirect objects, docstrings, sequences, mentions of people, repeated random"
        " tokens). About one document in ten is held out by a hash of its id; names, argument names and wordings of"
        " the tasks have a held-out part that occurs in no text of these tasks in the training. The tokens of held-out"
        " names do occur in sentences that mention people once each (`profiler/prompts/tasks/mentions.py`: what makes"
        " them known as names, and nothing to copy), in repeated random tokens and, now and then, in the library's own"
        " text."
    )
    yield ""
    yield "| documents | number | characters |"
    yield "|---|---|---|"
    for name, entry in sorted(training["documents"].items()):
        yield f"| {name.replace('_', ' ').replace('/', ', ')} | {entry['documents']:,} | {entry['characters']:,} |"


def _reading() -> str:
    return (
        "Measured by `profiler models score` on random tokens, held-out words, wordings and documents. Intervals are at"
        " 95 %: Wilson for accuracies, bootstrap over sequences, prompts or documents otherwise; n counts those. The"
        " best head is chosen on one half of the data and measured on the other. The bigram model (interpolated"
        " Kneser-Ney) is fitted on the train split in the same tokens. Left out, where a row says so: prompts whose"
        " answer begins with the same token as a distractor, or that are longer than the window."
    )


def _table(rows: Sequence[Score]) -> Iterable[str]:
    yield "| behaviour | measure | value | 95 % interval | n | target | reached |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        yield "| " + " | ".join(cells(row)) + " |"


def cells(row: Score) -> list[str]:
    """A row of the table as text: behaviour, measure, value, interval, n, target, reached."""
    estimate = row.estimate
    sign = {"higher": "≥", "lower": "≤"}[row.better]
    target = "" if row.target is None else f"{sign} {row.target:g}"
    reached = {None: "", True: "yes", False: "no"}[row.reached]
    value = f"{estimate.value:.3f}" + (f" ({row.note})" if row.note else "")
    interval = f"{estimate.low:.3f} to {estimate.high:.3f}"
    return [row.behaviour, row.measure, value, interval, f"{estimate.n} {row.unit}s", target, reached]


def _misses(rows: Sequence[Score]) -> Iterable[str]:
    missed = [(row, row.target) for row in rows if row.reached is False and row.target is not None]
    if not missed:
        yield "Every target is reached."
    for row, target in missed:
        yield f"- {row.behaviour}, {row.measure}: misses its target by {abs(row.estimate.value - target):.3f}."


def _curve(training: dict[str, Any]) -> Iterable[str]:
    points = training["curve"]
    sources = sorted({source for point in points for source in point["nats_per_token"]})
    yield "| step | tokens | rate | " + " | ".join(sources) + " |"
    yield "|---" * (len(sources) + 3) + "|"
    for point in points:
        losses = [f"{point['nats_per_token'][s]:.2f}" if s in point["nats_per_token"] else "" for s in sources]
        yield f"| {point['step']:,} | {point['tokens']:,} | {point['rate']:.2g} | " + " | ".join(losses) + " |"
