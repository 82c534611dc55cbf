"""Train the two bundled dictionaries: an autoencoder of the residual stream after layer 2 and a transcoder of its MLP.

    python -m profiler.bundled.training.dictionaries FOLDER

Afterwards a pass over other text measures how well they reconstruct, and writes the card.

Top-k dictionaries of 1,024 units (Gao et al. 2024) on activations of the bundled model over the bundled corpus, special
positions left out; the autoencoder is written as SAELens writes one, the transcoder as circuit-tracer does. Units that
never fired in a round begin anew, along the errors of the positions that are reconstructed worst. They are there to try
features offline: small, trained for minutes, of one seed.
Cost: about six CPU minutes and 600 MB.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from profiler.config import RunConfig
from profiler.database import query
from profiler.dictionaries.dictionary import Place
from profiler.dictionaries.saelens import SETTINGS, WEIGHTS
from profiler.model.described.sites import Sites
from profiler.model.forward import Wanted
from profiler.model.load import load_model, twin_of
from profiler.recording.pipeline import corpus_chunks, record
from profiler.text.documents import Cursor, Domains, Reading
from profiler.text.token_classes import special_ids, token_classes, token_texts
from profiler.text.windows import Layout

LAYER, UNITS, K = 2, 1024, 16
TOKENS, CONTEXT, WINDOWS, SEED = 200_000, 256, 4, 1
ROUNDS, BATCH, RATE = 3, 1024, 2e-3
MEASURED = 30_000
CARD = """# Dictionaries of the bundled model

Two top-k dictionaries of {units:,} units, {k} at a position, of layer {layer}: an autoencoder of the residual stream
after it and a transcoder of its MLP. Trained by `profiler/bundled/training/dictionaries.py` for {rounds} rounds over
{tokens:,} tokens of the bundled corpus, seed {seed}. They are there to try features offline, not to be studied: small,
of one seed, trained for minutes.

Measured by a pass over {n:,} positions of windows of the same corpus that another seed draws, some of which may have
been trained on (`profiler query RUN dictionaries`):

| dictionary | sites | variance explained | active units | dead | error | loss | added | loss of 0 | recovered |
|---|---|---|---|---|---|---|---|---|---|
{rows}

Density: active units of {units:,} at a position, on average. Dead: features that were never above 0 in the pass. Error:
its share of the |DLA| of units, bias and error. Losses in nats a token, at ordinary positions of 64 random windows: of
the model as it is, what the reconstruction in the place of what is written adds, and with 0 in its place.
"""
HOOKS = {"resid_post": "hook_resid_post", "mlp_in": "mlp.hook_in", "mlp_out": "hook_mlp_out"}


@dataclass(frozen=True)
class Wished:
    """A dictionary to train: its name, and the sites that it reads and writes."""

    name: str
    reads: str
    writes: str


BOTH = (Wished("autoencoder", "resid_post", "resid_post"), Wished("transcoder", "mlp_in", "mlp_out"))


@torch.no_grad()
def activations() -> dict[str, Float[Tensor, "position width"]]:
    """What stands at each site at the ordinary positions of a sample of the corpus."""
    config = RunConfig(
        model="bundled",
        corpora=("stdlib",),
        tokens=TOKENS,
        context_length=CONTEXT,
        windows_per_document=WINDOWS,
        seed=SEED,
    )
    model = load_model(config)
    sites = Sites(model.network, model.weights, lambda: twin_of(model.unwatched))
    places = {site: Place(LAYER, site) for site in HOOKS}
    for place in places.values():
        sites.watch(place)
    classes = token_classes(token_texts(model.tokenizer, model.spec.n_vocab), special_ids(model.tokenizer))
    layout = Layout(CONTEXT, model.bos_id, torch.tensor(classes), SEED, config.replicate_groups)
    found: dict[str, list[Tensor]] = {site: [] for site in HOOKS}
    for chunk in corpus_chunks(config, model.tokenizer, layout, Domains(8), Reading(), Cursor()):
        for batch in chunk.batches(lambda _width: config.batch_size, layout):
            model.run(batch.tokens, Wanted())
            left = sites.take()
            for site, place in places.items():
                found[site].append(left[place].reshape(*batch.tokens.shape, -1)[batch.ordinary].clone())
    return {site: torch.cat(values) for site, values in found.items()}


def trained(
    x: Float[Tensor, "position d_in"], y: Float[Tensor, "position d_out"], *, centres: bool
) -> dict[str, Float[Tensor, "..."]]:
    """Weights of a top-k dictionary that reconstructs y from x.

    Args:
        centres: whether the decoder's bias is taken off the input first.
    """
    generator = torch.Generator().manual_seed(SEED)
    sizes = x.norm(dim=1).mean() / x.shape[1] ** 0.5, y.norm(dim=1).mean() / y.shape[1] ** 0.5
    x, y = x / sizes[0], y / sizes[1]
    w_dec = torch.nn.functional.normalize(torch.randn(UNITS, y.shape[1], generator=generator), dim=1)
    w_enc = w_dec.T.clone() if centres else torch.randn(x.shape[1], UNITS, generator=generator) / x.shape[1] ** 0.5
    weights = {"W_enc": w_enc, "b_enc": torch.zeros(UNITS), "W_dec": w_dec, "b_dec": y.mean(0)}
    parameters = [value.requires_grad_() for value in weights.values()]
    optimiser = torch.optim.Adam(parameters, lr=RATE)
    steps = ROUNDS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, 3 * (1 - step / steps)))
    for number in range(ROUNDS):
        fired = torch.zeros(UNITS, dtype=torch.bool)
        for rows in _batches(len(x), generator):
            values = _encoded(weights, x[rows], centres=centres)
            error = y[rows] - (values @ weights["W_dec"] + weights["b_dec"])
            optimiser.zero_grad()
            error.square().sum(1).mean().backward()
            optimiser.step()
            schedule.step()
            fired |= (values > 0).any(0)
        if number < ROUNDS - 1:
            _begin_anew(weights, ~fired, x[rows], error.detach())
        print(f"round {number + 1}: error {error.square().sum() / y[rows].square().sum():.3f}, fired {fired.sum()}")
    w_enc, b_enc, w_dec, b_dec = (value.detach() for value in weights.values())
    return {"W_enc": w_enc / sizes[0], "b_enc": b_enc, "W_dec": w_dec * sizes[1], "b_dec": b_dec * sizes[1]}


def _encoded(weights: dict[str, Tensor], x: Float[Tensor, "row d_in"], *, centres: bool) -> Float[Tensor, "row unit"]:
    before = (x - weights["b_dec"] if centres else x) @ weights["W_enc"] + weights["b_enc"]
    values, units = before.topk(K, -1)
    return torch.zeros_like(before).scatter(-1, units, values.relu())


def _batches(n: int, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(n, generator=generator)
    yield from order[: n - n % BATCH].split(BATCH)


@torch.no_grad()
def _begin_anew(weights: dict[str, Tensor], dead: Tensor, x: Tensor, error: Tensor) -> None:
    """Turn units that never fired towards the largest errors of a batch."""
    worst = error.norm(dim=1).argsort(descending=True)[: int(dead.sum())]
    units = dead.nonzero()[: len(worst), 0]
    weights["W_dec"][units] = torch.nn.functional.normalize(error[worst], dim=1)
    weights["W_enc"][:, units] = torch.nn.functional.normalize(x[worst], dim=1).T / 5
    weights["b_enc"][units] = 0.0


def write(folder: Path, wished: Wished, weights: dict[str, Tensor]) -> None:
    """Save an autoencoder in the form of SAELens, a transcoder in that of circuit-tracer."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in weights.items()}
    if wished.reads != wished.writes:
        hooks = {"feature_input_hook": wished.reads, "feature_output_hook": wished.writes}
        lines = [f"{name}: {HOOKS[site]}\n" for name, site in hooks.items()]
        (folder / "config.yaml").write_text("".join(lines), encoding="utf-8")
        turned = weights | {"W_enc": weights["W_enc"].T.contiguous(), "k": torch.tensor(K)}
        save_file(turned, folder / f"layer_{LAYER}.safetensors")
        return
    metadata = {"model_name": "bundled", "hook_name": f"blocks.{LAYER}.{HOOKS[wished.reads]}", "context_size": CONTEXT}
    cfg = {"architecture": "topk", "k": K, "d_in": weights["W_enc"].shape[0], "d_sae": UNITS, "dtype": "float32"}
    cfg |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "metadata": metadata}
    (folder / SETTINGS).write_text(json.dumps(cfg, indent=1) + "\n", encoding="utf-8")
    save_file(weights, folder / WEIGHTS)


