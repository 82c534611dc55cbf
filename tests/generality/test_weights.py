"""Weights: hand-made heads with known scores, explicit matrices, and budgets that add up."""

from dataclasses import replace

import numpy as np
import patch_models
import pytest
import replacement_models as built
import torch
from questions import question

from profiler.generality.replacement.run import TextBatch, base_of
from profiler.generality.weights import composition, inputs
from profiler.generality.weights import heads as weights
from profiler.generality.weights import scores as weights_scores
from profiler.model.steps.plain import rotate

EXACT = 1e-9


def scored(net, readings=()):
    return weights.of_network(net, readings)


def reading_of(net, n=12, length=30, seed=0):
    tokens = torch.randint(1, net.embed.shape[0], (n, length), generator=torch.Generator().manual_seed(seed))
    counted = torch.ones_like(tokens, dtype=torch.bool)
    counted[:, 0] = False
    return TextBatch(tokens, tokens % 5, tokens.roll(-1, 1), counted, torch.arange(n))


# --- OV ---


def test_a_copying_head_scores_one_and_a_suppressing_head_minus_one():
    net = built.model([built.layer([built.first_head(2.0), built.first_head(-2.0), built.diffuse_head(0.0)])])
    values = scored(net).scored.values
    assert values["OV copying"][0, 0] == pytest.approx(1, abs=EXACT)
    assert values["OV copying"][0, 1] == pytest.approx(-1, abs=EXACT)
    assert values["OV copying"][0, 2] == 0
    assert values["OV diagonal"][0].tolist() == pytest.approx([1, 0, 0.5])


def test_random_heads_copy_as_often_as_they_suppress():
    rng = torch.Generator().manual_seed(0)
    values = [
        weights_scores.eigen_copying(torch.randn(200, 16, generator=rng), torch.randn(16, 200, generator=rng))
        for _ in range(200)
    ]
    error = np.std(values) / np.sqrt(200)
    assert abs(np.mean(values)) < 4 * error and 0.05 < np.std(values) < 0.5


def test_copying_against_the_eigenvalues_of_the_whole_matrix():
    net = patch_models.network("neox").plain
    seen, words = inputs.alone(net, 0), weights_scores.vocabulary(net)
    toward = inputs.unembedding(net)
    for layer, head in weights_scores.heads(net):
        left, right = weights_scores.value_paths(net, seen, layer, head, toward)
        whole = torch.linalg.eigvals(left @ right)
        brute = float(whole.real.sum() / whole.abs().sum())
        assert weights_scores.eigen_copying(left, right) == pytest.approx(brute, abs=1e-6)
    assert len(words.rows) == 257


def test_a_token_alone_is_what_layer_one_reads_there():
    for form in patch_models.FORMS:
        net = patch_models.network(form).plain
        tokens = torch.tensor([[0, 65], [0, 9]])
        base = base_of(
            net, TextBatch(tokens, tokens, tokens, torch.ones_like(tokens, dtype=torch.bool), torch.arange(2))
        )
        stream = base.sites["resid_pre", 1][:, 1]
        wanted = stream if net.positions is None else stream - net.positions[1]
        assert torch.allclose(inputs.alone(net, 0).later[[65, 9]], wanted)


def test_rank_of_the_diagonal_counts_ties_half():
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0], [1.0, 1.0, 1.0]])
    assert inputs.diagonal_rank(scores, torch.arange(3)).tolist() == [1.0, 0.75, 0.5]


# --- QK ---


