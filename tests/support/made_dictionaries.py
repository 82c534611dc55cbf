"""Dictionaries made for tests: random ones in the form of SAELens, of any site, and those whose units are planted."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

HOOKS = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "mlp_post": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
    "mlp_in": "mlp.hook_in",
    "mlp_normalized": "ln2.hook_normalized",
}


def random_one(
    folder: Path, layer: int, site: str, d_in: int, units: int = 12, *, seed: int = 0, d_out: int = 0, **cfg: Any
) -> str:
    """Save a dictionary with random weights; what `--dictionary` takes to read it.

    Args:
        d_out: of a transcoder to the MLP's output, its width.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / shape[-1] ** 0.5

    weights = {"W_enc": drawn(d_in, units), "W_dec": drawn(units, d_out or d_in)}
    weights |= {"b_enc": drawn(units) - 0.2, "b_dec": drawn(d_out or d_in)}
    metadata = {"hook_name": f"blocks.{layer}.{HOOKS[site]}"}
    if d_out:
        metadata["hook_name_out"] = f"blocks.{layer}.hook_mlp_out"
        cfg = {"architecture": "transcoder"} | cfg
    if cfg.get("architecture", "").startswith("jumprelu"):
        weights["threshold"] = drawn(units).abs()
    if "skip" in cfg.get("architecture", ""):
        weights["W_skip"] = drawn(d_out, d_in)
    return save(folder, weights, metadata=metadata, **cfg)


def save(folder: Path, weights: dict[str, torch.Tensor], *, metadata: dict[str, Any], **cfg: Any) -> str:
    """Save weights in the form of SAELens; what `--dictionary` takes to read them."""
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps({"architecture": "standard", "metadata": metadata} | cfg))
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "sae_weights.safetensors")
    layer = metadata["hook_name"].split(".")[1]
    return f"L{layer}={folder}"
