"""A slow recomputation of a run of a mixture of experts: values of every expert's neurons where they are present, from
the model's own modules called window by window, and what tables and views must say of one of them."""

from dataclasses import dataclass
from functools import cached_property

import frozen
import numpy as np
import polars as pl
import torch
import zoo
from brute import combine
from passes import Tables
from transformers import PreTrainedModel


@dataclass
class RawExperts:
    """Every position of a run.

    Attributes:
        rows: position_id, document, domain, group, classes, bucket, token and whether it is ordinary.
        activation, dla: by the path of a module of experts [position, expert, neuron]; NaN where it was not chosen.
    """

    tables: Tables
    rows: pl.DataFrame
    activation: dict[str, np.ndarray]
    dla: dict[str, np.ndarray]

    @cached_property
    def ordinary(self) -> np.ndarray:
        """Whether each position is ordinary."""
        return self.rows["ordinary"].to_numpy()

    @cached_property
    def parts(self) -> dict[str, dict[int, float]]:
        """By domain, each replicate group's part of its documents."""
        documents = self.tables["documents"]
        return {
            domain: {g: (own["group_id"] == g).mean() for g in own["group_id"].unique().sort()}
            for (domain,), own in documents.group_by("domain", maintain_order=True)
        }

    def of(self, label: str) -> tuple[np.ndarray, np.ndarray]:
        """Activation and DLA of L1E2N3 at every position, NaN where it is absent."""
        layer, expert, neuron = (int(n) for n in label[1:].replace("E", "N").split("N"))
        site = next(site for site in self.dla if f".{layer}." in site)
        return self.activation[site][:, expert, neuron], self.dla[site][:, expert, neuron]

    def error(self, above: np.ndarray, below: np.ndarray) -> float | None:
        """Jackknife standard error of sum(above) / sum(below) over ordinary positions."""
        group, domain = self.rows["group_id"].to_numpy(), self.rows["domain"].to_numpy()

        def without(of: str, left_out: int, scale: float) -> float:
            weight = self.ordinary * np.where(group == left_out, 0.0, np.where(domain == of, scale, 1.0))
            return (weight * above).sum() / (weight * below).sum()

        whole = (self.ordinary * above).sum() / (self.ordinary * below).sum()
        return combine(self.parts, without, whole)[0]


def recomputed(network: PreTrainedModel, tables: Tables) -> RawExperts:
    """Values at every position of a run that recorded a component everywhere.

    Args:
        network: the run's, made by `zoo.double`, with gated experts of silu.
    """
    rows = tables["position_rows"].join(tables["windows"].select("window_id", "token_ids"), on="window_id")
    documents = tables["documents"].select("doc_id", "domain", "group_id")
    tokens = tables["tokens"].select(next_token_id="token_id", next_class="class_id")
    rows = rows.join(documents, on="doc_id").join(tokens, on="next_token_id").sort("position_id")
    lows = tables["position_buckets"]["lo"].to_numpy()
    bucket = np.searchsorted(lows, rows["offset"].to_numpy(), side="right") - 1
    rows = rows.with_columns(ordinary=pl.col("special").is_null(), bucket=pl.Series(bucket))
    activation: dict[str, list[np.ndarray]] = {}
    dla: dict[str, list[np.ndarray]] = {}
    for (_,), window in rows.group_by("window_id", maintain_order=True):
        ids = torch.tensor([window["token_ids"][0].to_list()])
        targets = torch.zeros_like(ids)
        offsets = window["offset"].to_list()
        targets[0, offsets] = torch.tensor(window["next_token_id"].to_list())
        for site, values in frozen.attributions(network, ids, targets)[1].items():
            if values.dim() == 4:
                dla.setdefault(site, []).append(values[0, offsets].numpy())
        for site, called in frozen.cut_pass(network, ids).called.items():
            activation.setdefault(site, []).append(_activations(network.get_submodule(site), *called[:2])[offsets])
    stacked = ({site: np.concatenate(values) for site, values in kept.items()} for kept in (activation, dla))
    return RawExperts(tables, rows, *stacked)


def _activations(module, read, chosen) -> np.ndarray:
    """silu(gate) * in of each expert's neurons [token, expert, neuron]; NaN where the expert was not chosen."""
    x, matrices = read.numpy(), module.gate_up_proj.detach().numpy()
    n = matrices.shape[1] // 2
    found = np.full((len(x), len(matrices), n), np.nan)
    for token, experts in enumerate(chosen.tolist()):
        for expert in experts:
            gate, into = matrices[expert, :n] @ x[token], matrices[expert, n:] @ x[token]
            found[token, expert] = gate / (1 + np.exp(-gate)) * into
    return found


def written(name: str, folder) -> PreTrainedModel:
    """A family's tiny model saved to `folder` with a tokenizer, and the same in memory for `recomputed`."""
    network = zoo.build(name)
    network.save_pretrained(folder)
    return zoo.double(network)