def rotary_head(distance: int, width: int = 16, tokens: int = 6):
    """A rotary head of one layer that looks `distance` back, whatever the tokens: its key is its query turned that
    far."""
    net = patch_models.network("neox").plain
    table = torch.arange(48).double()[:, None] * (100.0 ** (-torch.arange(width // 2).double() / (width // 2)))[None]
    rotary = (torch.cat([table, table], -1).cos(), torch.cat([table, table], -1).sin())
    size = tokens + 1
    embed = torch.cat([torch.eye(tokens), torch.ones(tokens, 1)], -1).double()
    w_q, w_k = torch.zeros(1, size, width).double(), torch.zeros(1, size, width).double()
    plain = built.NO_NORM
    norm = replace(plain, weight=torch.ones(size).double(), bias=torch.zeros(size).double())
    zeros = torch.zeros(1, width).double()
    layer = replace(
        net.layers[0],
        norm_attn=norm,
        norm_mlp=norm,
        w_q=w_q,
        w_k=w_k,
        w_v=w_k.clone(),
        b_q=zeros,
        b_k=zeros,
        b_v=zeros,
        w_o=torch.zeros(1, width, size).double(),
        b_o=torch.zeros(size).double(),
        w_in=torch.zeros(size, 1).double(),
        b_in=torch.zeros(1).double(),
        w_out=torch.zeros(1, size).double(),
        b_out=torch.zeros(size).double(),
    )
    net = replace(
        net,
        layers=(layer,),
        embed=embed,
        rotary=rotary,
        norm_final=norm,
        unembed=embed.T.contiguous(),
        b_unembed=torch.zeros(tokens).double(),
    )
    w_k[0, -1] = 4.0
    back = torch.cat([table[distance], table[distance]]), None
    first, second = w_k[0, -1].chunk(2)
    turned = torch.cat(
        [
            first * back[0].cos()[: width // 2] + second * back[0].sin()[: width // 2],
            second * back[0].cos()[: width // 2] - first * back[0].sin()[: width // 2],
        ]
    )
    w_q[0, -1] = turned  # R(-distance) k
    return net


def test_a_rotary_previous_token_head_scores_one():
    found = {
        distance: float(scored(rotary_head(distance)).scored.values["QK previous"][0, 0]) for distance in (0, 1, 3)
    }
    assert found[1] > 0.99 and found[0] < 0.01 and found[3] < 0.01


def test_an_added_position_previous_token_head_scores_one():
    net = built.model([built.layer([built.previous_head(), built.first_head(), built.diffuse_head()])])
    values = scored(net).scored.values["QK previous"][0]
    assert values[0] == pytest.approx(1, abs=EXACT) and values[1] < 0.01 and values[2] < 0.5


@pytest.mark.parametrize("form", ["neox", "gpt2"])
def test_mean_scores_are_the_mean_over_all_pairs_of_tokens(form):
    net = patch_models.network(form).plain
    seen, words = inputs.alone(net, 0), weights_scores.vocabulary(net)
    found = weights_scores.mean_scores(net, seen, words, 1, 1, 6)
    place = torch.tensor([[5]]), torch.tensor([[2]])
    q, k = (
        inputs.read(net, 1, 1, what, inputs.at_offset(net, seen.later, int(p)))
        for what, p in zip("qk", place, strict=True)
    )
    q, k = (rotate(net, x[:, None, None], p.expand(len(x), 1))[:, 0, 0] for x, p in zip((q, k), place, strict=True))
    assert found[5, 2] == pytest.approx(float((q @ k.T).mean()) * net.attn_scale, abs=1e-10)


def matching_head(own: slice, reads: slice):
    """Query: the token here; key: the token that `reads` holds."""
    w_q, w_k, w_v, w_o = built._blank()
    w_q[own, : built.VOCAB] = 5 * torch.eye(built.VOCAB).double()
    w_k[reads, : built.VOCAB] = torch.eye(built.VOCAB).double()
    built._copies(w_v, w_o, 1.0)
    return w_q, w_k, w_v, w_o


def test_a_duplicate_token_head_finds_its_own_token():
    net = built.model([built.layer([matching_head(built.HERE, built.HERE), built.first_head()])])
    values = scored(net).scored.values["QK duplicate"][0]
    assert values.tolist() == pytest.approx([1, 0.5])


def test_induction_by_composition_with_a_previous_token_head():
    first = built.layer([built.first_head(), built.previous_head(1.0)])
    second = built.layer([matching_head(built.HERE, built.OUT), matching_head(built.HERE, built.HERE)])
    net = built.model([first, second])
    found = scored(net).scored
    assert found.partners == {0: None, 1: (0, 1)}
    assert found.values["QK induction"][1].tolist() == pytest.approx([1, 0.5])
    k = {c.reader: c for c in composition.compositions(net, [((0, 1), (1, 0)), ((0, 1), (1, 1))]) if c.kind == "K"}
    assert k["L1H0"].corrected > 0.1 and k["L1H1"].value == 0


# --- composition ---


def explicit(net, writer, reader, kind):
    """The same score from whole matrices and their singular values."""
    (before, a), (after, b) = writer, reader
    v, w = net.layers[before], net.layers[after]

    def fold(layer, weight):
        norm = net.layers[layer].norm_attn
        eye = torch.eye(net.d_model).double()
        centring = eye - 1 / net.d_model if norm.centres else eye
        return centring @ torch.diag(norm.weight) @ weight if norm.eps is not None else weight

    size = lambda m: float(torch.linalg.svdvals(m).square().sum().sqrt())  # noqa: E731
    ov = fold(before, v.w_v[a]) @ v.w_o[a]
    if kind == "V":
        other = fold(after, w.w_v[b]) @ w.w_o[b]
        return size(ov @ other) / (size(ov) * size(other))
    found = []
    for distance in (1, *inputs.distances_of(net)) if net.rotary is not None else (1,):
        place = torch.full((w.w_q.shape[-1], 1), distance)
        turn = torch.eye(w.w_q.shape[-1]).double()
        turn = rotate(net, turn[:, None, None], place)[:, 0, 0] if net.rotary is not None else turn
        qk = fold(after, w.w_q[b]) @ turn @ fold(after, w.w_k[b]).T
        product = ov @ (qk if kind == "Q" else qk.T)
        found.append(size(product) / (size(ov) * size(qk)))
    return sum(found) / len(found)


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_composition_against_singular_values_of_whole_matrices(form):
    net = patch_models.network(form).plain
    for found in composition.compositions(net, [((0, 0), (1, 1)), ((0, 1), (1, 0))]):
        pair = [(int(label[1]), int(label[3])) for label in (found.writer, found.reader)]
        assert found.value == pytest.approx(explicit(net, *pair, found.kind), abs=1e-9)
        assert 0 < found.value < 1


def test_the_baseline_is_that_of_random_rotations():
    net = patch_models.network("gpt2").plain
    rng = torch.Generator().manual_seed(0)
    w = net.layers[0]
    squares = []
    for _ in range(300):
        turn, upper = torch.linalg.qr(torch.randn(net.d_model, net.d_model, generator=rng, dtype=torch.float64))
        turn = turn * upper.diagonal().sign()
        other = replace(net, layers=(replace(w, w_o=w.w_o @ turn), *net.layers[1:]))
        squares.append(composition.score(other, (0, 0), (1, 0), "K") ** 2)
    error = np.std(squares) / np.sqrt(300)
    assert abs(np.mean(squares) - composition.baseline(net) ** 2) < 4 * error


# --- budgets and behaviour ---


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_budgets_add_up_and_the_first_layer_leaves_nothing_over(form):
    net = patch_models.network(form).plain
    found = scored(net, [reading_of(net)])
    rows = found.budget()
    for circuit in ("QK", "OV"):
        for label in ("L0H0", "L0H1", "L1H0", "L1H1"):
            shares = {
                row.score.split(": ")[1]: row.value
                for row in rows
                if row.component == label and row.score.startswith(circuit)
            }
            assert sum(shares.values()) == pytest.approx(1)
            if label.startswith("L0") and not (
                circuit == "OV" and form == "gpt2"
            ):  # added positions are no part of a value alone
                assert shares["rest"] == pytest.approx(0, abs=1e-9)
            if label.startswith("L1"):
                assert shares["rest"] > 0.01
    assert found.seen.ignored["QK duplicate"][0].abs().max() < 1e-9
    assert (found.seen.ignored["QK previous"] > 0).all()


def test_positions_are_a_term_of_their_own():
    net = built.model([built.layer([built.previous_head(), matching_head(built.HERE, built.HERE)])])
    rows = scored(net, [built.reading(0)]).budget()
    qk = {(row.component, row.score.split(": ")[1]): row.value for row in rows if row.score.startswith("QK")}
    assert qk["L0H0", "embedding"] == pytest.approx(0) and qk["L0H0", "positions"] == pytest.approx(1)
    assert qk["L0H1", "embedding"] == pytest.approx(1) and qk["L0H1", "positions"] == pytest.approx(0)


def test_behaviour_is_the_mean_attention_to_the_places():
    net = patch_models.network("neox").plain
    reading = reading_of(net)
    found = scored(net, [reading]).seen
    pattern = base_of(net, reading).sites["pattern", 1][:, 1]
    rows = [(w, q) for w in range(12) for q in range(1, 30)]
    assert found.n == len(rows)
    before = np.mean([float(pattern[w, q, q - 1]) for w, q in rows])
    assert float(found.behaviour["QK previous"][1, 1]) == pytest.approx(before)
    same = [(w, q, [k for k in range(q) if reading.tokens[w, k] == reading.tokens[w, q]]) for w, q in rows]
    mass = np.mean([float(pattern[w, q, ks].sum()) for w, q, ks in same if ks])
    assert float(found.behaviour["QK duplicate"][1, 1]) == pytest.approx(mass)


def test_rows_ranks_and_findings_of_members():
    heads = [built.previous_head(), built.first_head(), built.diffuse_head(-1.0), built.diffuse_head(-1.0, 4)]
    net = built.model([built.layer(heads)])
    found = scored(net, [built.reading(0), built.reading(1)])
    row = next(r for r in found.rows("L0H0") if r.score == "QK previous")
    assert (
        row.rank == 1
        and row.value == pytest.approx(1)
        and row.null_mean < 0.5
        and row.ignored_share == pytest.approx(0)
    )
    others = found.scored.values["QK previous"][0, 1:].numpy()
    assert row.null_mean == pytest.approx(others.mean()) and row.null_sd == pytest.approx(others.std())
    named = {
        f.statistic: f
        for f in weights.of_member(found, question("L0H0", "previous token", "weights", unit="components", shares=()))
    }
    assert named["QK previous"].p == pytest.approx(1 / 4) and named["rank by QK previous"].value == 1
    assert named["rank by behaviour for QK previous"].value == 1
    negative = {
        f.statistic: f
        for f in weights.of_member(found, question("L0H2", "copy suppression", "weights", unit="components", shares=()))
    }
    assert negative["OV copying"].value == pytest.approx(-1) and negative["OV copying"].p == pytest.approx(2 / 4)
    assert weights.of_member(found, question("L0H1", "mystery", "weights", unit="components", shares=()))[
        0
    ].refused.startswith("no score of weights stands for")
    assert {f.refused for f in weights.agreements(found, question("c", "", "weights", unit="components"))} == {
        "4 heads, at least 20 are needed"
    }
    with pytest.raises(ValueError, match="only where text was read"):
        scored(net).agreement("QK previous")


def test_heads_that_do_what_their_weights_say_agree_in_rank():
    """24 heads, each more of a previous-token head than the last, by weights and on text alike."""
    heads = []
    for i in range(24):
        w_q, *rest = built.previous_head()
        heads.append((w_q * 0.2 * i / built.FAR, *rest))
    found = scored(built.model([built.layer(heads)]), [built.reading(0), built.reading(1)])
    rho, lo, hi = found.agreement("QK previous")
    assert rho > 0.95 and lo > 0.9 and hi <= 1
    named = {f.statistic: f for f in weights.agreements(found, question("c", "", "weights", unit="components"))}
    one = named["rank agreement of weights with behaviour: QK previous"]
    assert (one.value, one.n, one.unit) == (rho, 24, "components")
    mixed = replace(found, seen=replace(found.seen, behaviour={"QK previous": -found.seen.behaviour["QK previous"]}))
    assert mixed.agreement("QK previous")[0] < -0.95


def test_compositions_stand_against_random_pairs():
    first = built.layer([built.first_head(), built.previous_head(1.0)])
    second = built.layer([matching_head(built.HERE, built.OUT), matching_head(built.HERE, built.HERE)])
    found = scored(built.model([first, second]))
    rows = {row.score: row for row in found.composed(["L0H1", "L1H0"])}
    assert rows["K-composition with L0H1"].value > rows["K-composition with L0H1"].null_mean
    assert set(rows) == {f"{kind}-composition with L0H1" for kind in "QKV"}
    assert found.composed(["L1H0"]) == ()


@pytest.mark.parametrize("form", ["neox", "gpt2"])
def test_matches_are_scores_of_the_forward_pass(form):
    """In layer 0 a query token at a place and a key token some way before it score as in the model, whatever is
    between."""
    net, seen = patch_models.network(form).plain, inputs.alone(patch_models.network(form).plain)
    words, place, distance = torch.tensor([65, 9, 200]), 20, 8
    q, k = (
        inputs.read(net, 0, 1, what, inputs.at_offset(net, seen.first[words], at))
        for what, at in (("q", place), ("k", place - distance))
    )
    found = inputs.matches(net, q, k, place, distance)
    for i, query in enumerate(words.tolist()):
        for j, key in enumerate(words.tolist()):
            tokens = torch.zeros(1, place + 1, dtype=torch.long)
            tokens[0, place], tokens[0, place - distance] = query, key
            sites = base_of(net, TextBatch(tokens, tokens, tokens, tokens >= 0, torch.zeros(1, dtype=torch.long))).sites
            places = torch.arange(place + 1)[None]
            turned = [rotate(net, sites[site, 0], places)[0, :, 1] for site in ("q", "k")]
            wanted = turned[0][place] @ turned[1][place - distance] * net.attn_scale
            assert found[i, j] == pytest.approx(float(wanted), abs=1e-10)
