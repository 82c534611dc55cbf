"""Domains are fixed and documents sampled: errors of edits, swaps and replacements are within domains."""

from dataclasses import replace

import numpy as np
import planted_heads as ph
import pytest
from questions import question

from profiler.generality.edits import edits, plans, results
from profiler.generality.edits.texts import texts_of
from profiler.generality.evidence.claims import claim_of
from profiler.generality.replacement import shares
from profiler.statistics import ratio_error, share_interval

RNG = np.random.default_rng(0)
DOMAINS = np.repeat([0, 1], 20)
TEXTS = [replace(text, domain="ab"[domain]) for text, domain in zip(ph.texts(40), DOMAINS, strict=True)]
SHIFT = np.where(DOMAINS == 0, 0.9, 0.02) + RNG.normal(0, 0.05, 40)


def rows(texts: list) -> dict:
    """Findings of edits that move the component in the first domain and not in the second."""
    made = plans.plans(claim_of("previous token"), texts, ph.vocabulary())
    assert len(made) == 40
    asked = question("L0H0", "previous token", "edits")
    return {one.statistic: one for one in edits._findings(asked, made, SHIFT, np.zeros(40))}


def test_the_interval_of_edits_is_within_domains() -> None:
    apart, together = rows(TEXTS), rows([replace(text, domain="") for text in TEXTS])
    for statistic in ("success rate", "shift over control: replace the source"):
        one, other = apart[statistic], together[statistic]
        assert (one.value, one.n) == (other.value, other.n)
        assert one.upper - one.lower < 0.6 * (other.upper - other.lower)
    error = ratio_error(SHIFT, np.ones(40), DOMAINS)
    further = apart["shift over control: replace the source"]
    assert (further.lower, further.upper) == pytest.approx((SHIFT.mean() - error.half, SHIFT.mean() + error.half))


def test_the_rate_of_several_texts_a_document_is_that_of_the_jackknife() -> None:
    texts = [replace(text, document=f"d{i // 2}") for i, text in enumerate(TEXTS)]
    won = (SHIFT > 0.1).astype(float)
    one = results.by_document(texts, won, np.full(40, 2.0))
    n, part = np.full(20, 4.0), won.reshape(20, 2).sum(1)
    assert one.n == 20 and one.value == won.sum() / 80
    assert (one.lo, one.hi) == pytest.approx(share_interval(won.sum() / 80, n, part, 20.0, DOMAINS[::2]))


def test_texts_of_a_run_know_their_domain(run_path) -> None:
    assert {text.domain for text in texts_of(run_path)} == {"a", "b"}


def test_ablation_is_clear_of_zero_by_the_error_within_domains() -> None:
    """One domain in which ablation costs much and one in which it costs nothing: known well, not by chance."""
    documents = np.repeat(np.arange(40), 10)
    domains = np.repeat(DOMAINS, 10)
    ablated = np.where(domains == 0, 0.1, -0.06) + 0.001 * RNG.normal(size=400)
    one, other = (shares.share(ablated / 2, ablated, documents, "net loss", domains=d) for d in (domains, None))
    assert one.explained == pytest.approx(0.5) and not one.refused
    assert "not clear of 0" in other.refused
