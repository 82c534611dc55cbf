"""Slow recomputations of the queries that compare: domains (polysemantic) and kinds of evidence (agreement)."""

import brute
import numpy as np
import polars as pl
from brute_behaviours import CHECKS, PRIORITY, WHITE, Kept, bounds, check, documents, kept, number, ratio, reached
from fake_run import FakeRun, build
from fake_values import CLASSES, VOCABULARY
from scipy import stats

from profiler.database import query

__all__ = ["CHECKS"]
CONTEXT = WHITE[:6]


def log_ratio(k: Kept, name: str, use: np.ndarray, prior: float) -> float:
    """Log of mean |DLA| where a behaviour holds over mean |DLA| elsewhere, in one domain, drawn to 0 by `prior`."""
    m, w, h = k.m * use, k.weight * use, k.holds[name]
    rate = w[h].sum() / w.sum()
    held, rest = (m[h].sum() * (1 - rate) / m.sum(), m[~h].sum() * rate / m.sum())
    return float(np.log((held + prior) / (rest + prior)))


def by_domain(fake: FakeRun, label: str) -> dict[tuple[str, str], dict]:
    """What is known of each context behaviour in each domain: its log ratio, variance, degrees of freedom,
    coverages."""
    k, found = kept(fake, label), {}
    for domain in sorted(set(k.domain.tolist())):
        part = k.only(k.domain == domain)
        for name in CONTEXT:
            h, everywhere = part.holds[name], np.ones(len(part.m))
            rate, coverage = part.weight[h].sum() / part.weight.sum(), part.m[h].sum() / part.m.sum()
            cell = {"coverage": coverage, "above": coverage - rate, "testable": 0 < rate < 1}
            if cell["testable"]:
                prior = 0.5 * rate * (1 - rate) / documents(part, part.m)
                groups = part.design[domain]
                left = np.array([log_ratio(part, name, (part.group != g) * 1.0, prior) for g in groups])
                cell["value"] = log_ratio(part, name, everywhere, prior)
                cell["variance"] = (len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum()
                cell["df"] = len(left) - 1
                cell["testable"] = min(documents(part, part.weight * side) for side in (h, ~h)) >= 10
            found[name, domain] = cell
    return found


@check
def polysemantic(fake: FakeRun, db: query.Connection) -> None:
    """On a run with enough positions that claims can be tested."""
    fake, wanted = build(fake.path.with_name("many.duckdb"), n_documents=150, n_dense=400), []
    for label in fake.components.filter(kind="neuron")["component"]:
        if not fake.dla[fake.row(label)].any():
            continue
        cells, tests = by_domain(fake, label), []
        for name in CONTEXT:
            a, b = cells[name, "code"], cells[name, "docs"]
            if a["testable"] and b["testable"]:
                total = a["variance"] + b["variance"]
                df = total**2 / sum(x["variance"] ** 2 / x["df"] for x in (a, b))
                times = a["value"] - b["value"]
                half = stats.t.ppf(0.975, np.floor(df + 1e-6)) * np.sqrt(total)
                p = 2 * stats.t.sf(abs(times) / np.sqrt(total), df)
                tests.append((p, name, a["above"] - b["above"], *np.exp([times, times - half, times + half])))
        names = [max(sorted(CONTEXT), key=lambda n, d=d: round(cells[n, d]["above"], 9)) for d in ("code", "docs")]
        if tests:
            least = min(tests)
            wanted.append((min(1.0, least[0] * len(tests)), label, least[1], least[2:], names, len(tests)))
    found = query.run(fake.path, "polysemantic", kind="neuron", family="context")
    assert len(wanted) >= 4
    wanted.sort()
    q = stats.false_discovery_control([row[0] for row in wanted])
    for row, (p, label, name, numbers, names, tests), adjusted in zip(found.to_dicts(), wanted, q, strict=True):
        assert (row["component"], row["behaviour"], row["behaviours"], row["tests"]) == (label, name, names, tests)
        assert row["differs"] == (names[0] != names[1] and adjusted < 0.05)
        for column, figure in zip(("difference", "times", "times_lo", "times_hi"), numbers, strict=True):
            assert brute.same(row[column], float(figure))
        assert np.isclose(row["p"], p, rtol=0.05)
        assert np.isclose(row["q"], adjusted, rtol=0.05)
    assert query.run(db, "polysemantic", kind="neuron", family="context", top=2).height <= 2


def kappa(active: np.ndarray, boosted: np.ndarray, weight: np.ndarray) -> float:
    """Cohen's kappa of two weighted yes-or-no raters, from the 2 x 2 table."""
    table = np.array([[weight[(active == i) & (boosted == j)].sum() for j in (0, 1)] for i in (0, 1)]) / weight.sum()
    expected = (table.sum(0) * table.sum(1)).sum()
    return float((np.trace(table) - expected) / (1 - expected))


@check
def agreement(fake: FakeRun, db: query.Connection) -> None:
    effects = fake.tables["logit_effects"].filter(pl.col("side") == "boosted")
    names = [name for name, _, _ in CLASSES]
    seen = 0
    for label in ("L0N1", "L1N5"):
        i, k = fake.row(label), kept(fake, label)
        tokens = effects.filter(pl.col("component_id") == i)["token_id"]
        classes = sorted(names[VOCABULARY[t][1]] for t in tokens)
        boosted = max(sorted(set(classes)), key=classes.count)
        at = fake.positions.join(pl.DataFrame({"position_id": k.position}), on="position_id", maintain_order="right")
        following = at["next_class"].to_numpy()
        level = fake.tables["quantiles"].filter(pl.col("component_id") == i, pl.col("quantile") == 0.9)["level"][0]
        active = reached(k.activation, level)
        value = kappa(active, following == boosted, k.weight)

        def again(domain: str, g: int, scale: float, k: Kept = k, active=active, agreed=following == boosted) -> float:
            return kappa(
                active, agreed, k.weight * np.where(k.group == g, 0.0, np.where(k.domain == domain, scale, 1.0))
            )

        se, t = brute.combine(k.design, again, value)
        share = lambda mask, c, k=k, f=following: k.weight[mask & (f == c)].sum() / k.weight[mask].sum()  # noqa: E731
        every = np.ones(len(active), bool)
        rises = {c: round(share(active, c) - share(every, c), 9) for c in sorted(set(following.tolist()))}
        want = {
            "n": len(k.m),
            "boosted_class": boosted,
            "active_class": max(rises, key=lambda c, r=rises: r[c]),
            "kappa": value,
            "kappa_se": se,
            "kappa_lo": value - t * se,
            "active_rate": (k.weight * active).sum() / k.weight.sum(),
        }
        brute.agree(query.run(db, "agreement", component=label, quantile=0.9), [want])
        seen += 1
    assert seen == 2
    assert query.run(db, "agreement", top=3)["kappa"].is_sorted(descending=True)


@check
def token_split(fake: FakeRun, db: query.Connection) -> None:
    for label in ("L1H0", "L1N1"):
        i, use = fake.row(label), fake.ordinary
        found = query.run(db, "token_split", component=label)
        at = np.array([number(VOCABULARY[t][0]) for t in brute.column(fake, "token_id")])
        a, d = fake.activation[i], fake.dla[i]
        want = {
            "n": int((use & at).sum()),
            "share_n": (use & at).sum() / use.sum(),
            "activation": a[use & at].mean(),
            "activation_rest": a[use & ~at].mean(),
            "dla": d[use & at].mean(),
            "dla_rest": d[use & ~at].mean(),
            "abs_dla": np.abs(d[use & at]).mean(),
            "share_abs_dla": np.abs(d[use & at]).sum() / np.abs(d[use]).sum(),
            "of_user": False,
        }
        want["lift"] = want["share_abs_dla"] / want["share_n"]
        k = kept(fake, label)
        _, se, t = ratio(k, k.m * k.holds["on_number"], k.m)
        low, high = bounds(want["share_abs_dla"], se, t, documents(k, k.m))
        coming, coming_se, coming_t = ratio(k, k.m * k.holds["before_number"], k.m)
        coming_low, coming_high = bounds(coming, coming_se, coming_t, documents(k, k.m))
        want |= {
            "share_abs_dla_se": se,
            "share_abs_dla_lo": low,
            "share_abs_dla_hi": high,
            "next_share_abs_dla": coming,
            "next_share_abs_dla_lo": coming_low,
            "next_share_abs_dla_hi": coming_high,
        }
        assert low < want["share_abs_dla"] < high
        brute.agree(found.filter(pl.col("property") == "number"), [want])
    assert query.run(db, "token_split", component="L0N1").is_empty()
    assert query.run(db, "token_split", component="L1H0", property="year")["property"].to_list() == ["year"]


@check
def head_effects(fake: FakeRun, db: query.Connection) -> None:
    k, found = kept(fake, "L1H0"), query.run(db, "head_effects", component="L1H0")
    seen = 0
    for behaviour in [*PRIORITY, "prefix_induction"]:
        for effect in ("copies", "suppresses", "neither"):
            h = k.holds[behaviour]
            both = h & k.holds[effect]
            row = found.filter(pl.col("behaviour") == behaviour, pl.col("effect") == effect)
            if not both.any():
                assert row.is_empty()
                continue
            seen += 1
            part = k.only(h)
            p, se, t = ratio(part, part.m * part.holds[effect], part.m)
            low, high = bounds(p, se, t, documents(part, part.m))
            want = {"n": int(both.sum()), "share": p, "share_lo": low, "share_hi": high}
            brute.agree(row, [want | {"coverage": (k.m * both).sum() / k.m.sum()}])
    assert seen == len(found) > 6
