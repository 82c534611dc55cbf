"""Slow recomputations of the queries that compare: domains (polysemantic) and kinds of evidence (agreement)."""

import brute
import numpy as np
import polars as pl
from brute_behaviours import CHECKS, PRIORITY, bounds, check, documents, kept, number, ratio
from fake_run import FakeRun
from fake_values import CLASSES, VOCABULARY
from scipy import stats

from profiler import query

__all__ = ["CHECKS"]


def by_domain(fake: FakeRun, label: str) -> dict[tuple[str, str], tuple[float, float | None, int]]:
    """Coverage, standard error and number of groups of each attention behaviour in each domain."""
    k, found = kept(fake, label), {}
    for domain in sorted(set(k.domain.tolist())):
        part = k.only(k.domain == domain)
        groups = len(set(part.group.tolist()))
        for name in PRIORITY:
            p, se = ratio(part.group, part.m * part.holds[name], part.m, groups)
            if se is not None and (p <= 0 or p >= 1):
                se = max(se, 1 / (documents(part, part.m) + 2))
            found[name, domain] = p, se, groups
    return found


@check
def polysemantic(fake: FakeRun, db: query.Connection) -> None:
    wanted = []
    for label in ("L0H0", "L0H1", "L1H0", "L1H1"):
        cells, tests = by_domain(fake, label), []
        for name in PRIORITY:
            (p, se_p, g_p), (r, se_r, g_r) = cells[name, "code"], cells[name, "docs"]
            se = np.hypot(se_p, se_r)
            if se > 0:
                tests.append((2 * stats.t.sf(abs(p - r) / se, g_p + g_r - 2), name, p - r))
        least = min(tests)
        names = [max(PRIORITY, key=lambda n, d=d: cells[n, d][0]) for d in ("code", "docs")]
        wanted.append((min(1.0, least[0] * len(tests)), label, least[1], least[2], names))
    found = query.run(db, "polysemantic")
    wanted.sort()
    q = stats.false_discovery_control([row[0] for row in wanted])
    for row, (p, label, name, difference, names), adjusted in zip(found.to_dicts(), wanted, q, strict=True):
        assert (row["component"], row["behaviour"], row["behaviours"]) == (label, name, names)
        assert row["differs"] == (names[0] != names[1])
        assert brute.same(row["difference"], difference)
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
        level = fake.tables["quantiles"].filter(pl.col("component_id") == i, pl.col("quantile") == 0.9)["value"][0]
        active = k.activation >= level
        value = kappa(active, following == boosted, k.weight)
        left = [kappa(*(x[k.group != g] for x in (active, following == boosted, k.weight))) for g in set(k.group.tolist())]  # fmt: skip
        se = float(np.sqrt((k.n_groups - 1) / k.n_groups * sum((x - value) ** 2 for x in left)))
        share = lambda mask, c, k=k, f=following: k.weight[mask & (f == c)].sum() / k.weight[mask].sum()  # noqa: E731
        every = np.ones(len(active), bool)
        rises = {c: round(share(active, c) - share(every, c), 9) for c in sorted(set(following.tolist()))}
        want = {"n": len(k.m), "boosted_class": boosted, "active_class": max(rises, key=lambda c, r=rises: r[c]), "kappa": value,
                "kappa_se": se, "kappa_lo": value - brute.t(k.n_groups) * se, "active_rate": (k.weight * active).sum() / k.weight.sum()}  # fmt: skip
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
        want = {"n": int((use & at).sum()), "share_n": (use & at).sum() / use.sum(), "activation": a[use & at].mean(), "activation_rest": a[use & ~at].mean(),
                "dla": d[use & at].mean(), "dla_rest": d[use & ~at].mean(), "abs_dla": np.abs(d[use & at]).mean(),
                "share_abs_dla": np.abs(d[use & at]).sum() / np.abs(d[use]).sum(), "of_user": False}  # fmt: skip
        want["lift"] = want["share_abs_dla"] / want["share_n"]
        k = kept(fake, label)
        _, se = ratio(k.group, k.m * k.holds["on_number"], k.m, k.n_groups)
        low, high = bounds(want["share_abs_dla"], se, k.n_groups, documents(k, k.m))
        coming, coming_se = ratio(k.group, k.m * k.holds["before_number"], k.m, k.n_groups)
        coming_low, coming_high = bounds(coming, coming_se, k.n_groups, documents(k, k.m))
        want |= {"share_abs_dla_se": se, "share_abs_dla_lo": low, "share_abs_dla_hi": high, "next_share_abs_dla": coming,
                 "next_share_abs_dla_lo": coming_low, "next_share_abs_dla_hi": coming_high}  # fmt: skip
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
            p, se = ratio(part.group, part.m * part.holds[effect], part.m, k.n_groups)
            low, high = bounds(p, se, k.n_groups, documents(part, part.m))
            want = {"n": int(both.sum()), "share": p, "share_lo": low, "share_hi": high}
            brute.agree(row, [want | {"coverage": (k.m * both).sum() / k.m.sum()}])
    assert seen == len(found) > 6
