"""A hand-built model whose circuit is known on every distribution, its pairs, and a CheckSubject made of them.

One layer, four heads that read the first token alone and write to the answer's logit:

| head | reads | writes |
|---|---|---|
| L0H0 | the feature `on` | + on |
| L0H1 | the feature `alternative`, another way of saying the same | + alternative |
| L0H2 | the feature `doubt` | - doubt |
| L0H3 | the feature `noise`, a little of which is everywhere | + noise |

The circuit {L0H0} does all of it where only `on` is there (but for noise); a part where `alternative` says it too; and
more than the model where there is doubt, because the head that holds the answer back was left out.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import patch_models
import torch
from patch_models import FAR, IDENTITY

from profiler.circuits.circuit import Circuit, Member, Scope
from profiler.generality.distributions.subject import (
    CheckSettings,
    CheckSubject,
    Distributions,
    PromptDistribution,
    RunText,
)
from profiler.generality.evidence.distributions import DISCOVERY, Distribution
from profiler.model.steps.plain import Layer, PlainNetwork
from profiler.patching.setting import PatchSettings, prepare
from profiler.prompts.pairs import Encoded, Pair, TokenPair
from profiler.text.windows import Layout

FEATURES = ("on", "alternative", "doubt", "noise")
D, QUESTION, ANSWER, WRONG, FIRST = 8, 0, 1, 2, 3  # residual: features 0-3, question 5, answer 6, constant 7
NO_TEXT = RunText((), Layout(8, None, torch.zeros(1, dtype=torch.long), 0, 2), (), 0, 0, "no corpus")


def network(tokens: Sequence[dict[str, float]], spare: int = 0) -> PlainNetwork:
    """The model; token FIRST + i has the features of `tokens[i]`. `spare` more heads write nothing."""
    embed = torch.zeros(FIRST + len(tokens), D).double()
    embed[:, 7], embed[QUESTION, 5] = 1.0, 1.0
    for i, features in enumerate(tokens):
        for name, strength in features.items():
            embed[FIRST + i, FEATURES.index(name)] = strength
    heads = 4 + spare
    w_q, w_k, w_v, w_o = (torch.zeros(heads, *shape).double() for shape in ((D, 1), (D, 1), (D, 1), (1, D)))
    w_q[:, 7, 0], w_k[:, 5, 0] = 1.0, -FAR
    for head, sign in enumerate((1.0, 1.0, -1.0, 1.0)):
        w_v[head, head, 0], w_o[head, 0, 6] = 1.0, sign
    unembed = torch.zeros(D, len(embed)).double()
    unembed[6, ANSWER] = 1.0
    zeros, nothing = torch.zeros(heads, 1).double(), torch.zeros(D).double()
    layer = Layer(
        IDENTITY,
        IDENTITY,
        w_q,
        w_k,
        w_v,
        zeros,
        zeros,
        zeros,
        w_o,
        nothing,
        torch.zeros(D, 1).double(),
        torch.zeros(1).double(),
        None,
        None,
        torch.zeros(1, D).double(),
        nothing,
    )
    return PlainNetwork(
        (layer,), embed, None, None, IDENTITY, unembed, torch.zeros(len(embed)).double(), torch.relu, False, 1.0
    )


def pairs(tokens: Sequence[int], corrupted: int, documents: Sequence[str] = ()) -> tuple[TokenPair, ...]:
    """A pair per token: it and the question, against the corrupted token and the question."""
    strata = [(("document", name),) for name in documents] or [()] * len(tokens)
    return tuple(
        TokenPair(
            Pair(f"p{i}", "toy", "off", (t, QUESTION), (corrupted, QUESTION), (ANSWER,), (WRONG,), strata=strata[i]),
            (t, QUESTION),
            (corrupted, QUESTION),
            (ANSWER,),
            (WRONG,),
            (("end", (1,)),),
            0,
        )
        for i, t in enumerate(tokens)
    )


def subject(
    distributions: dict[str, Sequence[dict[str, float]]],
    members: Sequence[str] = ("L0H0",),
    draws: int = 19,
    spare: int = 0,
) -> CheckSubject:
    """A CheckSubject whose distributions are lists of first tokens, one pair each; the first is the discovery
    distribution."""
    listed = [features for tokens in distributions.values() for features in tokens]
    net = network([*listed, {}], spare)
    made, begin = [], FIRST
    for ordinal, (name, tokens) in enumerate(distributions.items()):
        found = pairs(range(begin, begin + len(tokens)), FIRST + len(listed))
        begin += len(tokens)
        setting = prepare(name, net, Encoded(found, ()))
        made.append(
            PromptDistribution(Distribution(name, ordinal, "prompts", name, len(tokens), 2 * len(tokens)), setting)
        )
    circuit = Circuit("toy", "toy", tuple(Member(label) for label in members), Scope("toy", "planted", ("off",)))
    task = PatchSettings("toy")
    return CheckSubject(
        patch_models.loaded("gpt2"),
        net,
        circuit,
        Path("none.duckdb"),
        task,
        Distributions(tuple(made)),
        NO_TEXT,
        CheckSettings(draws=draws),
        lambda _: None,
    )


def some(n: int = 24, seed: int = 0, **features: float) -> list[dict[str, float]]:
    """`n` tokens with these features, each scaled at random between 0.8 and 1.2, and noise of a twentieth."""
    rng = np.random.default_rng(seed)
    return [
        {name: strength * rng.uniform(0.8, 1.2) for name, strength in features.items()} | {"noise": rng.normal(0, 0.05)}
        for _ in range(n)
    ]


GENERALISES = {DISCOVERY: some(on=1.0), "other words": some(seed=1, on=2.0), "wide": some(seed=2, on=0.7)}
NARROW = {DISCOVERY: some(on=1.0), "other words": some(seed=1, on=0.2, alternative=1.0)}
OVER = {DISCOVERY: some(on=1.0), "other words": some(seed=1, on=1.0, doubt=0.6)}


def truths(seed: int) -> dict[str, dict[str, Sequence[dict[str, float]]]]:
    """The three cases by the verdict's word, drawn anew."""
    on, first = {"on": 1.0}, 10 * seed
    return {
        "generalises": {
            DISCOVERY: some(24, first, **on),
            "other words": some(24, first + 1, on=2.0),
            "wide": some(24, first + 2, on=0.7),
        },
        "narrows": {DISCOVERY: some(24, first, **on), "other words": some(24, first + 1, on=0.2, alternative=1.0)},
        "over-recovers": {DISCOVERY: some(24, first, **on), "other words": some(24, first + 1, on=1.0, doubt=0.6)},
    }
