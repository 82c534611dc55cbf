"""Tests, intervals and standard errors have one home: no other module defines one or works one out by itself."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from profiler import statistics

ROOM = Path(__file__).parents[1] / "profiler"
FILES = sorted(file for file in ROOM.rglob("*.py") if file != ROOM / "statistics.py")
METHODS = re.compile(
    "bootstrap|jackknife|wilson|clopper|holm|benjamini|hochberg|fdr|tost|sign_flip|mcnemar|spearman|pearson|kendall"
    "|confidence|resampled|(percentile|student|share|slope|exact|score)_interval|ratio_error|standard_error"
)
QUANTILES = {"quantile", "nanquantile", "percentile", "nanpercentile"}
TWO_ENDS = 2
LEVELS = {0.025, 0.975, 1.96, 1.645}
NORMAL = {"erf", "erfc", "NormalDist", "ndtri", "ndtr", "betainc", "betaincinv"}


def second_definitions(module: ast.AST) -> list[str]:
    """What in a module is a test or an interval of its own: its line and what it is."""
    return [f"{node.lineno}: {what}" for node in ast.walk(module) if (what := _offence(node))]


def _offence(node: ast.AST) -> str:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        return "imports scipy" if any(name.split(".")[0] in ("scipy", "statsmodels") for name in names) else ""
    if isinstance(node, ast.FunctionDef) and METHODS.search(node.name):
        return f"defines {node.name}"
    if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value in LEVELS:
        return f"the number {node.value}"
    return _offending_call(node) if isinstance(node, ast.Call) else ""


def _offending_call(call: ast.Call) -> str:
    function = call.func
    called = function.attr if isinstance(function, ast.Attribute) else function.id if hasattr(function, "id") else ""
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    asked = (*call.args, *(keyword.value for keyword in call.keywords))
    if called in NORMAL:
        return f"calls {called}"
    if called in QUANTILES:
        levels = [levels for levels in asked if isinstance(levels, ast.Tuple | ast.List)]
        return f"an interval from {called}" if any(len(ends.elts) == TWO_ENDS for ends in levels) else ""
    if called == "multinomial" and owner != "torch":
        return "resamples by multinomial"
    if called in ("integers", "randint") and len(asked) > len(("low", "high")):
        shape = asked[2].elts if isinstance(asked[2], ast.Tuple) else [asked[2]]
        return f"resamples by {called}" if ast.dump(asked[1]) in map(ast.dump, shape) else ""
    if called == "choice" and any(k.arg == "size" or ast.unparse(k) == "replace=True" for k in call.keywords):
        return "resamples or flips signs by choice"
    return ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOM).as_posix())
def test_no_other_module_has_a_test_or_interval_of_its_own(file: Path) -> None:
    assert second_definitions(ast.parse(file.read_text(encoding="utf-8"))) == []


def test_nothing_is_defined_twice_within_the_module() -> None:
    module = ast.parse((ROOM / "statistics.py").read_text(encoding="utf-8"))
    names = [node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(names) == len(set(names))
    text = ast.unparse(module)
    once = ("multinomial(", "stats.bootstrap(", "nanquantile(", "rng.integers(", "t.cdf(", "t.ppf(")
    calls = {call: text.count(call) for call in once}
    assert calls == dict.fromkeys(once, 1) | {"t.ppf(": 4}, (
        "a difference's, a mean's, a slope's, the jackknife's interval"
    )


@pytest.mark.parametrize(
    "source",
    [
        "from scipy import stats",
        "import scipy.stats as s",
        "def _wilson(k, n): ...",
        "def holm_by_family(p): ...",
        "def ratio_error(above, below): ...",
        "w = rng.multinomial(n, p, size=draws)",
        "again = values[rng.integers(0, n, n)]",
        "again = values[rng.integers(0, len(x), (draws, len(x)))]",
        "again = values[rng.integers(0, n, size=(draws, n))]",
        "again = rng.choice(values, size=len(values))",
        "again = rng.choice(values, n, replace=True)",
        "signs = rng.choice((-1.0, 1.0), size=(draws, n))",
        "low, high = np.quantile(drawn, (a, b))",
        "low, high = np.percentile(drawn, [2.5, 97.5])",
        "half = 1.96 * error",
        "tail = 0.975",
        "z = NormalDist().inv_cdf(p)",
    ],
)
def test_the_search_sees_a_second_definition(source: str) -> None:
    assert second_definitions(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "from profiler.statistics import holm",
        "low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))",
        "bound = np.quantile(null, 0.95)",
        "added = rng.choice(left, size, replace=False)",
        "tokens = rng.integers(0, 50257, (rows, length))",
        "rows = torch.multinomial(frequency, n)",
    ],
)
def test_the_search_lets_other_code_be(source: str) -> None:
    assert second_definitions(ast.parse(source)) == []


def test_a_ratio_interval_is_the_plain_bootstrap() -> None:
    rng = np.random.default_rng(5)
    above, below = rng.normal(1, 1, (3, 30)), rng.normal(2, 0.3, 30)
    picks = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=statistics.DRAWS)
    slow = [np.quantile([(p @ a) / (p @ below) for p in picks], (0.025, 0.975)) for a in above]
    low, high = statistics.bootstrap_ratio(above, below)
    assert np.stack([low, high], -1) == pytest.approx(np.array(slow), rel=1e-9)
    each = statistics.bootstrap_ratio(above[1], below)
    assert [float(bound) for bound in each] == pytest.approx([low[1], high[1]], rel=1e-12)


def test_a_bootstrap_of_nothing_is_no_number_and_no_warning() -> None:
    assert np.isnan(statistics.bootstrap_ratio(np.zeros((2, 4)), np.zeros(4))).all()
    assert np.isnan(statistics.percentile_interval(np.full(5, np.nan))).all()
    assert statistics.percentile_interval(np.array([np.nan, 2.0, np.nan])) == (2.0, 2.0)


def test_flip_tests_within_families_are_those_of_each() -> None:
    values, families = np.random.default_rng(0).normal(0.5, 1, (5, 20)), ["a", "b", "a", "b", "b"]
    together = statistics.flip_tests_within(values, families)
    for rows in ([0, 2], [1, 3, 4]):
        own = statistics.flip_tests(values[rows])
        for name in ("p", "adjusted", "least"):
            assert getattr(together, name)[rows] == pytest.approx(getattr(own, name))


def test_resampled_units_go_on_with_the_generator() -> None:
    """One call for all resamples draws what a call for each would."""
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    together = np.stack(list(statistics.resampled_units(7, 5, first)))
    assert (together == np.stack([second.integers(0, 7, 7) for _ in range(5)])).all()
    assert first.random() == second.random()


def test_a_correlation_of_values_that_are_equal_up_to_rounding_is_no_number() -> None:
    noise = np.random.default_rng(0).normal(size=20)
    equal, apart = 3.0 + 1e-9 * noise, 3.0 + 1e-3 * noise
    assert np.isnan(statistics.pearson(equal, noise))
    assert np.isnan(statistics.pearson(noise, 1e-8 * noise))
    assert statistics.pearson(apart, noise) == pytest.approx(1)


def test_effects_that_are_equal_up_to_rounding_are_compared_exactly() -> None:
    """Scatter of rounding alone would make an interval, and a p value, of nothing."""
    noise = 1e-9 * np.random.default_rng(0).normal(size=20)
    difference, low, high, p = statistics.tost(1.0 + noise, 0.95 + noise[:12], 0.2)
    assert (low, high, p) == (difference, difference, 0.0)
    assert statistics.tost(1.0 + noise, 0.8 + noise, 0.2)[3] == 1.0
    assert 0 < statistics.tost(1.0 + 1e6 * noise, 0.95 + 1e6 * noise[:12], 0.2)[3] < 1e-9


@pytest.mark.parametrize(("redraws", "least", "most"), [(25, 0.9, 1.0), (0, 0.0, 0.7)])
def test_an_interval_knows_what_its_units_were_measured_against(redraws: int, least: float, most: float) -> None:
    """The share that is kept moves with the mean of 50 references; without redrawing them a third is covered."""
    rng, covered, runs, true = np.random.default_rng(1), 0, 200, 0.6
    for _ in range(runs):
        references = rng.normal(0.0, 1.0, 50)
        whole = rng.normal(4.0, 0.5, 40)
        scatter = rng.normal(0.0, 0.1, 40)
        picked = [references, *(rng.choice(references, 50) for _ in range(redraws))]
        above = np.stack([true * whole + scatter + 2.0 * mean.mean() for mean in picked[bool(redraws) :]])
        drawn = statistics.bootstrap_ratio_redrawn(above, np.broadcast_to(whole, above.shape))
        low, high = statistics.percentile_interval(drawn)
        covered += low <= true <= high
    assert least <= covered / runs <= most


@pytest.mark.parametrize(("redraws", "most"), [(25, 0.08), (0, 1.0)])
def test_equality_knows_what_both_were_measured_against(redraws: int, most: float) -> None:
    """Two distributions that differ by the margin itself are called equal in 5 %; without redraws thrice as often."""
    rng, equal, runs, margin = np.random.default_rng(2), 0, 400, 0.2

    def measured(true: float) -> tuple[np.ndarray, list[np.ndarray]]:
        references, units = rng.normal(0.0, 0.35, 50), true + rng.normal(0.0, 0.1, 40)
        means = [rng.choice(references, 50).mean() for _ in range(redraws)]
        return units + references.mean(), [units.mean() + np.array(means)] if redraws else []

    for _ in range(runs):
        (first, again), (second, other) = measured(0.9), measured(0.7)
        equal += statistics.tost(first, second, margin, (*again, *other))[3] < 0.05
    assert (equal / runs <= most) and (redraws or equal / runs > 0.12)


def test_one_redraw_is_the_bootstrap_of_a_ratio() -> None:
    above, below = np.random.default_rng(0).normal(3.0, 1.0, (2, 30))
    drawn = statistics.bootstrap_ratio_redrawn(above[None], below[None], seed=4)
    assert statistics.percentile_interval(drawn) == pytest.approx(
        [bound[0] for bound in statistics.bootstrap_ratio(above[None], below, seed=4)]
    )
