"""Memory of tensors, counted as they are made and let go."""

import weakref
from collections.abc import Collection

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Bytes of what operations make while this is active.

    Attributes:
        live: of what is alive now.
        peak: the most that was alive at once.
        largest: of the largest tensor.
    """

    def __init__(self, dtypes: Collection[torch.dtype] | None = None):
        super().__init__()
        self.dtypes, self.known = dtypes, weakref.WeakValueDictionary()
        self.live = self.peak = self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for value in tree_leaves((args, kwargs)):
            if torch.is_tensor(value):
                self._is_known(value)  # made before, or elsewhere
        out = function(*args, **kwargs)
        for value in tree_leaves(out):
            if torch.is_tensor(value) and not self._is_known(value):
                self._count(value)
        return out

    def note(self, n_bytes: int) -> None:
        """Take what something else than torch holds now beside it."""
        self.peak = max(self.peak, self.live + n_bytes)

    def _is_known(self, value: torch.Tensor) -> bool:
        storage = value.untyped_storage()
        known = storage._cdata in self.known
        self.known[storage._cdata] = storage
        return known

    def _count(self, value: torch.Tensor) -> None:
        if self.dtypes is not None and value.dtype not in self.dtypes:
            return
        storage = value.untyped_storage()
        n_bytes = storage.nbytes()
        self.live += n_bytes
        self.peak, self.largest = max(self.peak, self.live), max(self.largest, n_bytes)
        weakref.finalize(storage, self._let_go, n_bytes)

    def _let_go(self, n_bytes: int) -> None:
        self.live -= n_bytes
