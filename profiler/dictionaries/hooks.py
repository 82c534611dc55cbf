"""Sites of a layer that a dictionary reads or writes, and the names that other tools have for them.

| site | what stands there |
|---|---|
| resid_pre, resid_post | the residual stream before and after a layer |
| resid_mid | the residual stream that the norm before the MLP reads |
| attn_z | what the heads mixed, side by side, before W_O |
| attn_out, mlp_out | what the attention and the MLP add to the residual stream, after a norm of their own |
| attn_written, mlp_written | the same before such a norm |
| mlp_in | what the MLP reads: the norm's output |
| mlp_normalized | the same before the norm's gain and bias |
| mlp_post | activations of the neurons |
"""

import re

from profiler.dictionaries.dictionary import Place
from profiler.errors import DictionaryError

SITES = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_z",
    "attn_out",
    "attn_written",
    "mlp_in",
    "mlp_normalized",
    "mlp_post",
    "mlp_out",
    "mlp_written",
)
READ_ALONE = ("mlp_in", "mlp_normalized")
"""Sites that a dictionary reads and none writes: they are what an MLP reads, and reach the logits through it."""
OF_TRANSFORMER_LENS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_in": "resid_mid",
    "hook_resid_post": "resid_post",
    "attn.hook_z": "attn_z",
    "hook_attn_out": "attn_out",
    "attn.hook_out": "attn_written",
    "ln2.hook_normalized": "mlp_normalized",
    "ln2.hook_out": "mlp_in",
    "mlp.hook_in": "mlp_in",
    "mlp.hook_post": "mlp_post",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_out": "mlp_written",
}
OF_MODULES = {
    "output": "resid_post",
    "self_attn.o_proj.input": "attn_z",
    "post_attention_layernorm.output": "attn_out",
    "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm.output": "mlp_out",
}
"""Of the names that Gemma Scope 2 writes, for Gemma 3."""
TRANSFORMER_LENS = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<site>[\w.]+)")
MODULES = re.compile(r"model\.(language_model\.)?layers\.(?P<layer>\d+)\.(?P<site>[\w.]+)")


def place_of(hook: str) -> Place:
    """The place that a hook of TransformerLens or a module of transformers names.

    Raises:
        DictionaryError: it names none that a dictionary can stand at.
    """
    for pattern, sites in ((TRANSFORMER_LENS, OF_TRANSFORMER_LENS), (MODULES, OF_MODULES)):
        match = pattern.fullmatch(hook)
        if match is not None and match["site"] in sites:
            return Place(int(match["layer"]), sites[match["site"]])
    raise DictionaryError(
        f"the dictionary's hook {hook[:100]!r} is no site that is known: give the site yourself, as in"
        f" --dictionary L2.resid_post=..., of {', '.join(SITES)}"
    )
