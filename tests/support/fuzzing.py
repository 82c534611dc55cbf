"""What hostile input is made of, and how much of it: a few examples each, a hundred times as many with
`HYPOTHESIS_PROFILE=fuzz`, or as many times as FUZZ_TIMES says.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

MORE = int(os.environ.get("FUZZ_TIMES", "100")) if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 1
FOLDER_OK = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def examples(n: int) -> settings:
    """So many examples, or MORE times as many."""
    return settings(max_examples=n * MORE, deadline=None, suppress_health_check=FOLDER_OK, database=None)


ANYTHING = st.text(st.characters(codec=None), max_size=60)  # lone surrogates, control characters and all
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANYTHING
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANYTHING, inner, max_size=3), max_leaves=8
)
EVIL = (
    st.sampled_from(
        [
            "'; DROP TABLE runs; --",
            "' OR 1=1 --",
            "x' UNION SELECT 1 --",
            "$$",
            "?",
            "{0}",
            "%s",
            "getvariable('y')",
            "L0H0\x00",
        ]
    )
    | ANYTHING
)
