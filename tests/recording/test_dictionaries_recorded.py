"""Units of dictionaries in a run: planted ones come back exactly, and nothing depends on batches, order or shards."""

from pathlib import Path

import made_dictionaries
import numpy as np
import passes
import polars as pl
import pytest
import tiny
import torch
from passes import Tables
from same import differing_tables

import profiler
from profiler import actions
from profiler.database import query
from profiler.errors import ComponentError
from profiler.model.load import load_model
from profiler.pages.build import build
from profiler.recording.merge.merge import merge
from profiler.recording.pipeline import record
from profiler.recording.selection import Selection

WIDTH, LAYER, SUMS = 16, 1, 1e-12


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Path, str]:
    """A model whose layer writes 16 directions at right angles, a neuron each; and a dictionary of each direction both
    ways, whose units are the neurons' activations above and below 0."""
    folder, network = tmp_path_factory.mktemp("planted"), tiny.network("gpt2")
    mlp = network.transformer.h[LAYER].mlp
    directions = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))[0]
    mlp.c_proj.weight.data = torch.cat([directions, torch.zeros(mlp.c_proj.weight.shape[0] - WIDTH, WIDTH)])
    mlp.c_proj.bias.data.zero_()
    mlp.c_fc.bias.data.zero_()
    network.transformer.h[LAYER].ln_2.bias.data.zero_()  # so that activations have both signs
    network.save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    exact = mlp.c_proj.weight.data[:WIDTH].double()
    exact = torch.cat([exact, -exact])
    inverse = torch.linalg.inv(exact[:WIDTH])
    weights = {"W_enc": torch.cat([inverse, -inverse], 1), "W_dec": exact}
    weights |= {"b_enc": torch.zeros(2 * WIDTH), "b_dec": torch.zeros(WIDTH)}
    text = made_dictionaries.save(folder / "d", weights, metadata={"hook_name": f"blocks.{LAYER}.hook_mlp_out"})
    return folder / "model", text


@pytest.fixture(scope="module")
def run_file(planted, corpus, tmp_path_factory) -> Path:
    model, text = planted
    combination = model.parent / "pair.txt"
    combination.write_text(f"pair = 0.5*L{LAYER}N2 - 2*L{LAYER}N3\n")
    chosen = tuple(f"L{LAYER}{name}" for name in ("N3", "N2", ".mlp_out:D3", ".mlp_out:D19", ".mlp_post:D0"))
    config = passes.settings(model, corpus, dictionaries=(text, f"L{LAYER}={combination}"), components=chosen)
    path = tmp_path_factory.mktemp("run") / "run.duckdb"
    record(config, path)
    return path


@pytest.fixture(scope="module")
def run(run_file) -> Tables:
    return Tables(run_file)


def rows(run: Tables, label: str) -> pl.DataFrame:
    return passes.raw_rows(run, label)


