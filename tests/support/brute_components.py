"""Slow recomputations of the queries about components as wholes and about the run: overviews, spectra, splits, closure,
sizes."""

import re
from collections.abc import Callable

import brute
import fake_run
import numpy as np
import polars as pl
import pytest
from brute_rows import CHECKS, check
from scipy import stats

from profiler.database import query

__all__ = ["CHECKS"]


HEADS_AND_NEURONS = ["head", "neuron"]


def live(fake: fake_run.FakeRun) -> list[dict]:
    """Rows of the heads and neurons."""
    return fake.components.filter(pl.col("kind").is_in(HEADS_AND_NEURONS)).to_dicts()


@check
def component_overview(fake: fake_run.FakeRun, db: query.Connection) -> None:
    classes = brute.column(fake, "class")
    everywhere = np.ones(len(classes), bool)
    ids = [c["component_id"] for c in live(fake)]
    wanted = []
    for c in live(fake):
        a, d = fake.activation[c["component_id"]], fake.dla[c["component_id"]]
        m = np.abs(d)

        def share(use: np.ndarray, m: np.ndarray = m) -> float:
            return (m * use).sum() / (np.abs(fake.dla[ids]) @ use).sum()

        shares = {
            k: m[fake.ordinary & (classes == k)].sum() / m[fake.ordinary].sum() if m.any() else 0
            for k in sorted(set(classes[fake.ordinary]))
        }
        top = max(shares, key=lambda k: shares[k])
        estimates = {
            "activation": brute.mean_of(a, everywhere),
            "dla": brute.mean_of(d, everywhere),
            "abs_dla": brute.mean_of(m, everywhere),
            "share_abs_dla": share,
        }
        bounds = {}
        for name, estimate in estimates.items():
            value, (se, half) = estimate(fake.ordinary), brute.error(fake, estimate)
            least, most = (0.0, 1.0) if name.startswith("share") else (-np.inf, np.inf)
            bounds |= {f"{name}_se": se, f"{name}_lo": max(least, value - half), f"{name}_hi": min(most, value + half)}
        wanted.append(
            bounds
            | {
                "component": c["component"],
                "kind": c["kind"],
                "layer": c["layer"],
                "n": int(fake.ordinary.sum()),
                "activation": a[fake.ordinary].mean(),
                "activation_sd": a[fake.ordinary].std(),
                "dla": d[fake.ordinary].mean(),
                "abs_dla": m[fake.ordinary].mean(),
                "share_abs_dla": share(fake.ordinary),
                "top_class": top,
                "top_class_share": shares[top] if m.any() else None,
                "top_class_base": (fake.ordinary & (classes == top)).sum() / fake.ordinary.sum(),
                "activation_min": a[fake.ordinary].min(),
                "activation_max": a[fake.ordinary].max(),
            }
        )
    wanted.sort(key=lambda row: -row["abs_dla"])
    brute.agree(query.run(db, "component_overview"), wanted)
    brute.agree(query.run(db, "component_overview", top=0, kind="head"), [r for r in wanted if r["kind"] == "head"])
    brute.agree(query.run(db, "component_overview", top=3), wanted[:3])


@check
def component_rank(fake: fake_run.FakeRun, db: query.Connection) -> None:
    ids = [c["component_id"] for c in live(fake)]
    sizes = np.abs(fake.dla)
    order = sorted(live(fake), key=lambda c: -sizes[c["component_id"]][fake.ordinary].sum())
    for rank, c in enumerate(order, 1):
        m = sizes[c["component_id"]]

        def share(use: np.ndarray, m: np.ndarray = m) -> float:
            return (m * use).sum() / (sizes[ids] @ use).sum()

        value, (se, half) = share(fake.ordinary), brute.error(fake, share)
        wanted = {
            "component": c["component"],
            "kind": c["kind"],
            "layer": c["layer"],
            "n": int(fake.ordinary.sum()),
            "abs_dla": m[fake.ordinary].mean(),
            "share_abs_dla": value,
            "share_abs_dla_se": se,
            "share_abs_dla_lo": max(0.0, value - half),
            "share_abs_dla_hi": min(1.0, value + half),
            "rank": rank,
            "n_components": len(ids),
        }
        brute.agree(query.run(db, "component_rank", component=c["component"]), [wanted])
    assert query.run(db, "component_rank", component="embed").is_empty()


