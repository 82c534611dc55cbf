"""Where the time of our pass goes: a clock around each stage, by wrapping the functions of one Pass."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from profiler.model import direct
from profiler.recording.pipeline import Pass

STAGES = ("forward", "attribution", "accumulators", "staging", "rest")


def clock(device: str) -> float:
    """Seconds: of the process' own cycles on a CPU, of the world's clock (work under way ended) elsewhere."""
    if device == "cpu":
        return time.process_time()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


class Stages:
    """Seconds by stage, added up over everything a Pass reads while it is wrapped; `rest` is what no stage claims."""

    def __init__(self, run: Pass):
        self.seconds: dict[str, float] = defaultdict(float)
        self.device = run.config.device
        run.model = replace(run.model, forward=self._timed("forward", run.model.forward))
        for method in ("prepare", "add", "add_attention"):
            setattr(run.recorder, method, self._timed("accumulators", getattr(run.recorder, method)))
        for method in ("stage_positions", "add_chunk"):
            setattr(run.store, method, self._timed("staging", getattr(run.store, method)))
        self._parts = direct.by_part

    def __enter__(self) -> "Stages":
        direct.by_part = self._each_timed
        return self

    def __exit__(self, *_: object) -> None:
        direct.by_part = self._parts

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            start = clock(self.device)
            result = function(*args, **options)
            self.seconds[stage] += clock(self.device) - start
            return result

        return timed

    def _each_timed(self, *args: Any, **options: Any) -> Iterator[Any]:
        parts, done = self._parts(*args, **options), object()
        following = self._timed("attribution", lambda: next(parts, done))
        while (part := following()) is not done:
            yield part

    def shares(self, total: float) -> dict[str, float]:
        """Share of each stage in `total` seconds."""
        known = {stage: self.seconds[stage] / total for stage in STAGES[:-1]}
        return known | {"rest": 1 - sum(known.values())}
