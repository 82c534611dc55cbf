"""Slow recomputations from the raw values of a fake run, in numpy and polars: what the views and queries must agree
with."""

from collections.abc import Callable

import numpy as np
import polars as pl
from fake_run import FakeRun
from scipy import stats

from profiler.text.token_classes import join_texts

AXES = {"class": "class", "next_class": "next_class", "position": "bucket", "domain": "domain"}


def column(fake: FakeRun, name: str) -> np.ndarray:
    """A column of the positions as an array."""
    return fake.positions[name].to_numpy()


def totals(fake: FakeRun, label: str) -> dict[int, float]:
    """Total effect of a component by position, where it was planted."""
    ids = column(fake, "position_id")
    size = fake.dla[fake.row(label)] * (1 + 2 * (ids % 2))
    return {int(p): float(np.float32(t)) for p, t in zip(ids, size, strict=True) if p % 5}


Design = dict[str, dict[int, float]]


def design(fake: FakeRun) -> Design:
    """By domain, each replicate group's part of the domain's documents."""
    documents = fake.tables["documents"]
    return {
        domain: {g: (rows["group_id"] == g).mean() for g in rows["group_id"].unique().sort()}
        for (domain,), rows in documents.group_by("domain", maintain_order=True)
    }


def combine(
    parts: Design, estimate: Callable[[str, int, float], float], whole: float
) -> tuple[float | None, float | None]:
    """Standard error and t of a stratified jackknife: `estimate` again without each group in turn.

    `estimate` gets the domain, the group to leave out, and what the domain's other groups are weighted by.
    """
    variances, freedoms = [], []
    for domain, groups in parts.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            changes = np.array([estimate(domain, g, 1 / (1 - p) if p < 1 else 1.0) - whole for g, p in groups.items()])
        if not np.isfinite(changes).all():
            return None, None
        n = len(groups)
        variances.append((n - 1) / n * ((changes - changes.mean()) ** 2).sum() if n > 1 else changes[0] ** 2)
        freedoms.append(max(1, n - 1))
    total = sum(variances)
    spread = sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    freedom = total**2 / spread if spread else sum(freedoms)
    return float(np.sqrt(total)), float(stats.t.ppf(0.975, np.floor(freedom + 1e-6)))


def error(fake: FakeRun, statistic: Callable[[np.ndarray], float]) -> tuple[float | None, float | None]:
    """Standard error and half the 95 % interval of a statistic of position weights, each group left out of its domain
    in turn."""
    group, of = column(fake, "group_id"), column(fake, "domain")

    def again(domain: str, g: int, scale: float) -> float:
        return statistic(fake.ordinary * np.where(group == g, 0.0, np.where(of == domain, scale, 1.0)))

    se, t = combine(design(fake), again, statistic(fake.ordinary))
    return se, None if se is None else t * se


def jackknife(fake: FakeRun, statistic: Callable[[np.ndarray], float]) -> float | None:
    """The standard error alone."""
    return error(fake, statistic)[0]


def mean_of(values: np.ndarray, cell: np.ndarray) -> Callable[[np.ndarray], float]:
    """Mean of `values` over the positions of `cell`, as a function of position weights."""
    return lambda use: (values * use * cell).sum() / (use * cell).sum()


def share_of(values: np.ndarray, cell: np.ndarray) -> Callable[[np.ndarray], float]:
    """Share of the sum of `values` that lies in `cell`, as a function of position weights."""
    return lambda use: (values * use * cell).sum() / (values * use).sum()


def groups_of_domain(fake: FakeRun, domain: str) -> list[int]:
    """Replicate groups of a domain."""
    return fake.positions.filter(pl.col("domain") == domain)["group_id"].unique().sort().to_list()