@check
def spectrum_by_class(fake: fake_run.FakeRun, db: query.Connection) -> None:
    i = fake.row("L0N1")
    x, m = fake.activation[i][fake.ordinary], np.abs(fake.dla[i])[fake.ordinary]
    d, classes, bins = fake.dla[i][fake.ordinary], brute.column(fake, "class")[fake.ordinary], fake_run.bin_of(x, 2)
    edges = fake.tables["bins"].filter(pl.col("resolution") == "spectrum").sort("bin")
    wanted = []
    for number, name in sorted({(int(b), c) for b, c in zip(bins, classes, strict=True)}):
        cell, lo, hi = (bins == number) & (classes == name), edges["lo"][number], edges["hi"][number]
        is_class = brute.column(fake, "class") == name
        p_class, n_all = (classes == name).mean(), len(x)
        se = brute.jackknife(fake, lambda use, k=is_class: (use * k).sum() / use.sum())
        effect = max(1.0, se**2 / (p_class * (1 - p_class) / n_all))
        n_eff, p = (bins == number).sum() / effect, cell.sum() / (bins == number).sum()
        z = stats.norm.ppf(0.975)
        middle, half = p + z**2 / (2 * n_eff), z * np.sqrt(p * (1 - p) / n_eff + z**2 / (4 * n_eff**2))
        wanted.append(
            {
                "class": name,
                "bin": number,
                "lo": lo,
                "hi": hi,
                "n": int(cell.sum()),
                "class_share": p,
                "class_share_lo": max(0, (middle - half) / (1 + z**2 / n_eff)),
                "class_share_hi": min(1, (middle + half) / (1 + z**2 / n_eff)),
                "within_class": cell.sum() / (classes == name).sum(),
                "expected_value": (lo + hi) / 2 * cell.sum() / n_all,
                "sum_dla": d[cell].sum(),
                "sum_abs_dla": m[cell].sum(),
                "importance_share": m[cell].sum() / m.sum(),
            }
        )
    found = query.run(db, "spectrum_by_class", component="L0N1")
    brute.agree(found, wanted)
    assert found["expected_value"].sum() == pytest.approx(x.mean(), abs=0.2 * np.abs(x).mean())
    assert found["importance_share"].sum() == pytest.approx(1)


@check
def density(fake: fake_run.FakeRun, db: query.Connection) -> None:
    x = np.sort(fake.activation[fake.row("L0N5")][fake.ordinary])
    found = query.run(db, "density", component="L0N5")
    numbers, n = np.unique(fake_run.bin_of(x, 16), return_counts=True)
    assert found["bin"].to_list() == numbers.tolist()
    assert found["n"].to_list() == n.tolist()
    assert np.allclose(found["p"], n / len(x))
    assert np.allclose(found["cumulative"], n.cumsum() / len(x))
    assert ((found["lo"] < found["hi"]).all()) and found["lo"].is_sorted()


def check_by(axis: str) -> Callable[[fake_run.FakeRun, query.Connection], None]:
    def check(fake: fake_run.FakeRun, db: query.Connection) -> None:
        for component in ("L0N1", "L1H0"):
            found = query.run(db, f"by_{axis}", component=component)
            brute.agree(found.sort("value"), brute.breakdown(fake, component, axis))
            order = {"class": [c for c, _, _ in fake_run.CLASSES], "position": [b for b, _, _ in fake_run.BUCKETS]}
            wanted = order.get(axis.removeprefix("next_"), fake_run.DOMAINS)
            assert found["value"].to_list() == [v for v in wanted if v in set(found["value"])]

    return check


