"""Path patching: what one component tells another along a path, and nothing else of it.

    L0H5:L2H1.q:logits        what L0H5 writes reaches L2H1's queries, and what L2H1 then writes reaches the logits

The sender writes what it writes on the corrupted prompt; the next component hears that, directly through the residual
stream, with everything else as on the clean prompt; what it then writes is heard by the one after it, and so on. The
last one of the path hears the change and everything after it runs. A path of two is one edge cut; the whole effect of a
component is the sum of no set of paths where they interact (Wang et al. 2022, Goldowsky-Dill et al. 2023). MLPs between
two components are no part of a path: name them (`L0H5:L1_mlp_out:L2H1.q`).

A head that is named without its part is its query, key and value together. `positions` restricts what is sent to those
of a role. Effect: share of the clean minus the corrupted metric that is lost, with a bootstrap interval over the pairs.
Control: the same path from every other component of the sender's kind that can send to its first receiver; the share
of these that lose at least as much is the path's p, never below 1 / (1 + senders).

Cost: one pass of the pairs per component after the sender, for each sender.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler import statistics
from profiler.circuits.circuit import INPUT, OUTPUT, Edge
from profiler.circuits.edge_mask import Graph, State, Writes, all_writes, graph_of, parts_of, run
from profiler.errors import CircuitError
from profiler.model.steps.network import Offsets
from profiler.patching.setting import PairRuns

SEPARATORS = (":", "->")
LEAST = 2


@dataclass(frozen=True)
class NamedPath:
    """A sender, then receivers (`L2H1`, `L2H1.q`, `L1_mlp_out`), the last of which may be the logits."""

    steps: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it is written."""
        return ":".join(self.steps)

    @property
    def sender(self) -> str:
        """The first component."""
        return self.steps[0]

    def hops(self) -> list[Edge]:
        """Its edges: from each component, without the part that it reads by, to what the next reads by."""
        return [Edge(first.split(".")[0], second) for first, second in zip(self.steps, self.steps[1:], strict=False)]

    def sent_by(self, sender: str) -> "NamedPath":
        """The same path from another sender."""
        return NamedPath((sender, *self.steps[1:]))


@dataclass(frozen=True, eq=False)
class PathEffect:
    """What a path carries.

    Attributes:
        path: the path.
        positions: all, or the role at which it is sent.
        share, low, high: share of the metric's effect that is lost, and its 95 % interval.
        controls: the same share from each other sender, by label.
        p: share of senders that lose at least as much, this one counted.
        p_least: the least that p can be with so many other senders.
        n: pairs.
    """

    path: NamedPath
    positions: str
    share: float
    low: float
    high: float
    controls: dict[str, float]
    p: float
    p_least: float
    n: int


def rows(measured: PathEffect, setting: PairRuns) -> list[dict[str, Any]]:
    """Rows of table `patch_paths` without their experiment: the path's own, then its controls."""
    shared = {
        "path": measured.path.text,
        "n": measured.n,
        "measured_by": setting.metric.name,
        "granularity": "path",
        "component_kind": "edge",
        "value": "resample",
        "positions": measured.positions,
        "direction": "noise",
        "pair_set": setting.name,
    }
    own = {
        "share": measured.share,
        "share_lo": measured.low,
        "share_hi": measured.high,
        "p": measured.p,
        "p_least": measured.p_least,
    }
    nothing = dict.fromkeys(own)
    return [
        shared | {"sender": measured.path.sender, "is_control": False} | own,
        *(
            shared | {"sender": sender, "is_control": True} | nothing | {"share": share}
            for sender, share in measured.controls.items()
        ),
    ]


def parse(text: str, graph: Graph) -> NamedPath:
    """The path of a text: components with `:` (or `->`) between them.

    Raises:
        CircuitError: it names fewer than two, or a hop that the model has no edge for.
    """
    for separator in SEPARATORS[1:]:
        text = text.replace(separator, SEPARATORS[0])
    path = NamedPath(tuple(part.strip() for part in text.split(SEPARATORS[0])))
    if len(path.steps) < LEAST or "" in path.steps:
        raise CircuitError(f"{text!r} is no path: write a sender and receivers, such as L0H5:L2H1.q or L2H1:{OUTPUT}")
    for hop in path.hops():
        graph.mask([hop])
    return path