def breakdown(fake: FakeRun, component: str, axis: str) -> list[dict]:
    """Rows of the view breakdown of one component and axis, by value."""
    i, names = fake.row(component), column(fake, AXES[axis])
    a, d, m = fake.activation[i], fake.dla[i], np.abs(fake.dla[i])
    n_groups = len(set(column(fake, "group_id")))
    rows = []
    for value in sorted(set(names[fake.ordinary])):
        cell = names == value
        groups = groups_of_domain(fake, value) if axis == "domain" else None
        row = {"value": value, "n": int((fake.ordinary & cell).sum()), "groups": len(groups) if groups else n_groups}
        for name, values in [("activation", a), ("dla", d), ("abs_dla", m)]:
            row[name] = mean_of(values, cell)(fake.ordinary)
            row[f"{name}_se"], half = error(fake, mean_of(values, cell))
            row[f"{name}_lo"] = None if half is None else row[name] - half
            row[f"{name}_hi"] = None if half is None else row[name] + half
        row["share_abs_dla"] = share = share_of(m, cell)(fake.ordinary)
        row["share_abs_dla_se"], half = error(fake, share_of(m, cell))
        row["share_abs_dla_lo"], row["share_abs_dla_hi"] = max(0.0, share - half), min(1.0, share + half)
        rows.append(row)
    return rows


def moments(fake: FakeRun, component: str) -> list[dict]:
    """Rows of the view moments of one component, by class and domain."""
    i, classes, domains = fake.row(component), column(fake, "class"), column(fake, "domain")
    rows = []
    for name, domain in sorted({(c, d) for c, d in zip(classes[fake.ordinary], domains[fake.ordinary], strict=True)}):
        cell = (classes == name) & (domains == domain)
        row = {"class": name, "domain": domain, "n": int((cell & fake.ordinary).sum())}
        for prefix, values, absolute in [("", fake.activation[i], "mean_abs"), ("dla_", fake.dla[i], "abs_dla_mean")]:
            x = values[cell & fake.ordinary]
            varies = x.std() > 1e-6 * np.abs(x).max()
            row |= {
                f"{prefix}mean": x.mean(),
                f"{prefix}sd": x.std() if varies else 0.0,
                f"{prefix}skew": stats.skew(x) if varies else None,
                f"{prefix}kurtosis": stats.kurtosis(x, fisher=False) if varies else None,
                f"{prefix}min": x.min(),
                f"{prefix}max": x.max(),
                absolute: np.abs(x).mean(),
                f"{prefix}mean_se": jackknife(fake, mean_of(values, cell)),
            }
        row["abs_dla_mean_se"] = jackknife(fake, mean_of(np.abs(fake.dla[i]), cell))
        rows.append(row)
    return rows


def context(fake: FakeRun, position_id: int) -> dict:
    """Texts of a position's context, spelled token by token."""
    position = fake.positions.row(by_predicate=pl.col("position_id") == position_id, named=True)
    window = fake.tables["windows"].row(by_predicate=pl.col("window_id") == position["window_id"], named=True)
    document = fake.tables["documents"].row(by_predicate=pl.col("doc_id") == position["doc_id"], named=True)
    texts = [fake.tables["tokens"]["token"][t] for t in window["token_ids"]]
    here = position["offset"]
    before, after = join_texts(texts[max(0, here - 24) : here]), join_texts(texts[here + 1 : here + 9])
    return {
        "domain": document["domain"],
        "source": document["source"],
        "context_before": before,
        "context_token": texts[here],
        "context_after": after,
        "token": texts[here],
        "next_token": texts[here + 1],
        "context": f"{before}«{texts[here]}»{after}",
        "doc_id": position["doc_id"],
    }


def agree(found: pl.DataFrame, wanted: list[dict], columns: list[str] | None = None) -> None:
    """Assert that both hold the same rows in the same order; numbers to 1e-9 of themselves, None only beside None."""
    assert len(found) == len(wanted), f"{len(found)} rows, {len(wanted)} expected"
    names = columns or list(wanted[0])
    for number, (row, expected) in enumerate(zip(found.iter_rows(named=True), wanted, strict=True)):
        for name in names:
            assert same(row[name], expected[name]), f"row {number}, {name}: {row[name]!r}, {expected[name]!r} expected"


def same(a: object, b: object) -> bool:
    """Equality, to a relative 1e-6 (the t quantiles' accuracy) for numbers that are not whole."""
    if isinstance(a, float) and b is not None:
        return bool(np.isclose(a, float(b), rtol=1e-6, atol=1e-7))
    return a == b