CHECKS |= {f"by_{axis}": check_by(axis) for axis in brute.AXES}


@check
def important_by_domain(fake: fake_run.FakeRun, db: query.Connection) -> None:
    wanted = []
    ids = [c["component_id"] for c in live(fake)]
    for domain in sorted(fake_run.DOMAINS):
        cell, groups, rows = brute.column(fake, "domain") == domain, brute.groups_of_domain(fake, domain), []
        for c in live(fake):
            m = np.abs(fake.dla[c["component_id"]])

            def share(use: np.ndarray, m: np.ndarray = m, cell: np.ndarray = cell) -> float:
                return (m * use * cell).sum() / (np.abs(fake.dla[ids]) @ (use * cell)).sum()

            mean, (se, half) = m[fake.ordinary & cell].mean(), brute.error(fake, brute.mean_of(m, cell))
            assert se is not None
            rows.append(
                {
                    "domain": domain,
                    "component": c["component"],
                    "kind": c["kind"],
                    "n": int((fake.ordinary & cell).sum()),
                    "abs_dla": mean,
                    "abs_dla_se": se,
                    "abs_dla_lo": mean - half,
                    "abs_dla_hi": mean + half,
                    "share_abs_dla": share(fake.ordinary),
                    "share_abs_dla_se": brute.jackknife(fake, share),
                    "groups": len(groups),
                }
            )
        rows.sort(key=lambda row: -row["abs_dla"])
        wanted.append([row | {"rank": k + 1} for k, row in enumerate(rows)])
    brute.agree(query.run(db, "important_by_domain", top=4), wanted[0][:4] + wanted[1][:4])
    brute.agree(query.run(db, "important_by_domain", top=0), wanted[0] + wanted[1])


@check
def by_role(fake: fake_run.FakeRun, db: query.Connection) -> None:
    """From the uniform and the stratified samples together, of a head and of a neuron."""
    for label in ("L1H1", "L0N1"):
        i, ordinary = fake.row(label), fake.ordinary
        samples = fake.tables["sample_rows"].filter(pl.col("component_id") == i)["position_id"].to_list()
        use = brute.column(fake, "dense") | np.isin(brute.column(fake, "position_id"), samples)
        bins, weight = fake_run.bin_of(fake.activation[i], 2), np.zeros(len(use))
        for number in np.unique(bins[use]):
            weight[use & (bins == number)] = (ordinary & (bins == number)).sum() / (use & (bins == number)).sum()
        roles = np.array([role or "none" for role in fake.positions["role"]])
        values = {"activation": fake.activation[i], "dla": fake.dla[i], "abs_dla": np.abs(fake.dla[i])}
        rows = []
        for role in sorted(set(roles[use])):
            cell = roles == role
            means = {name: _mean(value, weight, cell) for name, value in values.items()}
            shares = {
                "share_n": brute.share_of(weight, cell),
                "share_abs_dla": brute.share_of(weight * values["abs_dla"], cell),
            }
            row = {"role": role, "n": int((use & cell).sum())}
            row["groups"] = len(set(brute.column(fake, "group_id")[use & cell]))
            for name, estimate in (means | shares).items():
                se, half = brute.error(fake, estimate)
                value = estimate(ordinary)
                least, most = (0.0, 1.0) if name.startswith("share") else (-np.inf, np.inf)
                row[name] = value
                if name != "share_n":
                    interval = {"lo": max(least, value - half), "hi": min(most, value + half)}
                    row |= {f"{name}_{end}": bound for end, bound in ({"se": se} | interval).items()}
            rows.append(row)
        rows.sort(key=lambda row: (row["role"] == "none", row["role"] == "template", -row["share_n"]))
        assert len(rows) == 5
        brute.agree(query.run(db, "by_role", component=label), rows)