def test_a_planted_feature_is_the_neuron_s_positive_part(run: Tables) -> None:
    """Activation and DLA at every position; the feature of the opposite direction is the negative part."""
    neuron, above, below = (rows(run, f"L{LAYER}{name}") for name in ("N3", ".mlp_out:D3", ".mlp_out:D19"))
    a, d = neuron["activation"].to_numpy(), neuron["dla"].to_numpy()
    assert (a > 0).any()
    assert (a < 0).any()
    np.testing.assert_allclose(above["activation"], np.maximum(a, 0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(below["activation"], np.maximum(-a, 0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(above["dla"], np.where(a > 0, d, 0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(below["dla"], np.where(a < 0, d, 0), rtol=1e-5, atol=1e-7)


def test_a_combination_s_value_is_what_is_written_and_its_effect_lies_along_it(run: Tables) -> None:
    two, three, pair = (rows(run, f"L{LAYER}{name}") for name in ("N2", "N3", ".mlp_post:D0"))
    value = 0.5 * two["activation"].to_numpy() - 2 * three["activation"].to_numpy()
    np.testing.assert_allclose(pair["activation"], value, rtol=1e-5, atol=1e-6)
    activations = [of["activation"].to_numpy() for of in (two, three)]
    loud = np.abs(activations).min(0) > 1e-3  # the effect of one of each is a ratio
    per_unit = [of["dla"].to_numpy()[loud] / a[loud] for of, a in zip((two, three), activations, strict=True)]
    wanted = value[loud] / (0.5**2 + 2**2) * (0.5 * per_unit[0] - 2 * per_unit[1])
    assert loud.sum() > 100
    np.testing.assert_allclose(pair["dla"].to_numpy()[loud], wanted, rtol=1e-3, atol=1e-5)


def test_a_perfect_dictionary_explains_everything(run: Tables) -> None:
    row = run["dictionaries"].filter(pl.col("kind") == "feature").row(0, named=True)
    ordinary = run["position_rows"].filter(pl.col("special").is_null()).height
    assert row["n"] == ordinary
    assert row["error_squares"] < 1e-20 * row["whole_squares"]
    neurons = sum((rows(run, f"L{LAYER}N{i}")["activation"] ** 2).sum() for i in (2, 3))
    assert row["whole_squares"] > neurons
    spliced = run["spliced_windows"].filter(pl.col("dictionary_id") == row["dictionary_id"])
    assert spliced.height > 20
    np.testing.assert_allclose(spliced["spliced"], spliced["loss"], rtol=1e-6)
    assert abs(spliced["ablated"].sum() - spliced["loss"].sum()) > 0.01
    assert run["dictionaries"].filter(pl.col("kind") == "direction").row(0, named=True)["n"] is None


def test_statistics_of_a_feature_are_those_of_its_rows(run: Tables) -> None:
    """Power sums, bins and extremes, against the rows at every position."""
    raw = rows(run, f"L{LAYER}.mlp_out:D3")
    powers = run.of("power_sums", f"L{LAYER}.mlp_out:D3")
    assert powers["n"].sum() == raw.height
    np.testing.assert_allclose((powers["a_mean"] * powers["n"]).sum(), raw["activation"].sum(), rtol=1e-5)
    np.testing.assert_allclose(powers["d_abs"].sum(), raw["dla"].abs().sum(), rtol=1e-5)
    bins = run.of("spectrum_counts", f"L{LAYER}.mlp_out:D3")
    zero = bins.filter(pl.col("bin") == 65)["n"].sum()
    assert zero == (raw["activation"].abs() < 2.0**-16).sum() > 0
    top = run.of("extreme_rows", f"L{LAYER}.mlp_out:D3").filter(
        pl.col("measure") == "activation", pl.col("side") == "top"
    )
    wanted = raw.filter(pl.col("ordinary")).sort("activation", descending=True).head(4)
    np.testing.assert_allclose(top.sort("rank")["activation"], wanted["activation"], rtol=1e-6)


def test_the_query_says_how_well_it_reconstructs(run_file: Path, run: Tables) -> None:
    row, other = query.run(run_file, "dictionaries").to_dicts()
    assert (row["units"], row["n_units"], row["n_recorded"]) == ("L1.mlp_out:D", 32, 32)
    assert row["variance_explained"] == pytest.approx(1)
    assert row["loss_added"] == pytest.approx(0, abs=1e-7)
    assert row["loss_recovered"] == pytest.approx(1, abs=1e-6)
    sizes = {label: rows(run, f"L1.mlp_out:{label}")["activation"] for label in ("D3", "D19")}
    assert row["active_units"] > sum((size > 0).mean() for size in sizes.values())
    assert row["error_share"] < 1e-9
    assert (other["units"], other["variance_explained"], other["loss"]) == ("L1.mlp_post:D", None, None)
    error = run.of("power_sums", "L1.mlp_out:Derror")
    assert error["a_max"].max() < 1e-10


def test_queries_know_what_is_of_a_dictionary(run_file: Path, run: Tables) -> None:
    """Ranks among themselves, shares of what heads and neurons write, and no part in sums that are the logit."""
    label = f"L{LAYER}.mlp_out:D3"
    of_kind = query.run(run_file, "component_overview", kind="feature", top=0)
    own = query.run(run_file, "component_overview", kind="", top=0)
    assert of_kind.height == 32
    assert set(own["kind"]) == {"head", "neuron"}
    assert own["share_abs_dla"].sum() == pytest.approx(1)
    rank = query.run(run_file, "component_rank", component=label).row(0, named=True)
    mine = of_kind.filter(pl.col("component") == label).row(0, named=True)
    assert rank["n_components"] == 33
    assert rank["share_abs_dla"] == pytest.approx(mine["share_abs_dla"], rel=1e-6)
    kinds = query.run(run_file, "attribution_by_kind")
    assert "feature" not in set(kinds["kind"])
    claims = query.run(run_file, "behaviours", component=label)
    assert claims.height > 5
    assert claims["random"].drop_nulls().len() > 0, "held against other features of the layer"
    assert set(query.run(run_file, "mixture", component=label)["behaviour"]) >= {"unexplained"}
    effects = query.run(run_file, "logit_effects", component=label).filter(pl.col("side") == "boosted")
    neuron = query.run(run_file, "logit_effects", component=f"L{LAYER}N3").filter(pl.col("side") == "boosted")
    assert effects["token"].to_list() == neuron["token"].to_list()
    np.testing.assert_allclose(effects["effect"], neuron["effect"], rtol=1e-4)


@pytest.mark.slow
def test_every_command_takes_a_feature(run_file: Path, planted, tmp_path: Path) -> None:
    """Cards of units, of an error and of a combination; the overview; info; values recomputed at each token."""
    for label in ("D3", "Derror", "Dbias"):
        page = build(run_file, "component", f"L{LAYER}.mlp_out:{label}")
        assert f"L{LAYER}.mlp_out:{label}" in page
    assert "the sum that was written" in build(run_file, "component", f"L{LAYER}.mlp_post:D0")
    overview = build(run_file, "overview")
    assert "Variance explained" in overview
    assert f"L{LAYER}.mlp_out:D" in overview
    with profiler.open(run_file) as opened:
        assert opened.summary().dictionaries.height == 2
    with query.open_run(run_file) as connection:
        given = actions.context_tokens(run_file, connection, f"L{LAYER}.mlp_out:D3", model=str(planted[0]))
    values = given["context_tokens"]["activations"].explode().drop_nulls()
    assert values.min() == 0 < values.max()


def test_the_model_s_own_numbers_are_those_without_a_dictionary(run: Tables, planted, corpus, tmp_path) -> None:
    """Ids, and every sum of every head and neuron; shares are of heads and neurons alone."""
    plain = passes.run(tmp_path, passes.settings(planted[0], corpus, components=(f"L{LAYER}N3", f"L{LAYER}N2")))
    last = plain["components"]["component_id"].max()
    for table in ("components", "power_sums", "cell_sums", "spectrum_counts", "quantiles", "sample_rows"):
        own = run[table].filter(pl.col("component_id") <= last)
        assert own.equals(plain[table]), table
    assert run["group_importance"].equals(plain["group_importance"])
    assert run["runs"]["closure_residual"].equals(plain["runs"]["closure_residual"])


def test_features_are_chosen_and_none_is_left_out_in_silence(planted, corpus) -> None:
    model, text = planted
    config = passes.settings(model, corpus, dictionaries=(text,), components=())
    spec = load_model(config).spec
    units = next(facts.block for facts in spec.dictionaries)
    chosen = Selection.of(spec, config.model_copy(update={"features": "0-2,30"}))
    assert chosen.units(units).tolist() == [0, 1, 2, 30]
    assert chosen.all_of_the_model
    assert not chosen.everything
    assert chosen.remainders.stop - chosen.remainders.start == 2
    alone = Selection.of(spec, config.model_copy(update={"kinds": ("feature",)}))
    assert alone.count("feature") == 32
    assert alone.count("head") == 0
    for changes in ({"kinds": ("head",)}, {"layers": "0"}, {"features": "99"}, {"select": ("L0H0",)}):
        with pytest.raises(ComponentError, match="nothing of the dictionary"):
            Selection.of(spec, config.model_copy(update=changes))
    with pytest.raises(ComponentError, match="features '1-' cannot be read"):
        Selection.of(spec, config.model_copy(update={"features": "1-"}))


@pytest.fixture(scope="module")
def several(model_dirs, corpus, tmp_path_factory):
    """Dictionaries of every kind over one model."""
    folder = tmp_path_factory.mktemp("several")
    texts = [
        made_dictionaries.random_one(folder / "a", 1, "mlp_out", WIDTH, seed=1),
        made_dictionaries.random_one(folder / "b", 0, "resid_post", WIDTH, seed=2, architecture="topk", k=3),
        made_dictionaries.random_one(folder / "c", 1, "mlp_in", WIDTH, seed=3, d_out=WIDTH),
    ]
    np.save(folder / "v.npy", np.random.default_rng(0).normal(size=(2, WIDTH)))
    texts += [f"L0.resid_pre={folder / 'v.npy'}", f"L1.resid_post=subspace:{folder / 'v.npy'}"]
    return passes.settings(model_dirs["gpt2"], corpus, dictionaries=tuple(texts), components=("L1.mlp_out:D3",))


@pytest.fixture(scope="module")
def whole(several, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run.duckdb"
    record(several, path)
    return path


@pytest.mark.monthly
def test_batches_do_not_matter(several, whole, tmp_path) -> None:
    record(several.model_copy(update={"batch_size": 7}), tmp_path / "run.duckdb")
    found = [line for line in differing_tables(whole, tmp_path / "run.duckdb", SUMS)[1] if "runs" not in line]
    rounded = {"extreme_rows: key", "power_sums: a_min, a_max, d_min, d_max", "power_sums: d_min, d_max"}
    assert set(found) <= rounded, "products of other shapes are rounded otherwise, in float64"


@pytest.mark.slow
def test_shards_merged_are_the_whole(several, whole, tmp_path, small_chunks) -> None:
    record(several, tmp_path / "whole.duckdb")
    for shard in ("1/2", "2/2"):
        record(several.model_copy(update={"shard": shard}), tmp_path / f"{shard[0]}.duckdb")
    merge([tmp_path / "2.duckdb", tmp_path / "1.duckdb"], tmp_path / "merged.duckdb")
    assert differing_tables(tmp_path / "whole.duckdb", tmp_path / "merged.duckdb", SUMS)[1] == []


@pytest.mark.slow
def test_moved_files_are_the_same_dictionaries_and_changed_ones_are_not(several, whole, tmp_path) -> None:
    """A run is asked again by --resume: where files lie does not count, what is in them does."""
    from profiler.errors import RunError

    moved = Path(several.dictionaries[0].split("=", 1)[1]).rename(tmp_path / "elsewhere")
    texts = (f"L1={moved}", *several.dictionaries[1:])
    assert record(several.model_copy(update={"dictionaries": texts}), whole, resume=True).before
    changed = made_dictionaries.random_one(tmp_path / "changed", 1, "mlp_out", WIDTH, seed=9)
    with pytest.raises(RunError, match="dictionary files"):
        record(several.model_copy(update={"dictionaries": (changed, *texts[1:])}), whole, resume=True)
