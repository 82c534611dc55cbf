"""Slow recomputations of the queries about behaviours, from the raw values of a fake run, in numpy and plain Python.

Conditions are looked up again in Python from the texts and tokens, weights from sets of positions. A query is compared
for one head (uniform sample) and for one neuron (uniform and stratified samples together).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import brute
import numpy as np
import polars as pl
from fake_run import FakeRun, bin_of
from fake_tables import factors_of
from fake_values import CLASSES, VOCABULARY
from polars.testing import assert_frame_equal

from profiler.database import query

CHECKS: dict[str, Callable[[FakeRun, query.Connection], None]] = {}
PRIORITY = [
    "induction",
    "duplicate",
    "previous_token",
    "two_back",
    "self",
    "newline",
    "delimiter",
    "first_token",
    "diffuse",
]
WHITE = [
    "repeated",
    "prefix_repeated",
    "in_brackets",
    "in_quotes",
    "after_newline",
    "early",
    "on_number",
    "before_number",
    "on_newline",
]


def check(function: Callable) -> Callable:
    """Register the recomputation of the query that the function is named after."""
    CHECKS[function.__name__] = function
    return function


@dataclass(frozen=True)
class Kept:
    """A component's kept rows: one entry per row in each array; `m` is weight * |DLA|, `holds` by behaviour."""

    label: str
    design: brute.Design
    group: np.ndarray
    document: np.ndarray
    domain: np.ndarray
    position: np.ndarray
    activation: np.ndarray
    weight: np.ndarray
    m: np.ndarray
    holds: dict[str, np.ndarray]

    def only(self, mask: np.ndarray) -> "Kept":
        """The rows of a mask."""
        arrays = {k: v[mask] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return Kept(self.label, self.design, **arrays, holds={k: v[mask] for k, v in self.holds.items()})


def number(text: str) -> bool:
    return re.fullmatch(r"\d+([.,]\d+)?", text.strip(" ")) is not None


def context_flags(rows: pl.DataFrame) -> dict[str, np.ndarray]:
    texts = [text for text, _ in VOCABULARY]
    special = {i for i, (_, c) in enumerate(VOCABULARY) if CLASSES[c][2]}
    has = lambda ids, test: np.array([t not in special and test(texts[t]) for t in ids])  # noqa: E731
    line = lambda text: "\n" in text or "\r" in text  # noqa: E731
    return {
        "repeated": rows["distance"].is_not_null().to_numpy(),
        "prefix_repeated": rows["prefix_match"].to_numpy() >= 2,
        "in_brackets": rows["bracket_depth"].to_numpy() > 0,
        "in_quotes": rows["in_quotes"].to_numpy(),
        "early": rows["offset"].to_numpy() < 16,
        "after_newline": has(rows["previous_token_id"], line),
        "on_newline": has(rows["token_id"], line),
        "on_number": has(rows["token_id"], number),
        "before_number": has(rows["next_token_id"], number),
    }


def kept(fake: FakeRun, label: str) -> Kept:
    """The kept rows of a head or a neuron, with the weight of each."""
    i, head = fake.row(label), "H" in label
    dense, ordinary = brute.column(fake, "dense"), fake.ordinary
    samples = fake.tables["sample_rows"].filter(pl.col("component_id") == i)["position_id"].to_list()
    use = dense.copy() if head else dense | np.isin(brute.column(fake, "position_id"), samples)
    bins = np.zeros(len(use), int) if head else bin_of(fake.activation[i], 2)
    weight = np.zeros(len(use))
    for b in np.unique(bins[ordinary]):
        weight[use & (bins == b)] = (ordinary & (bins == b)).sum() / max(1, (use & (bins == b)).sum())
    rows = fake.positions.filter(pl.Series(use))
    flags = context_flags(rows)
    if head:
        a = fake.tables["head_attention_rows"].filter(pl.col("component_id") == i)
        a = rows.select("position_id").join(a, on="position_id", how="left", maintain_order="left")
        single = {name: a[name].cast(pl.Float32).cast(pl.Float64).to_numpy() for name in a.columns}
        flags |= {name: single[name] >= 0.5 for name in [*PRIORITY[:-1], "prefix_induction"]}
        flags["diffuse"], copied = single["entropy"] >= 3.0, single["dla_to_attended"]
        flags |= {"copies": copied >= 0.1, "suppresses": copied <= -0.1, "neither": np.abs(copied) < 0.1}
    columns = [rows[c].to_numpy() for c in ("group_id", "doc_id", "domain", "position_id")]
    weight = weight[use]
    m = weight * np.abs(fake.dla[i][use])
    return Kept(label, brute.design(fake), *columns, fake.activation[i][use], weight, m, flags)


def ratio(k: Kept, part: np.ndarray, whole: np.ndarray) -> tuple[float, float | None, float | None]:
    """sum(part) / sum(whole), its standard error and t, each replicate group left out of its domain in turn."""
    value = float(part.sum() / whole.sum())

    def again(domain: str, g: int, scale: float) -> float:
        use = np.where(k.group == g, 0.0, np.where(k.domain == domain, scale, 1.0))
        return (part * use).sum() / (whole * use).sum()

    return value, *brute.combine(k.design, again, value)


def documents(k: Kept, size: np.ndarray) -> float:
    """Kish's effective number of documents."""
    totals = np.array([size[k.document == d].sum() for d in set(k.document.tolist())])
    return float(totals.sum() ** 2 / (totals**2).sum())


def bounds(p: float, se: float | None, t: float | None, n: float) -> tuple[float | None, float | None]:
    """The interval of a share on the logit scale; the rule of three at 0 and 1."""
    if se is None:
        return None, None
    if p < 1e-12 or p > 1 - 1e-12:
        return (0.0, min(1.0, 3 / n)) if p < 0.5 else (max(0.0, 1 - 3 / n), 1.0)
    half = t * se / (p * (1 - p))
    return tuple(float(1 / (1 + np.exp(-(np.log(p / (1 - p)) + sign * half)))) for sign in (-1, 1))


def coverage(k: Kept, name: str) -> dict:
    h, N = k.holds[name], len(k.m)
    value, se, t = ratio(k, k.m * h, k.m)
    low, high = bounds(value, se, t, documents(k, k.m))
    mean = variance = 0.0
    for domain in set(k.domain.tolist()):
        at = k.domain == domain
        rate, n = (k.weight * h)[at].sum() / k.weight[at].sum(), at.sum()
        mean += k.m[at].sum() * rate / k.m.sum()
        variance += ((k.m[at] - k.m[at].mean()) ** 2).sum() * rate * (1 - rate) * n / (n - 1) / k.m.sum() ** 2
    return {
        "component": k.label,
        "behaviour": name,
        "n": N,
        "n_held": int(h.sum()),
        "coverage": value,
        "coverage_se": se,
        "coverage_lo": low,
        "coverage_hi": high,
        "base_rate": (k.weight * h).sum() / k.weight.sum(),
        "scrambled": mean,
        "scrambled_hi": min(1.0, mean + 1.959964 * np.sqrt(variance)),
        "effective_documents": documents(k, k.m),
    }


def peers(fake: FakeRun, label: str) -> list[str]:
    layer, kind = label[1], label[2]
    return [c for c in fake.components["component"] if c[1:3] == layer + kind and c != label]


@check
def behaviours(fake: FakeRun, db: query.Connection) -> None:
    for label, names in [("L1H0", [*PRIORITY, *WHITE, "copies", "neither"]), ("L0N1", WHITE), ("L1N5", WHITE)]:
        found = query.run(db, "behaviours", component=label, family="")
        mine, others = kept(fake, label), [kept(fake, peer) for peer in peers(fake, label)]
        for name in names:
            want = coverage(mine, name)
            rest = [(o.m * o.holds[name]).sum() / o.m.sum() for o in others if o.m.any()]
            want |= {"random": float(np.median(rest)), "random_hi": max(rest)}
            brute.agree(found.filter(pl.col("behaviour") == name), [want])
    for label, families in (("L1H0", {"attention"}), ("L0N1", {"token", "context"})):
        alone, whole = (
            query.run(db, "behaviours", component=label),
            query.run(db, "behaviours", component=label, family=""),
        )
        assert set(alone["family"]) == families
        asked = whole.filter(pl.col("family").is_in(list(families)))
        assert_frame_equal(alone, asked, rel_tol=1e-11, abs_tol=1e-12)  # another plan, another order of sums
    by_family = query.run(db, "behaviours", kind="head", family="effect", top=2)
    assert by_family["behaviour"].value_counts()["count"].to_list() == [2, 2, 2]


@check
def components_by_behaviour(fake: FakeRun, db: query.Connection) -> None:
    for name, kind, least in [
        ("previous_token", "head", 1),
        ("on_number", "", 1),
        ("repeated", "neuron", 3),
    ]:
        labels = [c for c in fake.components["component"] if re.fullmatch(r"L\d+[HN]\d+", c)]
        labels = [c for c in labels if kind in ("", "head" if "H" in c else "neuron")]
        wanted = []
        for label in labels:
            k = kept(fake, label)
            if name in k.holds and k.m.any():
                wanted.append(coverage(k, name) | {"kind": "head" if "H" in label else "neuron"})
        for row in wanted:
            row |= {end: row[f"coverage{end[4:]}"] for end in ("lift", "lift_lo", "lift_hi")}
            for end in ("lift", "lift_lo", "lift_hi"):
                row[end] = None if row[end] is None or not row["scrambled"] else row[end] / row["scrambled"]
            row["others"] = float(np.median([r["coverage"] for r in wanted if r["kind"] == row["kind"]]))
            del row["behaviour"], row["n"], row["coverage_se"], row["scrambled_hi"]
        shown = [row for row in wanted if row["n_held"] >= least and row["lift_lo"] is not None]
        act = "coverage_lo" if name == "previous_token" else "lift_lo"
        shown.sort(key=lambda row: (-round(row[act], 9), row["component"]))
        found = query.run(db, "components_by_behaviour", behaviour=name, kind=kind, least=least, top=0)
        brute.agree(found.drop("n_left_out"), shown)
        dead = len(labels) - len(wanted)
        assert set(found["n_left_out"]) == {len(wanted) + dead - len(shown)}
        top = query.run(db, "components_by_behaviour", behaviour=name, kind=kind, least=least, top=2)
        assert top["component"].to_list() == [row["component"] for row in shown[:2]]


def depth_of(k: Kept, weight: np.ndarray) -> np.ndarray:
    """How deep each row lies in the order of |DLA|, as a share of all `weight`."""
    order = np.lexsort((k.position, -(k.m / k.weight)))
    found = np.empty(len(order))
    found[order] = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    return found


@check
def coverage_curve(fake: FakeRun, db: query.Connection) -> None:
    for label, name in [("L1H0", "previous_token"), ("L1N5", "repeated")]:
        k, wanted = kept(fake, label), []
        for top in [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]:

            def at(use: np.ndarray, k: Kept = k, top: float = top, name: str = name) -> float:
                inside = np.where(use > 0, depth_of(k, k.weight * use) <= top * (1 + 1e-9), False)
                return (k.m * use * k.holds[name] * inside).sum() / (k.m * use * inside).sum()

            def again(domain: str, g: int, scale: float, k: Kept = k, at: Callable = at) -> float:
                return at(np.where(k.group == g, 0.0, np.where(k.domain == domain, scale, 1.0)))

            part = k.only(depth_of(k, k.weight) <= top * (1 + 1e-9))
            if len(part.m) and part.m.sum() > 0:
                value = at(np.ones(len(k.m)))
                low, high = bounds(value, *brute.combine(k.design, again, value), documents(part, part.m))
                wanted.append(
                    {"top": top, "n": len(part.m), "coverage": value, "coverage_lo": low, "coverage_hi": high}
                )
                wanted[-1]["importance_share"] = part.m.sum() / k.m.sum()
        assert wanted[-1]["coverage_lo"] is not None
        brute.agree(query.run(db, "coverage_curve", component=label, behaviour=name), wanted)


@check
def precision_recall(fake: FakeRun, db: query.Connection) -> None:
    for label, name in [("L1H0", "previous_token"), ("L0N1", "on_number")]:
        k = kept(fake, label)
        levels = fake.tables["quantiles"].filter(pl.col("component_id") == fake.row(label), pl.col("quantile") >= 0.5)
        wanted = []
        for q, value in [(0.0, -np.inf), *levels.drop_nulls().select("quantile", "level").sort("quantile").iter_rows()]:
            over, everywhere = (
                reached(x, value) for x in (k.activation, fake.activation[fake.row(label)][fake.ordinary])
            )
            active, h = over * k.weight, k.holds[name] * k.weight
            both = active * k.holds[name]
            row = {"quantile": q, "reached": everywhere.mean(), "n": int(over.sum())}
            for measure, whole in [("precision", active), ("recall", h)]:
                p, se, t = ratio(k, both, whole) if whole.sum() else (None, None, None)
                low, high = bounds(p, se, t, documents(k, whole)) if p is not None else (None, None)
                row |= {measure: p, f"{measure}_lo": low, f"{measure}_hi": high}
            wanted.append(row)
        brute.agree(query.run(db, "precision_recall", component=label, behaviour=name), wanted)


def reached(activation: np.ndarray, level: float) -> np.ndarray:
    """Whether the density bin of an activation lies above an edge; an edge below zero belongs to the bin under it."""
    if not np.isfinite(level):
        return np.ones(len(activation), bool)
    return bin_of(activation, 16) > bin_of(np.array([np.nextafter(level, -np.inf) if level > 0 else level]), 16)[0]


def band_of(fake: FakeRun, k: Kept) -> np.ndarray:
    rows = fake.tables["quantiles"].filter(pl.col("component_id") == fake.row(k.label))
    band = np.zeros(len(k.m))
    for q, level in rows.drop_nulls().select("quantile", "level").sort("quantile").iter_rows():
        if q in (0.5, 0.75, 0.9, 0.95, 0.99):
            band = np.where(reached(k.activation, level), q, band)
    return band


def shares(k: Kept, names: list[str], equal: bool) -> dict[str, np.ndarray]:
    """The part of each row that each behaviour takes, `unexplained` too."""
    held = np.array([k.holds[name] for name in names])
    count = held.sum(0)
    parts = np.where(held, 1 / np.maximum(count, 1), 0) if equal else held & (np.cumsum(held, 0) == 1)
    return dict(zip(names, parts.astype(float), strict=True)) | {"unexplained": (count == 0).astype(float)}


@check
def mixture(fake: FakeRun, db: query.Connection) -> None:
    cases = [("L1H0", PRIORITY, {}), ("L1H0", PRIORITY, {"rule": "equal"})]
    cases.append(("L0N1", ["early", "on_number", "repeated"], {"behaviours": "early,on_number, repeated"}))
    for label, names, parameters in cases:
        k = kept(fake, label)
        parts, band = shares(k, names, parameters.get("rule") == "equal"), band_of(fake, k)
        found = query.run(db, "mixture", component=label, **parameters)
        slices = [("all", "all", np.ones(len(k.m), bool))]
        slices += [("domain", d, k.domain == d) for d in sorted(set(k.domain))]
        slices += [("quantile", f"{b:g}", band == b) for b in sorted(set(band))]
        seen = 0
        for name, value, at in slices:
            rows = found.filter(pl.col("slice") == name, pl.col("value") == value)
            assert rows["share"].sum() == 1 or abs(rows["share"].sum() - 1) < 1e-9
            for behaviour, part in parts.items():
                want, se, t = ratio(k.only(at), (k.m * part)[at], k.m[at])
                low, high = bounds(want, se, t, documents(k.only(at), k.m[at]))
                rates = {
                    d: (k.weight * part)[k.domain == d].sum() / k.weight[k.domain == d].sum() for d in set(k.domain)
                }
                chance = sum(k.m[at & (k.domain == d)].sum() * rate for d, rate in rates.items()) / k.m[at].sum()
                beside = {"scrambled": chance, "share_n": k.weight[at].sum() / k.weight.sum()}
                row = rows.filter(pl.col("behaviour") == behaviour)
                if (part[at] > 0).any() or behaviour == "unexplained":
                    brute.agree(row, [beside | {"share": want, "share_se": se, "share_lo": low, "share_hi": high}])
                    seen += 1
                else:
                    assert row.is_empty()
        assert seen == len(found)


@check
def unexplained(fake: FakeRun, db: query.Connection) -> None:
    k = kept(fake, "L1H0")
    rest = shares(k, PRIORITY, False)["unexplained"] > 0
    order = np.lexsort((k.position, -k.m / k.weight))
    wanted = [int(k.position[i]) for i in order if rest[i]]
    found = query.run(db, "unexplained", component="L1H0", top=0)
    assert found["position_id"].to_list() == wanted
    assert found["share_of_unexplained"].sum() == 1 or abs(found["share_of_unexplained"].sum() - 1) < 1e-9
    brute.agree(found.head(1), [brute.context(fake, wanted[0])], ["context_before", "token", "next_token", "domain"])
    assert query.run(db, "unexplained", component="L1H0", top=3)["position_id"].to_list() == wanted[:3]


@check
def gate_quadrants(fake: FakeRun, db: query.Connection) -> None:
    """Counts, shares with their intervals and tokens, from the planted factors at every position."""
    label, i = "L0N1", fake.row("L0N1")
    gates, values = (f[i] > 0 for f in factors_of(fake.positions, fake.components))
    size, dense = np.abs(fake.dla[i]), brute.column(fake, "dense")
    wanted = []
    for gate, value in ((True, True), (True, False), (False, True), (False, False)):
        inside = (gates == gate) & (values == value)
        share = lambda w, inside=inside: (w * inside * size).sum() / (w * size).sum()  # noqa: E731
        mean = lambda w, inside=inside: (w * inside * fake.dla[i]).sum() / (w * inside).sum()  # noqa: E731
        ordinary = fake.ordinary.astype(float)
        row = {"quadrant": f"gate {'> 0' if gate else '<= 0'}, value {'> 0' if value else '<= 0'}"}
        row |= {"n": int((inside & fake.ordinary).sum())}
        row |= {"share_n": row["n"] / fake.ordinary.sum(), "share_abs_dla": share(ordinary), "dla": mean(ordinary)}
        for name, statistic in (("share_abs_dla", share), ("dla", mean)):
            _, half = brute.error(fake, statistic)
            row |= {f"{name}_lo": row[name] - half, f"{name}_hi": row[name] + half}
        row["share_abs_dla_lo"], row["share_abs_dla_hi"] = (
            max(0.0, row["share_abs_dla_lo"]),
            min(1.0, row["share_abs_dla_hi"]),
        )
        sizes: dict[str, float] = {}
        for at in np.flatnonzero(inside & dense):
            token = VOCABULARY[fake.positions["token_id"][int(at)]][0]
            sizes[token] = sizes.get(token, 0.0) + float(np.float32(size[at]))
        tokens = sorted(sizes, key=lambda token: (-sizes[token], token.encode()))[:3]
        row["top_tokens"] = "  ".join(token.strip(" ") for token in tokens)
        wanted.append(row)
    brute.agree(query.run(db, "gate_quadrants", component=label, shown=3), wanted)
    assert query.run(db, "gate_quadrants", component="L0H1").is_empty()


@check
def importance_by_class(fake: FakeRun, db: query.Connection) -> None:
    """Shares of either importance by class, where total effects are known."""
    label = "L0N1"
    k, total = kept(fake, label), brute.totals(fake, label)
    k = k.only(np.isin(k.position, fake.positions.filter("dense")["position_id"].to_numpy()))
    k = k.only(np.array([p in total for p in k.position.tolist()]))
    classes = dict(fake.positions.select("position_id", "class").iter_rows())
    sizes = {"total": np.array([abs(total[p]) for p in k.position.tolist()]), "direct": k.m / k.weight}
    wanted = []
    for name in sorted({classes[p] for p in k.position.tolist()}):
        inside = np.array([classes[p] == name for p in k.position.tolist()])
        row = {"class": name, "n": int(inside.sum()), "base_rate": inside.mean()}
        for which, size in sizes.items():
            value, se, t = ratio(k, size * inside, size)
            low, high = bounds(value, se, t, documents(k, size))
            row |= {f"{which}_share": value, f"{which}_share_lo": low, f"{which}_share_hi": high}
        wanted.append(row)
    brute.agree(query.run(db, "importance_by_class", component=label).sort("class"), wanted)


@check
def rarity(fake: FakeRun, db: query.Connection) -> None:
    k, found = kept(fake, "L1H0"), query.run(db, "rarity", component="L1H0")
    effects, n = {}, len(k.m)
    for name in found["behaviour"]:
        if name in k.holds:
            p, se, _ = ratio(k, k.weight * k.holds[name], k.weight)
            effects[name] = max(1.0, se**2 / (p * (1 - p) / n)) if 0 < p < 1 else 1.0
    for name, effect in effects.items():
        row, held = found.row(by_predicate=pl.col("behaviour") == name, named=True), int(k.holds[name].sum())
        assert (row["n"], row["n_held"]) == (n, held)
        if held >= 10:
            assert brute.same(row["design_effect"], effect)
        assert row["n_needed"] == int(np.ceil(np.log(0.05) / np.log(1 - 1e-4) * row["design_effect"]))
        assert (row["verdict"] == "seen") == (held > 0)
    often = np.quantile(found.filter(pl.col("n_held") >= 10)["design_effect"].to_numpy(), 0.9)
    few = found.filter(pl.col("n_held") < 10)["design_effect"]
    assert few.min() >= often - 1e-9
    never = found.filter(pl.col("n_held") == 0).row(0, named=True)
    assert brute.same(never["design_effect"], often)
    assert never["verdict"] == "undetectable at this n"
    assert brute.same(never["rate_hi"], min(1.0, 3 * never["design_effect"] / n))