def _mean(values: np.ndarray, weight: np.ndarray, cell: np.ndarray) -> Callable[[np.ndarray], float]:
    """Weighted mean over a cell, as a function of position weights."""
    return lambda use: (values * weight * use * cell).sum() / (weight * use * cell).sum()


@check
def logit_effects(fake: fake_run.FakeRun, db: query.Connection) -> None:
    texts = fake.tables["tokens"]["token"]
    rows = fake.tables["logit_effects"].filter(pl.col("component_id") == fake.row("L1N4")).sort("side", "rank")
    wanted = [
        {"side": r["side"], "rank": r["rank"], "token": texts[r["token_id"]], "effect": r["effect"]}
        for r in rows.to_dicts()
    ]
    brute.agree(query.run(db, "logit_effects", component="L1N4"), wanted)
    assert query.run(db, "logit_effects", component="L0H0").is_empty()


@check
def dead_components(fake: fake_run.FakeRun, db: query.Connection) -> None:
    for below in (0.0001, 0.002, 0.3):
        wanted = []
        for c in live(fake):
            x = fake.activation[c["component_id"]][fake.ordinary]
            n, active = len(x), int((x >= 2.0**-16).sum())
            one_bin = len(set(fake_run.bin_of(x, 2))) == 1
            if not (one_bin or x.max() <= 0 or active / n < below):
                continue
            reason = "one bin" if one_bin else "never active" if x.max() <= 0 else "rarely active"
            row = {
                "component": c["component"],
                "reason": reason,
                "n": n,
                "n_active": active,
                "active_share": active / n,
                "activation_min": x.min(),
                "activation_max": x.max(),
            }
            for name, size in [("upper_bound", n), ("upper_bound_documents", 60)]:
                p, z = active / n, stats.norm.ppf(0.95)
                root = np.sqrt(p * (1 - p) / size + z**2 / (4 * size**2))
                row[name] = 3 / size if active == 0 else (p + z**2 / (2 * size) + z * root) / (1 + z**2 / size)
            wanted.append(row)
        wanted.sort(key=lambda row: row["n_active"])
        found = query.run(db, "dead_components", below=below)
        exact = [k for k in wanted[0] if not k.startswith("upper")]
        brute.agree(found, wanted, exact)
        for name in ("upper_bound", "upper_bound_documents"):
            assert found[name].to_list() == pytest.approx([row[name] for row in wanted], rel=1e-3)
    reasons = dict(query.run(db, "dead_components", below=0.002).select("component", "reason").iter_rows())
    assert reasons == {
        "L0N2": "never active",
        "L0N3": "one bin",
        "L0N4": "rarely active",
        "L1N2": "never active",
        "L1N3": "one bin",
        "L1N4": "rarely active",
    }


@check
def attribution_closure(fake: fake_run.FakeRun, db: query.Connection) -> None:
    table = (
        fake.tables["closure"]
        .drop("block", "part")
        .with_columns(relative=pl.max_horizontal("residual", "logit_residual") / pl.col("scale"))
    )
    brute.agree(query.run(db, "attribution_closure"), table.to_dicts())


@check
def attribution_by_kind(fake: fake_run.FakeRun, db: query.Connection) -> None:
    everywhere = np.ones(len(fake.positions), bool)
    wanted = []
    for kind in fake.components["kind"].unique().to_list():
        ids = fake.components.filter(pl.col("kind") == kind)["component_id"].to_list()
        d, m = fake.dla[ids].sum(0), np.abs(fake.dla[ids]).sum(0)
        row = {"kind": kind, "n_components": len(ids), "n": int(fake.ordinary.sum())}
        for name, values in [("dla", d), ("abs_dla", m)]:
            mean, (se, half) = values[fake.ordinary].mean(), brute.error(fake, brute.mean_of(values, everywhere))
            row |= {name: mean, f"{name}_se": se, f"{name}_lo": mean - half, f"{name}_hi": mean + half}
        wanted.append(row)
    wanted.sort(key=lambda row: -row["abs_dla"])
    found = query.run(db, "attribution_by_kind")
    brute.agree(found, wanted)
    assert found["dla"].sum() == pytest.approx(fake.dla.sum(0)[fake.ordinary].mean())


