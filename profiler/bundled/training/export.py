"""From a training run to a model directory that plain `transformers` loads offline.

Why: what ships holds the weights, the tokenizer and how they came to be, and nothing of the optimizer.
Cost: seconds. Files: `config.json`, `generation_config.json`, `model.safetensors` (float32), `tokenizer.json`,
`tokenizer_config.json`, and `training.json` (data, plan, tokens seen, time, the course of the loss).
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from profiler.bundled.training.curriculum import TrainingPlan
from profiler.bundled.training.tokenizer import save_tokenizer
from profiler.bundled.training.train import new_model
from profiler.errors import ModelError
from profiler.text import stdlib

CURVE_POINTS = 40


def export(run: Path, folder: Path, plan: TrainingPlan) -> None:
    """Write a model directory from a run's latest checkpoint.

    Args:
        run: folder that `train` wrote.
        folder: model directory; made if absent, files of the same names are replaced.
        plan: the run's plan.

    Raises:
        ModelError: where the run has no checkpoint yet.
    """
    checkpoint = run / "checkpoint.pt"
    if not checkpoint.exists():
        raise ModelError(f"{run} has no checkpoint.pt; expected a folder written by training. Train first.")
    state = torch.load(checkpoint, weights_only=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(run)
    model = new_model(plan.shape, len(tokenizer))
    model.load_state_dict(state["model"])
    model.save_pretrained(folder)
    tokenizer.model_max_length = plan.shape.context
    save_tokenizer(tokenizer, folder)
    facts = _facts(run, plan, state, sum(p.numel() for p in model.parameters()), len(tokenizer))
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def _facts(run: Path, plan: TrainingPlan, state: dict[str, Any], parameters: int, vocabulary: int) -> dict[str, Any]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        "parameters": parameters,
        "vocabulary": vocabulary,
        "plan": dataclasses.asdict(plan),
        "steps": state["step"],
        "tokens": state["tokens"],
        "seconds": round(state["seconds"]),
        "core_seconds": round(_core_seconds(log)),
        "most_cores": max(record["threads"] for record in log),
        "hardware": "CPU",
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__.split("+")[0],
        "documents": _documents(),
        "remarks": _remarks(run),
        "curve": _curve(log),
    }


def _remarks(run: Path) -> list[str]:
    """What whoever ran it wrote into `remarks.txt` about the run, such as a change of data on the way."""
    path = run / "remarks.txt"
    return path.read_text().splitlines() if path.exists() else []


def _core_seconds(log: list[dict[str, Any]]) -> float:
    ends = [record["seconds"] for record in log]
    spans = [end - begin for begin, end in zip([0.0, *ends[:-1]], ends, strict=True)]
    return float(sum(span * record["threads"] for span, record in zip(spans, log, strict=True)))


def _documents() -> dict[str, dict[str, int]]:
    """Documents and characters of each split and domain, such as `train/code`."""
    counted: dict[str, dict[str, int]] = {}
    for document in stdlib.documents():
        split = "held_out" if stdlib.held_out(document["id"]) else "train"
        entry = counted.setdefault(f"{split}/{document['domain']}", {"documents": 0, "characters": 0})
        entry["documents"] += 1
        entry["characters"] += len(document["text"])
    return counted


def _curve(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """About `CURVE_POINTS` points of the log: the mean loss of each source since the point before."""
    size = max(1, len(log) // CURVE_POINTS)
    points = []
    for begin in range(0, len(log), size):
        part = log[begin : begin + size]
        losses: dict[str, list[float]] = {}
        for record in part:
            for source, loss in record["by_source"].items():
                losses.setdefault(source, []).append(loss)
        means = {source: round(sum(values) / len(values), 3) for source, values in sorted(losses.items())}
        last = {key: part[-1][key] for key in ("step", "tokens", "rate")}
        points.append({**last, "nats_per_token": means})
    return points
