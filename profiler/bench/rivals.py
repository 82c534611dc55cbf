"""What the pass is measured beside: functions of one batch of token ids.

* `forward`: the bare Hugging Face forward with fused attention, logits of every position: the limit.
* `transformer_lens`: `run_with_cache` of what heads and neurons wrote and the final residual stream, and nothing else.
* `nnsight`: saves the same tensors (optional: pip install generality-profiler[bench]).
* `script`: the straightforward script, profiler.bench.script.
* `split_script`: the same with the splits and ends that `record` keeps, on a CPU: nearer to like with like.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from profiler.bench.script import Script, SplitScript, bridge_of
from profiler.model.load import Model
from profiler.model.wiring import site_of

Rival = Callable[[Tensor], object]
NO_NNSIGHT = "nnsight is not installed and was left out: pip install 'generality-profiler[bench]'"


def rivals(network: PreTrainedModel, model: Model, class_ids: list[int]) -> dict[str, Rival]:
    """The rivals that are installed, by name.

    Args:
        network: a plain one of the same weights.
        class_ids: class of each token id.
    """
    bridge = bridge_of(model)
    passes: dict[str, Rival] = {
        "forward": _forward(network),
        "transformer_lens": _transformer_lens(model),
        "script": Script(bridge).batch,
    }
    if next(network.parameters()).device.type == "cpu":
        passes["split_script"] = SplitScript(bridge, classes=torch.tensor(class_ids)).batch
    return passes | ({"nnsight": _nnsight(network, model)} if find_spec("nnsight") else {})


def _forward(network: PreTrainedModel) -> Rival:
    @torch.inference_mode()
    def forward(tokens: Tensor) -> Tensor:
        logits: Tensor = network(tokens, use_cache=False).logits
        return logits

    return forward


def _transformer_lens(model: Model) -> Rival:
    bridge, layers = bridge_of(model), range(model.spec.n_layers)
    names = {f"blocks.{i}.{part}" for i in layers for part in ("attn.hook_z", "mlp.out.hook_in")} | {"ln_final.hook_in"}

    @torch.inference_mode()
    def cached(tokens: Tensor) -> object:
        return bridge.run_with_cache(tokens, names_filter=lambda name: name in names)

    return cached


def _nnsight(network: PreTrainedModel, model: Model) -> Rival:
    from nnsight import NNsight, save

    watched, wiring = NNsight(network), model.weights.wiring
    modules = [writer.site for writer in model.weights.sources.writers]
    modules += (
        [site_of(wiring.final.name)] if wiring.final else []
    )  # in the order in which the model runs, which nnsight wants

    @torch.inference_mode()
    def saved(tokens: Tensor) -> list[Tensor]:
        with watched.trace(tokens):
            saved_values: list[Tensor] = save([_at(watched, module).input for module in modules])
        return saved_values

    return saved


def _at(envoy: Any, module: str) -> Any:
    for name in module.split("."):
        envoy = envoy[int(name)] if name.isdigit() else getattr(envoy, name)
    return envoy