@check
def run_info(fake: fake_run.FakeRun, db: query.Connection) -> None:
    brute.agree(query.run(db, "run_info"), fake.tables["runs"].to_dicts())


@check
def corpus(fake: fake_run.FakeRun, db: query.Connection) -> None:
    documents, wanted = fake.tables["documents"], []
    for domain in sorted(fake_run.DOMAINS):
        mine = documents.filter(pl.col("domain") == domain)
        n = int((fake.ordinary & (brute.column(fake, "domain") == domain)).sum())
        wanted.append(
            {
                "domain": domain,
                "n_documents": len(mine),
                "n_tokens": mine["n_tokens"].sum(),
                "n": n,
                "n_dropped": mine["n_dropped"].sum(),
                "groups": mine["group_id"].n_unique(),
            }
        )
    brute.agree(query.run(db, "corpus"), wanted)


@check
def dictionaries(fake: fake_run.FakeRun, db: query.Connection) -> None:
    """Of the tables alone: what is recorded of a dictionary's units is held against a real pass elsewhere."""
    windows, wanted = fake.tables["spliced_windows"].to_dicts(), []
    for row in fake.tables["dictionaries"].to_dicts():
        own = [w for w in windows if w["dictionary_id"] == row["dictionary_id"]]
        n = sum(w["n"] for w in own)
        facts = {name: row[name] for name in ("units", "kind", "form", "reads", "writes", "n_units", "source")}
        facts |= {"n_recorded": 0, "n_windows": len(own) or None, "n_spliced": n or None}
        if own:
            centred = row["whole_squares"] - sum(total**2 for total in row["whole_sums"]) / row["n"]
            loss, spliced, ablated = (sum(w[name] for w in own) / n for name in ("loss", "spliced", "ablated"))
            facts |= {"variance_explained": 1 - row["error_squares"] / centred, "loss": loss, "loss_spliced": spliced}
            facts |= {"active_units": row["active_units"] / row["n"], "loss_ablated": ablated}
            facts |= {"loss_added": spliced - loss, "loss_recovered": (ablated - spliced) / (ablated - loss)}
        wanted.append(facts)
    found = query.run(db, "dictionaries")
    names = [name for name in found.columns if name in wanted[0]]
    brute.agree(found.select(names), [{name: facts.get(name) for name in names} for facts in wanted])


@check
def drops(fake: fake_run.FakeRun, db: query.Connection) -> None:
    brute.agree(query.run(db, "drops"), fake.tables["drops"].sort("reason").to_dicts())


@check
def table_sizes(fake: fake_run.FakeRun, db: query.Connection) -> None:
    found = query.run(db, "table_sizes")
    assert dict(found.select("table_name", "n_rows").iter_rows()) == {k: len(v) for k, v in fake.tables.items()}
    assert set(found["table_name"]) == set(re.findall(r"storage_of\('(\w+)'\)", query.sql_text("table_sizes")))
    assert 0.5 * fake.path.stat().st_size < found["bytes"].sum() <= fake.path.stat().st_size


