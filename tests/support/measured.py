"""A pass in a process of its own: what its forecast says and what it takes, as JSON.

python measured.py MODEL OUT TOKENS
"""

import json
import sys
from pathlib import Path

from profiler.config import RunConfig
from profiler.model.load import load_model
from profiler.recording.accumulators.state import n_bytes
from profiler.recording.forecast import forecast
from profiler.recording.memory import peak_resident, resident
from profiler.recording.pipeline import Pass
from profiler.recording.write import Store


def measure(model: str, out: Path, tokens: int) -> dict[str, list[int]]:
    """Forecast and measured bytes of accumulators, of the process at its peak, and of the run file."""
    config = RunConfig(model=model, corpora=("stdlib",), tokens=tokens, context_length=64, windows_per_document=4)
    loaded = load_model(config)
    ahead = forecast(config, loaded.spec, in_use=resident())
    with Store(out) as store:
        run = Pass(loaded, config, store)
        for _ in run.steps():
            pass
        state = n_bytes(run.recorder.accumulators())
        run.write()
        size = store.finish()
    return {
        "accumulators": [ahead.memory_parts["accumulators"], state],
        "memory": [ahead.memory, peak_resident()],
        "file": [ahead.bytes, size],
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
