"""How fast the pass is beside the model's own forward pass and beside what else one would use.

`shapes` makes the models, `rivals` what they are measured with, `script` is the script a user would write, `stages`
times the parts of our pass, `memory` runs a pass in a process of its own for its peak and file, `measure` puts them
side by side.

Everything runs in one process on the same batches, interleaved, in several rounds; what is stated are medians over
rounds and ratios inside a round. Absolute times on shared machines are noise; a ratio inside one round is not. On a CPU
the time is that of the process' own cycles (all threads), so other processes matter less; with an accelerator it is the
clock's.
"""

from profiler.bench.measure import Measurement, measure
from profiler.bench.shapes import SHAPES

__all__ = ["SHAPES", "Measurement", "measure"]
