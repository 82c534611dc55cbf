"""The bundled dictionaries are of the forms that others write, fit the bundled model, and are what their card says."""

import json
import re
from pathlib import Path

import pytest
import torch

from profiler.config import RunConfig
from profiler.dictionaries.dictionary import Place, TopK
from profiler.dictionaries.read import BUNDLED, read
from profiler.model.forward import Wanted
from profiler.model.load import load_model

WIDTH, UNITS, K, MOST_BYTES = 256, 1024, 16, 3_000_000
SITES = {"autoencoder": ("resid_post", "resid_post"), "transcoder": ("mlp_in", "mlp_out")}


@pytest.mark.parametrize("name", list(SITES))
def test_each_is_read_and_small(name: str) -> None:
    found = read(f"L2=bundled:{name}", lambda _: WIDTH)
    assert (found.reads, found.writes) == tuple(Place(2, site) for site in SITES[name])
    assert (found.units, found.rule.k) == (UNITS, K)
    assert isinstance(found.rule, TopK)
    assert sum(file.stat().st_size for file in (BUNDLED / name).iterdir()) <= MOST_BYTES


def test_the_card_states_reconstruction_density_and_dead_features() -> None:
    card = (BUNDLED / "card.md").read_text(encoding="utf-8")
    facts = json.loads((BUNDLED / "card.json").read_text(encoding="utf-8"))
    for name, row in facts["dictionaries"].items():
        line = next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
        shown = [float(number) for number in re.findall(r"-?\d+\.\d+|\b\d+\b", line.split("|", 3)[3])]
        wanted = [row[key] for key in ("variance_explained", "active_units", "dead", "error_share")]
        assert shown[:4] == pytest.approx(wanted, abs=0.006)


@pytest.mark.slow
def test_each_reconstructs_the_model_as_its_card_says() -> None:
    """On text that the measured pass did not read, within 0.15."""
    facts = json.loads((BUNDLED / "card.json").read_text(encoding="utf-8"))["dictionaries"]
    texts = tuple(f"L2=bundled:{name}" for name in SITES)
    model = load_model(RunConfig(model="bundled", corpora=("x",), dictionaries=texts))
    ids = torch.tensor([model.encode(Path(__file__).read_text(encoding="utf-8"))[:200]])
    capture = model.run(ids, Wanted())
    parts = model.described.parts(capture.sites, capture.scales, model.spec, ids.roll(-1, 1))
    for name, (_, rebuild) in zip(SITES, parts, strict=False):
        whole, rebuilt = rebuild.whole[0, 1:], rebuild.rebuilt[0, 1:]
        spread = (whole - whole.mean(0)).square().sum()
        explained = 1 - float((whole - rebuilt).square().sum() / spread)
        assert explained == pytest.approx(facts[name]["variance_explained"], abs=0.15)
