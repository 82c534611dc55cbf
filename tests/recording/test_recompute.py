"""Every kept row, recomputed from windows.token_ids and the weights with plain transformers and NumPy."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
import reference
import tiny

from profiler.config import RunConfig
from profiler.recording.pipeline import record

TOLERANCE = 2e-5
TOKENIZER = tiny.tokenizer()
DELIMITERS = set(".,;:!?([{)]}\"'`=+-*/%<>&|^~@\\")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name == "gpt2" else pytest.mark.slow) for name in tiny.ARCHITECTURES],
)
def case(request, model_dirs, corpus_file, tmp_path_factory):
    """A small float32 run of each architecture and its plain network."""
    path = tmp_path_factory.mktemp("recompute") / "run.duckdb"
    config = RunConfig(
        model=str(model_dirs[request.param]),
        corpora=(str(corpus_file),),
        tokens=700,
        context_length=24,
        batch_size=3,
        dense_positions=25,
        samples_per_stratum=1,
        extremes=1,
        components=("L1H0",),
    )
    outcome = record(config, path)
    with duckdb.connect(str(path), read_only=True) as connection:
        yield connection, tiny.network(request.param).double(), outcome


@pytest.fixture(scope="module")
def truth(case):
    """Recomputed values and window of every kept position."""
    connection, network, _ = case
    rows = connection.execute(
        'SELECT position_id, token_ids, "offset", next_token_id FROM position_rows JOIN windows USING (window_id)'
    ).fetchall()
    return {
        position: reference.component_values(network, ids, offset, target) for position, ids, offset, target in rows
    }


@pytest.mark.slow
@pytest.mark.parametrize("table", ["dense_rows", "sample_rows", "extreme_rows", "recorded_rows"])
def test_every_row_of(case, truth, table):
    connection = case[0]
    sql = (
        f"SELECT component, position_id, activation, dla FROM {table} JOIN components USING (component_id) WHERE kind"
        " IN ('head', 'neuron')"
    )
    rows = connection.execute(sql).fetchall()
    assert len(rows) > 100 or table == "recorded_rows"
    got = np.array([(a, d) for _, _, a, d in rows])
    want = np.array([truth[position][component] for component, position, _, _ in rows])
    np.testing.assert_allclose(got, want, atol=TOLERANCE, rtol=TOLERANCE)


def test_every_target_logit_loss_rank_and_entropy(case):
    connection, network, _ = case
    sql = (
        'SELECT token_ids, "offset", next_token_id, target_logit, loss, rank, entropy, dense FROM position_rows JOIN'
        " windows USING (window_id)"
    )
    dense_seen = 0
    for ids, offset, target, logit, loss, rank, entropy, dense in connection.execute(sql).fetchall():
        logits = reference.layer_forward(network, ids)["logits"][offset]
        log_p = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        assert logit == pytest.approx(logits[target] - logits.mean(), abs=TOLERANCE)
        if dense:
            dense_seen += 1
            assert (loss, entropy) == pytest.approx((-log_p[target], -(np.exp(log_p) * log_p).sum()), abs=1e-4)
            # the run's logits are float32: those nearer than its rounding may stand on either side
            assert (logits > logits[target] + TOLERANCE).sum() <= rank <= (logits > logits[target] - TOLERANCE).sum()
        else:
            assert (loss, rank, entropy) == (None, None, None)
    assert dense_seen == 25


def test_head_attention(case):
    connection, network, _ = case
    sql = """SELECT layer, unit, token_ids, "offset", previous_token, two_back, first_token, self, induction
             , prefix_induction, duplicate, newline, delimiter, h.entropy, top_offset, top_weight, dla_to_attended
             FROM head_attention_rows h JOIN components USING (component_id)
             JOIN position_rows p USING (position_id) JOIN windows USING (window_id)"""
    rows = connection.execute(sql).fetchall()
    assert len(rows) == 25 * 2 * network.config.num_attention_heads
    for layer, head, ids, offset, *got in rows:
        a = reference.layer_forward(network, ids)["patterns"][layer][head][offset]
        ids = np.array(ids)
        earlier = [k for k in range(offset) if ids[k] == ids[offset]]
        longer = [k for k in earlier if k and ids[k - 1] == ids[offset - 1]]
        texts = [TOKENIZER.decode([i]) for i in ids]
        top = offset - got[10]  # of places that float32 cannot tell apart, either is the top
        assert a[top] == pytest.approx(a.max(), abs=1e-6)
        want = [
            a[offset - 1],
            a[offset - 2] if offset > 1 else 0,
            a[0],
            a[offset],
            sum(a[k + 1] for k in earlier if k + 1 < offset),
            sum(a[k + 1] for k in longer if k + 1 < offset),
            sum(a[k] for k in earlier),
            sum(a[k] for k, t in enumerate(texts) if t == "\n"),
            sum(a[k] for k, t in enumerate(texts) if t in DELIMITERS),
            -(a[a > 0] * np.log(a[a > 0])).sum(),
            offset - top,
            a.max(),
            reference.component_values(network, ids.tolist(), offset, int(ids[top]))[f"L{layer}H{head}"][1],
        ]
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_logits_close(case):
    _, _, outcome = case
    assert 0 < outcome.closure.residual <= 1e-3 * outcome.closure.scale
    assert 0 < outcome.closure.logit_residual <= 1e-3 * outcome.closure.scale


@pytest.mark.parametrize("name", list(tiny.ARCHITECTURES))
def test_float64_closes_to_1e_10(name, model_dirs, corpus_file, tmp_path: Path):
    config = RunConfig(
        model=str(model_dirs[name]), corpora=(str(corpus_file),), tokens=500, dtype="float64", dense_positions=10
    )
    outcome = record(config, tmp_path / "run.duckdb")
    assert 0 < outcome.closure.residual <= 1e-10


def test_logit_effects_are_the_write_direction_through_the_unembedding(case):
    connection, network, _ = case
    parts, unembed = reference.parts_of(network), network.lm_head.weight.detach().numpy()
    gamma = parts.final_norm.weight.detach().numpy()
    sql = (
        "SELECT layer, unit, side, rank, token_id, effect FROM logit_effects JOIN components USING (component_id) ORDER"
        " BY ALL"
    )
    by_neuron: dict = {}
    for layer, unit, side, rank, token, effect in connection.execute(sql).fetchall():
        by_neuron.setdefault((layer, unit), {})[side, rank] = (token, effect)
    assert len(by_neuron) == 48
    ratios = []
    for (layer, unit), got in by_neuron.items():
        write = reference.weight(parts.mlp_out[layer])[unit]
        logits = unembed @ ((write - write.mean() if parts.layer_norm else write) * gamma)
        logits -= logits.mean()
        ascending, near = np.sort(logits), 1e-5 * np.abs(logits).max()  # float32 may order nearer ones otherwise
        for side, wanted in (("boosted", ascending[::-1][:10]), ("suppressed", ascending[:10])):
            tokens = [got[side, r][0] for r in range(1, 11)]
            assert len(set(tokens)) == 10
            np.testing.assert_allclose(logits[tokens], wanted, rtol=0, atol=near)
        ratios.append(got["boosted", 1][1] / ascending[-1])
    assert np.ptp(ratios) < 1e-4 * np.mean(ratios)
