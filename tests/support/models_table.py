"""The tables of docs/models.md, made by loading each family: `python tests/support/models_table.py` writes them."""

import logging
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import tiny  # noqa: E402
import torch  # noqa: E402
import zoo  # noqa: E402

from profiler.config import RunConfig  # noqa: E402
from profiler.errors import ModelError  # noqa: E402
from profiler.model.load import load_model, model_from  # noqa: E402
from profiler.model.steps.as_network import network_of  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- table of families -->", "<!-- end of table -->"
REFUSALS = "<!-- table of refusals -->"
HEAD = "| family | class in transformers | units | attention rows | patched | read by TransformerLens |"


def row(name: str) -> str:
    """A family's line: what is recorded of it, and whether it is patched."""
    network = zoo.build(name, torch.float32)
    kind = type(network).__name__
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        model = load_model(RunConfig(model=folder, corpora=("x",), context_length=40))
        bridged = "yes" if model.bridge else "no"  # read from the folder when it is asked for
    kinds = {"head": "heads", "neuron": "neurons", "mixer": "mixer channels", "per_layer": "per-layer units"}
    units = ", ".join(kinds[k] for k in kinds if any(block.kind == k for block in model.spec.blocks))
    experts = any(block.is_routed for block in model.spec.blocks)
    units = units.replace("neurons", "neurons of experts", 1) if experts else units
    has_heads = any(block.kind == "head" for block in model.spec.blocks)
    unread = any("attention weights cannot be read" in note for note in model.spec.notes)
    rows = "no heads" if not has_heads else "no" if unread else "yes"
    net = network_of(model)
    patched = "units" if not net.n_heads else "yes" if net.heads_direct else "yes, not checked"
    return f"| {name} | {kind} | {units} | {rows} | {patched} | {bridged} |"


def table() -> str:
    """The whole table."""
    logging.disable(logging.WARNING)
    try:
        return "\n".join([HEAD, "|---|---|---|---|---|---|", *(row(name) for name in zoo.FAMILIES)])
    finally:
        logging.disable(logging.NOTSET)


def refusal(name: str) -> str:
    """A refused family's line: why, in the words of the refusal."""
    torch.manual_seed(0)
    network = zoo.REFUSED[name]().eval()
    for parameter in network.parameters():
        parameter.data.add_(zoo.NOISE * torch.randn_like(parameter))
    kind = type(network).__name__
    try:
        model_from(network, tiny.tokenizer(), RunConfig(model="NAME", corpora=("x",), context_length=40))
    except ModelError as error:
        why = str(error).removeprefix(f"'NAME' ({kind}) ").replace("'NAME'", "the model")
        return f"| {name} | {kind} | {why} |"
    raise AssertionError(f"{name} is read: it belongs to the families")


def refusals() -> str:
    """The table of what is refused."""
    lines = (refusal(name) for name in zoo.REFUSED)
    return "\n".join(["| family | class in transformers | the refusal |", "|---|---|---|", *lines])


def written(mark: str = BEGIN) -> str:
    """A table as it stands in the page."""
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index(mark) + len(mark)
    return text[begin : text.index(END, begin)].strip()


def replaced(text: str, mark: str, table: str) -> str:
    """The page's text with a table in its place."""
    begin = text.index(mark) + len(mark)
    return f"{text[:begin]}\n{table}\n{text[text.index(END, begin) :]}"


if __name__ == "__main__":
    text = replaced(PAGE.read_text(encoding="utf-8"), BEGIN, table())
    PAGE.write_text(replaced(text, REFUSALS, refusals()), encoding="utf-8")
