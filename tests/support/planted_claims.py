"""Claims with a known truth, simulated from single prompts and documents: what a check would find of them.

Each prompt has a whole effect and what the circuit keeps of it, each document its positions with an importance and
whether the role holds there; estimates and intervals come from these by the delta method for a ratio, examples being
drawn independently. Nothing here knows the verdict's rules.
"""

from collections.abc import Callable, Mapping

import numpy as np

from profiler.generality.evidence.finding import Finding

DISTRIBUTIONS = (
    "discovery",
    "names",
    "templates",
    "natural text",
    "repeats",
    "domain: code",
    "domain: prose",
    "corpus",
)
DOMAINS = ("domain: code", "domain: prose")
Rng = np.random.Generator


def ratio(part: np.ndarray, whole: np.ndarray) -> tuple[float, float, float]:
    """Sum over sum with its 95 % interval, examples independent (linearised ratio; Cochran 1977, section 6.3)."""
    value = part.sum() / whole.sum()
    residual = part - value * whole
    error = np.sqrt(len(part) / (len(part) - 1) * (residual**2).sum()) / whole.sum()
    return float(value), float(value - 1.96 * error), float(value + 1.96 * error)


def faithfulness(
    rng: Rng, distribution: str, kept: float, random: float = 0.05, n: int = 48, name: str = "planted"
) -> Finding:
    """A circuit that truly keeps `kept` of the effect, beside 99 random circuits that keep `random` on average."""
    whole = rng.normal(3.0, 1.0, n)
    own = kept * whole + rng.normal(0.0, 1.0, n)
    null = [ratio(f * whole + rng.normal(0.0, 1.0, n), whole)[0] for f in rng.normal(random, 0.1, 99)]
    value, lo, hi = ratio(own, whole)
    p = (1 + sum(one >= value for one in null)) / (1 + len(null))
    return Finding(
        name,
        "",
        "faithfulness",
        distribution,
        "faithfulness",
        value,
        lo,
        hi,
        n,
        "prompts",
        float(np.mean(null)),
        float(np.quantile(null, 0.95)),
        p,
        shares=(f"data {distribution}",),
    )


def coverage(
    rng: Rng,
    subject: str,
    role: str,
    distribution: str,
    holds: float,
    base: float = 0.1,
    documents: int = 60,
    each: int = 20,
) -> Finding:
    """A role that holds on `holds` of a component's importance; in each document more or less often (beta
    distributed)."""
    weight = rng.lognormal(0.0, 1.0, (documents, each))
    often = rng.beta(6 * holds + 1e-6, 6 * (1 - holds) + 1e-6, (documents, 1))
    seen = rng.random((documents, each)) < often
    elsewhere = rng.random((19, documents, each)) < base
    null = [(weight * one).sum() / weight.sum() for one in elsewhere]
    value, lo, hi = ratio((weight * seen).sum(1), weight.sum(1))
    return Finding(
        subject,
        role,
        "coverage",
        distribution,
        "coverage",
        value,
        max(0.0, lo),
        min(1.0, hi),
        documents,
        "documents",
        float(np.mean(null)),
        float(np.quantile(null, 0.95)),
        shares=("data corpus",),
    )


def circuit(rng: Rng, kept: Mapping[str, float], **settings: float) -> list[Finding]:
    """Faithfulness on each distribution."""
    return [faithfulness(rng, distribution, value, **settings) for distribution, value in kept.items()]


def roles(rng: Rng, holds: Mapping[str, Mapping[str, float]], base: float = 0.1) -> list[Finding]:
    """Coverage of the role of each component on each distribution."""
    return [
        coverage(rng, c, "induction", distribution, value, base)
        for c, of in holds.items()
        for distribution, value in of.items()
    ]


WIDE = ("repeats", *DOMAINS, "corpus")
HELD = {"L0H1": dict.fromkeys(WIDE, 0.85), "L1H0": dict.fromkeys(WIDE, 0.8)}


def generalises(rng: Rng) -> list[Finding]:
    """As faithful everywhere, and each member does what it is said to do."""
    return circuit(rng, {"discovery": 0.92, "names": 0.92, "templates": 0.9, "natural text": 0.88}) + roles(rng, HELD)


def narrow(rng: Rng) -> list[Finding]:
    """Faithful on other names; on other wordings and in natural text others do the work."""
    return circuit(rng, {"discovery": 0.92, "names": 0.9, "templates": 0.4, "natural text": 0.3}) + roles(rng, HELD)


def over_recovers(rng: Rng) -> list[Finding]:
    """A suppressor that acts on other wordings was left out of the circuit."""
    return circuit(rng, {"discovery": 0.95, "names": 0.95, "templates": 1.6, "natural text": 1.0}) + roles(rng, HELD)


def polysemantic(rng: Rng) -> list[Finding]:
    """One head: induction in code, previous token in prose; it fails on repeated random tokens."""
    kept = circuit(rng, {"discovery": 0.9, "names": 0.9})
    shares = {"repeats": 0.1, "domain: code": 0.85, "domain: prose": 0.1, "corpus": 0.5}
    return kept + roles(rng, {"L1H4": shares})


def scrambled(rng: Rng) -> list[Finding]:
    """As faithful everywhere, but the roles are other components' roles; some hold often by their base rate alone."""
    base = float(rng.choice([0.1, 0.3, 0.6, 0.8]))
    holds = {f"L{i}H0": dict.fromkeys(WIDE, base) for i in range(3)}
    return circuit(rng, dict.fromkeys(("discovery", "names", "templates"), 0.92)) + roles(rng, holds, base)


def half_scrambled(rng: Rng) -> list[Finding]:
    """Two of five members have each other's roles."""
    holds = {f"L{i}H0": dict.fromkeys(WIDE, 0.85 if i < 3 else 0.15) for i in range(5)}
    return circuit(rng, dict.fromkeys(("discovery", "names", "templates"), 0.92)) + roles(rng, holds)


def random_circuit(rng: Rng) -> list[Finding]:
    """A circuit of random members: like the others that it is compared with, on every distribution."""
    kept = {
        distribution: float(rng.normal(0.1, 0.2))
        for distribution in ("discovery", "names", "templates", "natural text")
    }
    return circuit(rng, kept, random=0.1)


Planted = Callable[[Rng], list[Finding]]
TRUTH: dict[Planted, str] = {
    generalises: "generalises",
    narrow: "narrows",
    over_recovers: "over-recovers",
    polysemantic: "does something else",
}
