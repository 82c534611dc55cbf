"""What Ray has, held against what a pass needs, before anything starts: nothing may wait for what will never come.

A worker or the reader runs on one machine, so shares of CPUs are chosen that fit machine by machine, wherever Ray puts
them. A share is what Ray counts with; it does not slow anything down. Cost: a question to Ray.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch

from profiler.errors import RunError
from profiler.recording.pipeline import Pass

SECONDS_TO_FREE = 10.0
MEMORY_FOR_LIBRARIES = 1_000_000_000


@dataclass(frozen=True)
class ResourceShares:
    """CPUs and GPUs of a worker, CPUs of the reader, threads of a worker."""

    worker_cpus: float
    worker_gpus: float
    reader_cpus: float
    threads: int


def shares(ray: Any, run: Pass, workers: int) -> ResourceShares:
    """What each takes of what there is.

    Args:
        ray: the module, or what stands for it.

    Raises:
        RunError: CPUs, GPUs or memory are missing, or in use by others; how many, or how much.
    """
    wants_gpu = run.config.device != "cpu"
    _check(ray, run, workers, wants_gpu=wants_gpu)
    machines = [n["Resources"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0.0) > 0]
    threads, reader = max(1, torch.get_num_threads() // workers), min(0.9, 0.19 * min(p["CPU"] for p in machines))
    share = _worker_share(machines, workers, reader, float(threads), wants_gpu=wants_gpu)
    # equal shares would let Ray join reader and worker in one actor, and leave the others without work
    made = ResourceShares(share, 1.0 if wants_gpu else 0.0, reader if reader != share else reader - 0.01, threads)
    _wait_until_free(ray, workers * share + made.reader_cpus)
    return made


def _check(ray: Any, run: Pass, workers: int, *, wants_gpu: bool) -> None:
    """Compare what all machines have together with what is needed.

    Raises:
        RunError: something is missing.
    """
    there = ray.cluster_resources()
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    if cpus <= 0 or workers < 1:
        raise RunError(f"--workers {workers} with {cpus:g} CPUs on Ray: one worker and one CPU are the least")
    if wants_gpu and gpus < 1:
        raise RunError(
            f"--device {run.config.device} needs a GPU, Ray has none: leave --device out, or add a machine with one"
        )
    if wants_gpu and gpus < workers:
        raise RunError(f"--workers {workers} need {workers} GPUs, Ray has {gpus:g}: lower --workers")
    state = sum(array.nbytes for array in run.totals.arrays().values())
    weights = sum(p.numel() * p.element_size() for p in run.model.network.parameters())
    need, memory = workers * (2 * state + 2 * weights + MEMORY_FOR_LIBRARIES), there.get("memory", 0.0)
    if need > memory:
        raise RunError(
            f"--workers {workers} need about {need / 1e9:,.1f} GB of memory ({need / workers / 1e9:,.1f} GB each), Ray"
            f" has {memory / 1e9:,.1f} GB: lower --workers, or join a larger cluster with --address"
        )


def _worker_share(
    machines: list[dict[str, float]], workers: int, reader: float, most: float, *, wants_gpu: bool
) -> float:
    """The most CPUs a worker can take so that all of them and the reader have room, wherever Ray puts them.

    A machine has room for whole workers only, and nobody knows on which the reader will be: its share is kept free on
    each.

    Args:
        machines: resources of each machine that has CPUs.

    Raises:
        RunError: GPUs are where there are no CPUs for their workers.
    """
    room = [(p["CPU"] - reader, int(p.get("GPU", 0)) if wants_gpu else workers) for p in machines]

    def fits(share: float) -> bool:
        return sum(min(most_here, int(cpus / share + 1e-9)) for cpus, most_here in room) >= workers

    shares = {min(most, cpus / k) for cpus, most_here in room if most_here for k in range(1, workers + 1)}
    if not (fitting := [share for share in shares if fits(share)]):
        raise RunError(f"--workers {workers}: Ray's GPUs are on machines without CPUs for them: lower --workers")
    return int(max(fitting) * 1000) / 1000


def _wait_until_free(ray: Any, cpus: float) -> None:
    """Wait a little for what others use, such as a pass that has just ended.

    Raises:
        RunError: it stays in use.
    """
    end = time.monotonic() + SECONDS_TO_FREE
    while (free := ray.available_resources().get("CPU", 0.0)) < cpus - 1e-6:
        if time.monotonic() > end:
            raise RunError(
                f"Ray has {free:g} of {ray.cluster_resources()['CPU']:g} CPUs free, others use the rest, and {cpus:g}"
                " are needed: wait for them (see `ray status`), or lower --workers"
            )
        time.sleep(0.5)
