"""Tables that describe an experiment: its pairs, checks, settings, and the circuit as a record. Cost: none."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import polars as pl

from profiler.circuits import circuit_tables, yaml_files
from profiler.circuits.circuit import Circuit
from profiler.circuits.nodes import node_of
from profiler.model.load import Model
from profiler.patching import experiment_store
from profiler.patching.capability import capability
from profiler.patching.effects import neutral_level
from profiler.patching.metrics import Metric
from profiler.patching.setting import PairRuns, PatchSettings
from profiler.prompts.pairs import TokenPair, find_task, lint
from profiler.prompts.pairs.lint import FREQUENCY
from profiler.prompts.pairs.pair import Prompt
from profiler.text.token_classes import token_texts

LIBRARIES = ("torch", "transformers", "transformer-lens", "numpy", "scipy")


def scheme_of(settings: PatchSettings) -> str:
    """The corruption scheme; `own` for a user's file."""
    return settings.scheme or ("own" if settings.is_file else find_task(settings.task).schemes[0])


def setting_frames(
    model: Model, settings: Sequence[PairRuns], more: Sequence[lint.Check] = ()
) -> dict[str, pl.DataFrame]:
    """Tables of pairs and checks; `more` are checks of the first set."""
    pairs = [row for setting in settings for row in _pair_rows(model, setting)]
    rows = [
        {
            "pair_set": setting.name,
            "check_number": number,
            "check_name": c.name,
            "finding": c.finding,
            "size": c.value,
            "level": c.level,
        }
        for setting in settings
        for number, c in enumerate(
            [*lint.check(setting.encoded), *capability(setting), *(more if setting is settings[0] else ())]
        )
    ]
    return {
        "patch_pairs": pl.DataFrame(pairs, infer_schema_length=None),
        "patch_checks": pl.DataFrame(rows, infer_schema_length=None),
    }


def _pair_rows(model: Model, setting: PairRuns) -> list[dict[str, Any]]:
    of_tokens = any(not isinstance(o, str) for p in setting.batch.pairs for o in (*p.pair.answers, *p.pair.distractors))
    texts = token_texts(model.tokenizer, model.spec.n_vocab) if of_tokens else []

    def text(prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else str(model.tokenizer.decode(list(prompt)))

    def word(option: str | int) -> str:
        return option if isinstance(option, str) else texts[option]

    return [
        {
            "pair_set": setting.name,
            "pair": i,
            "name": p.pair.name,
            "scheme": p.pair.scheme,
            "template": p.pair.template,
            "split": p.pair.split,
            "clean": text(p.pair.clean),
            "corrupted": text(p.pair.corrupted),
            "answers": [word(a) for a in p.pair.answers],
            "distractors": [word(d) for d in p.pair.distractors],
            "n_tokens": len(p.clean),
            "roles": json.dumps(dict(p.roles)),
            "strata": json.dumps(strata(p, setting.batch.pairs)),
            "metric_clean": setting.metric_clean[i],
            "metric_corrupted": setting.metric_corrupted[i],
        }
        for i, p in enumerate(setting.batch.pairs)
    ]


def strata(pair: TokenPair, pairs: Sequence[TokenPair]) -> dict[str, str]:
    """The pair's own strata, and two that every set has: length, and how frequent the answer's token is."""
    middle = sorted(len(p.clean) for p in pairs)[len(pairs) // 2]
    length = f"at most {middle} tokens" if len(pair.clean) <= middle else f"over {middle} tokens"
    return dict(pair.pair.strata) | {"length": length, FREQUENCY: lint.stratum_of(pair, FREQUENCY, pairs)}


def experiment_row(
    model: Model, judged: PairRuns, settings: PatchSettings, selected_by: Metric, by_template: float, seconds: float
) -> pl.DataFrame:
    """The row of table `patch_experiments`; `judged` are the discovery pairs under the metric that judges."""
    versions = {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    row = {
        "task": settings.name,
        "scheme": scheme_of(settings),
        "created": experiment_store.now(),
        "model": model.spec.name,
        "model_hash": model.spec.weights_hash,
        "settings": json.dumps(asdict(settings)),
        "metric": judged.metric.name,
        "metric_words": judged.metric.words,
        "metric_unit": judged.metric.unit,
        "selected_by": selected_by.name,
        "n_pairs": len(judged.batch),
        "n_dropped": judged.encoded.n_dropped,
        "metric_clean": float(judged.metric_clean.mean()),
        "metric_corrupted": float(judged.metric_corrupted.mean()),
        "neutral": neutral_level(judged.metric_clean, judged.metric_corrupted, judged.metric_of_nothing),
        "is_symmetric": all(p.pair.symmetric for p in judged.batch.pairs),
        "means_by_template": by_template,
        "seconds": seconds,
        "versions": json.dumps(versions),
    }
    return pl.DataFrame([row])


def circuit_row(circuit: Circuit) -> pl.DataFrame:
    """The row of table `circuits`."""
    scope = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(circuit.scope).items()}
    lists = {name: pl.List(pl.String) for name in ("schemes", "controlled", "accidental")}
    return pl.DataFrame(
        [{"model": circuit.model, **scope, "yaml": yaml_files.text_of(circuit)}], schema_overrides=lists
    )


def member_rows(main: PairRuns, circuit: Circuit, judged: pl.DataFrame, frequency: dict[str, float]) -> pl.DataFrame:
    """Table `circuit_members` for one set of pairs, without scores where nothing was judged."""
    rows = [
        {
            "component": m.component,
            "positions": m.positions,
            "role": m.role,
            "gate": m.gate,
            "schemes": list(m.schemes),
            "frequency": frequency.get(node_of(m)),
        }
        for m in circuit.members
    ]
    frame = pl.DataFrame(rows, schema_overrides={"schemes": pl.List(pl.String), "frequency": pl.Float64})
    if judged.is_empty():
        six = circuit_tables.six_values(main, circuit)
        del six["positions"]
        return frame.with_columns(**six)
    return frame.join(judged, on=["component", "positions"], how="left", maintain_order="left")
