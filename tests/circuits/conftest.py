"""Attention in float64, so that equality can be asked for there."""

import pytest
import torch


@pytest.fixture(autouse=True)
def softmax_in_its_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models round attention to float32; without that, equality can be asked for in float64."""
    plain = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim=-1, **_: plain(x, dim=dim))
