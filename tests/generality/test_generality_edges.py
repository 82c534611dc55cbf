"""A circuit by edges in a check: measured with its edges on every distribution of prompts, refused on running text."""

import dataclasses

import planted_circuits as planted
import pytest

from profiler.circuits.by_edges import edge_sets
from profiler.circuits.circuit import Circuit, Edge
from profiler.generality.distributions.build import slim
from profiler.generality.distributions.subject import (
    CheckSubject,
    CorpusDistribution,
    Distributions,
    PromptDistribution,
)
from profiler.generality.evidence.distributions import Distribution
from profiler.generality.faithfulness import prompts, running_text
from profiler.patching.metrics import BUILT_IN


def _by_edges(subject: CheckSubject, *edges: Edge) -> CheckSubject:
    scope = dataclasses.replace(subject.circuit.scope, granularity="edge", intact="biases, positions")
    circuit = Circuit("edges", "toy", subject.circuit.members, scope, edges)
    return dataclasses.replace(subject, circuit=circuit)


def test_a_circuit_by_edges_is_measured_with_its_edges() -> None:
    base = planted.subject(planted.GENERALISES, draws=5)
    subject = _by_edges(base, Edge("embed", "L0H0"), Edge("L0H0", "logits"))
    for one in subject.distributions.prompts:
        made, _ = prompts.distribution_findings(subject, one)
        by_statistic = {finding.statistic: finding for finding in made}
        assert one.setting is not None
        evaluate = edge_sets.evaluator(one.setting)
        keep = edge_sets.mask_of(evaluate, subject.circuit)
        expected = evaluate.faithfulness(keep[None])[0]
        assert by_statistic["faithfulness"].value == pytest.approx(expected, abs=1e-9)
        assert by_statistic["faithfulness"].null is not None
        assert by_statistic["faithfulness"].choices.granularity == "edge"
        thin = PromptDistribution(one.distribution, slim(one.setting))
        again = {finding.statistic: finding for finding in prompts.distribution_findings(subject, thin)[0]}
        assert again["faithfulness"].value == pytest.approx(expected, abs=1e-9)
    lame = _by_edges(base, Edge("embed", "L0H0"))
    made, _ = prompts.distribution_findings(lame, lame.distributions.prompts[0])
    assert next(f.value for f in made if f.statistic == "faithfulness") == pytest.approx(0, abs=1e-9)


def test_running_text_is_refused_by_name() -> None:
    """Before anything of the text is read: the text here is none that could be run."""
    subject = _by_edges(planted.subject(planted.GENERALISES, draws=3), Edge("embed", "L0H0"))
    corpus = CorpusDistribution(Distribution("corpus", 9, "corpus", "all"), running_text.np.zeros(0, dtype=bool))
    asked = dataclasses.replace(subject, distributions=Distributions(subject.distributions.prompts, (corpus,)))
    (finding,) = running_text.findings(asked).findings
    assert finding.value is None and finding.refused == running_text.BY_EDGES


@pytest.mark.parametrize("name", ["prob_diff", "accuracy", "kl"])
def test_prompts_are_judged_by_the_metric_that_is_asked_for(name: str) -> None:
    subject = planted.subject(planted.GENERALISES, draws=3)
    (one, *_) = subject.distributions.prompts
    assert one.setting is not None
    runs = one.setting.judged_by(BUILT_IN[name])
    made, _ = prompts.distribution_findings(subject, PromptDistribution(one.distribution, runs))
    effect = next(finding for finding in made if finding.statistic == "model effect")
    assert effect.value == pytest.approx((runs.metric_clean - runs.metric_corrupted).mean(), abs=1e-9)
    own, _ = prompts.distribution_findings(subject, one)
    assert effect.value != next(finding.value for finding in own if finding.statistic == "model effect")