def other_senders(path: NamedPath, graph: Graph) -> list[str]:
    """Other components of the sender's kind that write to its first receiver; the input where there is no other."""
    head = path.hops()[0]
    kind = _kind(path.sender)
    column = torch.nonzero(graph.mask([head]).any(0))[0, 0]
    senders = [writer for writer, heard in zip(graph.writers, graph.exists[:, column].tolist(), strict=True) if heard]
    return [writer for writer in senders if _kind(writer) == kind and writer not in path.steps]


def _kind(label: str) -> str:
    return label if label == INPUT else "mlp" if label.endswith("_mlp_out") else "head"


def effect(setting: PairRuns, text: str, positions: str = "all", seed: int = 0) -> PathEffect:
    """What a path carries on the pairs of a setting, beside the same path from other senders.

    Raises:
        ModelError: the network offers no edges.
        CircuitError: the text is no path of the model.
        PairError: no pair has the role.
    """
    graph = graph_of(setting.net.plain)
    path = parse(text, graph)
    sent = setting.batch.mask(positions)
    writes = all_writes(setting.net.plain, setting.clean), all_writes(setting.net.plain, setting.corrupted)
    lost = _lost(setting, path, writes, sent)
    low, high = statistics.bootstrap_ratio(lost[None], setting.whole, seed=seed)
    whole = setting.whole.mean()
    controls = {
        sender: float(_lost(setting, path.sent_by(sender), writes, sent).mean() / whole)
        for sender in other_senders(path, graph)
    }
    share = float(lost.mean() / whole)
    drawn = np.abs(np.array(list(controls.values())))
    p, least = statistics.random_set_p(abs(share), drawn), statistics.least_random_p(len(drawn))
    return PathEffect(path, positions, share, float(low[0]), float(high[0]), controls, p, least, len(lost))


def _lost(
    setting: PairRuns, path: NamedPath, writes: tuple[Writes, Writes], sent: Bool[Tensor, "prompt position"]
) -> Float[np.ndarray, " pair"]:
    """The metric that the path's corrupted message costs the clean run, per pair."""
    after = setting.batch.options.values(patched(setting, path, writes, sent))
    return np.asarray(setting.metric_clean - after)


def patched(
    setting: PairRuns, path: NamedPath, writes: tuple[Writes, Writes], sent: Bool[Tensor, "prompt position"]
) -> Float[Tensor, "prompt vocab"]:
    """Logits of the clean prompts with the path carrying the corrupted message.

    Args:
        writes: of the clean and of the corrupted run.
        sent: positions at which the sender's message is the corrupted one.
    """
    graph, (clean, corrupted) = graph_of(setting.net.plain), writes
    row = graph.writers.index(path.steps[0].split(".")[0])
    heard = clean.clone()
    heard[row] = torch.where(sent[..., None], corrupted[row], clean[row])
    with torch.inference_mode():
        for hop in path.hops():
            logits, answered = _hop(setting, graph, hop, heard)
            heard = clean.clone()
            if hop.reader != OUTPUT:
                row = graph.writers.index(hop.reader.split(".")[0])
                heard[row] = answered[row]
    return logits


class Witness(State):
    """Notes what every writer writes; in the last layer that is at the answer's position alone."""

    def __init__(self, other: Writes, drop: Float[Tensor, "writer reader"]):
        super().__init__(other, drop)
        self.written = other.clone()

    def add(self, live: Writes, ends: Offsets = None) -> None:
        """Note what the next writers wrote."""
        upto = self.n + len(live)
        if ends is None:
            self.written[self.n : upto] = live
        else:
            self.written[self.n : upto, torch.arange(len(ends), device=ends.device), ends] = live[:, :, 0]
        super().add(live, ends)


def _hop(setting: PairRuns, graph: Graph, hop: Edge, heard: Writes) -> tuple[Float[Tensor, "prompt vocab"], Writes]:
    """Logits with one edge carrying `heard`, and what every writer then writes."""
    batch, net = setting.batch, setting.net.plain
    drop = graph.mask([hop]).to(dtype=heard.dtype, device=heard.device)
    logits, answered = [], []
    for part in parts_of(batch.clean):
        witness = Witness(heard[:, part], drop)
        logits.append(run(net, batch.clean[part], batch.ends[part], witness))
        answered.append(witness.written)
    return torch.cat(logits), torch.cat(answered, 1)