def write_card(folder: Path, run: Path) -> None:
    """Write card.json and card.md from a run that recorded both, autoencoder first."""
    columns = (
        "variance_explained",
        "active_units",
        "dead",
        "error_share",
        "loss",
        "loss_added",
        "loss_ablated",
        "loss_recovered",
    )
    measured = query.run(run, "dictionaries").select("reads", "writes", "n_units", *columns).to_dicts()
    rows = {wished.name: row for wished, row in zip(BOTH, measured, strict=True)}
    counts = query.run(run, "SELECT n_positions, n_documents FROM runs").row(0)
    facts = {"tokens": TOKENS, "rounds": ROUNDS, "seed": SEED, "positions": counts[0], "documents": counts[1]}
    (folder / "card.json").write_text(json.dumps(facts | {"dictionaries": rows}, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"| {name} | {row['reads']} to {row['writes']} | {row['variance_explained']:.2f} | {row['active_units']:.2f} |"
        f" {row['dead']} | {row['error_share']:.2f} | {row['loss']:.2f} | {row['loss_added']:.2f} |"
        f" {row['loss_ablated']:.2f} | {row['loss_recovered']:.2f} |"
        for name, row in rows.items()
    ]
    text = CARD.format(
        units=UNITS, k=K, layer=LAYER, tokens=TOKENS, rounds=ROUNDS, seed=SEED, n=counts[0], rows="\n".join(lines)
    )
    (folder / "card.md").write_text(text, encoding="utf-8")


def measure(folder: Path, run: Path) -> None:
    """Record both over windows that another seed draws."""
    texts = tuple(f"L{LAYER}={folder / wished.name}" for wished in BOTH)
    config = RunConfig(
        model="bundled",
        corpora=("stdlib",),
        tokens=MEASURED,
        windows_per_document=WINDOWS,
        seed=SEED + 1,
        dictionaries=texts,
        kinds=("feature",),
    )
    record(config, run, overwrite=True)


def main(folder: Path) -> None:
    """Train both, save them in a folder, and write their card."""
    values = activations()
    print({site: tuple(value.shape) for site, value in values.items()})
    for wished in BOTH:
        weights = trained(values[wished.reads], values[wished.writes], centres=wished.reads == wished.writes)
        write(folder / wished.name, wished, weights)
    with TemporaryDirectory() as place:
        measure(folder, Path(place) / "run.duckdb")
        write_card(folder, Path(place) / "run.duckdb")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