@check
def similar(fake: fake_run.FakeRun, db: query.Connection) -> None:
    dense, domains = brute.column(fake, "dense"), brute.column(fake, "domain")
    classes = brute.column(fake, "class")
    edges = fake.tables["bins"].filter(pl.col("resolution") == "density").sort("bin")
    low, high = edges["lo"].to_numpy(), edges["hi"].to_numpy()
    middles = np.where(np.isinf(low), high, np.where(np.isinf(high), low, (low + high) / 2))

    def centred(i: int) -> np.ndarray:
        x = fake.activation[i].astype(float).copy()
        for domain in set(domains[dense]):
            x[domains == domain] -= x[dense & (domains == domain)].mean()
        return x[dense]

    def shares(i: int) -> np.ndarray:
        m = np.abs(fake.dla[i])
        sums = np.array([m[fake.ordinary & (classes == k)].sum() for k in sorted(set(classes[fake.ordinary]))])
        return sums / sums.sum() if sums.sum() else 0 * sums

    def steps(i: int) -> dict[float, float]:
        x = middles[fake_run.bin_of(fake.activation[i][fake.ordinary], 16)]
        scale = np.sqrt((x**2).mean())
        if not scale:
            return {}
        step = [0.0 if abs(v) * 64 < scale else np.sign(v) * (np.floor(4 * np.log2(abs(v) / scale)) + 25) for v in x]
        return {float(k): float(np.mean(np.array(step) == k)) for k in set(step)}

    own = fake.row("L0N1")
    wanted = []
    for c in live(fake):
        if c["kind"] == "neuron" and c["component"] != "L0N1":
            i, spectrum = c["component_id"], steps(c["component_id"])
            x, y = centred(i), centred(own)
            wanted.append(
                {
                    "component": c["component"],
                    "coactivation": (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()) if x.any() else None,
                    "classes": np.minimum(shares(i), shares(own)).sum(),
                    "spectrum": sum(min(p, spectrum.get(k, 0.0)) for k, p in steps(own).items()),
                }
            )
    for name in ("coactivation", "classes", "spectrum"):
        known = sorted((r for r in wanted if r[name] is not None), key=lambda r: -abs(r[name]))
        found = query.run(db, "similar", component="L0N1", measure=name, top=0)
        assert found[name].drop_nulls().abs().to_list() == pytest.approx([abs(r[name]) for r in known], abs=1e-6)
        assert found[f"{name}_median"][0] == pytest.approx(np.median([abs(r[name]) for r in known]), abs=1e-6)
        mine = {r["component"]: r for r in wanted}
        for row in found.to_dicts():
            for measure in ("coactivation", "classes", "spectrum"):
                assert row[measure] == pytest.approx(mine[row["component"]][measure], abs=1e-6)


@check
def components_by_token(fake: fake_run.FakeRun, db: query.Connection) -> None:
    tokens, texts = brute.column(fake, "token_id"), fake.tables["tokens"]["token"].to_list()
    sums, effects = fake.tables["token_sums"], fake.tables["logit_effects"]
    for token in (texts[int(tokens[fake.ordinary][0])], texts[int(effects["token_id"][0])]):
        use = fake.ordinary & np.array([texts[t] == token for t in tokens])
        wanted = []
        for c in live(fake):
            i = c["component_id"]
            if i in set(sums["component_id"]) and use.sum() >= 2:
                m = np.abs(fake.dla[i])
                lift = m[use].mean() / m[fake.ordinary].mean() if m.any() else None
                wanted.append({"way": "at", "component": c["component"], "lift": lift, "n": int(use.sum())})
                wanted[-1] |= {"activation": fake.activation[i][use].mean(), "abs_dla": m[use].mean(), "effect": None}
            own = effects.filter((pl.col("component_id") == i) & (pl.col("effect") > 0))
            for t, effect in own.select("token_id", "effect").rows():
                if texts[t] == token:
                    wanted.append({"way": "toward", "component": c["component"], "effect": effect, "lift": None})
        found = query.run(db, "components_by_token", token=token, least=2, top=0)
        assert len(found) == len(wanted) > 0
        mine = {(r["way"], r["component"]): r for r in wanted}
        for row in found.to_dicts():
            for name, value in mine[row["way"], row["component"]].items():
                assert row[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)
        for way, name in (("at", "lift"), ("toward", "effect")):
            ordered = found.filter(pl.col("way") == way)[name].drop_nulls().to_list()
            assert ordered == sorted(ordered, reverse=True)
