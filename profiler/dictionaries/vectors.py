"""Directions and subspaces: a probe or steering vector, a linear combination of neurons, a matrix.

A vector v of a site is a direction: its value is the projection x . v / |v|, and its part of what stands there is that
times v / |v|. A combination of neurons keeps the value that it is written as, 0.4*L2N10 + 0.3*L2N77 of their
activations, and its part is what lies along it: value * v / |v|^2. A subspace is spanned by the rows of a matrix, which
are made orthonormal: its value is the size of the projection, and its part the projection.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from profiler.dictionaries.dictionary import Dictionary, Place, Projection
from profiler.errors import DictionaryError

Width = Callable[[Place], int]
MOST_TEXT, LEAST_SPAN = 2**22, 1e-6
"""Bytes of a file of combinations; smallest singular value of a subspace's matrix, relative to the largest."""
COMBINATION = re.compile(r"(?P<name>[A-Za-z_][\w.\- ]*?)\s*=\s*(?P<sum>[^=]+)")
TERM = re.compile(
    r"\s*(?P<sign>[+-])?\s*((?P<factor>\d+\.?\d*(e[+-]?\d+)?|\.\d+)\s*\*\s*)?L(?P<layer>\d+)N(?P<unit>\d+)\s*",
    re.IGNORECASE,
)
TEXTS = (".txt", ".directions")
ROTATION = ("subspace", "rotation", "rotate_layer.weight", "rotate_layer.parametrizations.weight.original")
"""Names that say that a matrix spans a subspace; pyvene's are the last two."""


def directions(file: Path, found: Mapping[str, Tensor], place: Place, width: Width) -> Dictionary:
    """Every vector of a file as a direction; or the subspace that its matrix is named as.

    Args:
        found: the file's tensors.

    Raises:
        DictionaryError: a vector is of another width than the site, or is 0.
    """
    if len(found) == 1 and next(iter(found)) in ROTATION:
        return subspace(file, found, place, width)
    d_in, named = width(place), dict[str, Tensor]()
    for name, value in found.items():
        if value.dim() == 1:
            named[name] = value
        elif value.dim() == len(("direction", "width")):
            named |= {f"{name}_{i}": row for i, row in enumerate(value)}
    if not named or any(len(vector) != d_in for vector in named.values()):
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in list(found.items())[:6])
        raise DictionaryError(
            f"{file} holds {shapes}, and {place} is {d_in} wide: give vectors of that width, or a dictionary's folder"
        )
    return _along(named, place, "vectors", unit=True)


def combinations(file: Path, layer: int, width: Width) -> Dictionary:
    """The combinations of a layer's neurons that a text file names, a line each: NAME = 0.4*L2N10 + 0.3*L2N77.

    Raises:
        DictionaryError: a line cannot be read, or names neurons of another layer or beyond the last.
    """
    try:
        if file.stat().st_size > MOST_TEXT:
            raise ValueError(f"it has more than {MOST_TEXT:,} bytes")
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DictionaryError(
            f"{file} cannot be read ({error}): a text of lines NAME = 0.4*L2N10 is expected"
        ) from None
    place = Place(layer, "mlp_post")
    named: dict[str, Tensor] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            name, vector = _combination(text, place, width(place), f"{file}, line {number}")
            if name in named:
                raise DictionaryError(f"{file}, line {number}: {name!r} is defined twice")
            named[name] = vector
    if not named:
        raise DictionaryError(
            f"{file} names no combination: write lines such as NAME = 0.4*L{layer}N10 + 0.3*L{layer}N77"
        )
    return _along(named, place, "combinations of neurons", unit=False)


def _combination(text: str, place: Place, d_mlp: int, where: str) -> tuple[str, Tensor]:
    """A combination's name, and its factor for each neuron, float64.

    Raises:
        DictionaryError: it cannot be read, or names a neuron that the layer has not.
    """
    match = COMBINATION.fullmatch(text)
    vector, at = torch.zeros(d_mlp, dtype=torch.float64), 0
    terms = match["sum"] if match else ""
    while match and at < len(terms):
        term = TERM.match(terms, at)
        if term is None or (at and term["sign"] is None):
            break
        layer, unit = int(term["layer"]), int(term["unit"])
        if layer != place.layer or unit >= d_mlp:
            raise DictionaryError(
                f"{where}: L{layer}N{unit} is no neuron of layer {place.layer}, which has {d_mlp:,}: a combination is"
                " of one layer's neurons"
            )
        vector[unit] += float(term["factor"] or 1) * (-1 if term["sign"] == "-" else 1)
        at = term.end()
    if match is None or at < len(terms):
        raise DictionaryError(f"{where}: {text[:80]!r} cannot be read: write NAME = 0.4*L2N10 + 0.3*L2N77")
    return match["name"].strip(), vector


def _along(named: dict[str, Tensor], place: Place, form: str, *, unit: bool) -> Dictionary:
    """Directions along vectors.

    Args:
        unit: whether the vectors are taken as unit vectors.

    Raises:
        DictionaryError: a vector is 0.
    """
    rows = torch.stack([vector.to(torch.float64) for vector in named.values()])
    sizes = rows.norm(dim=1, keepdim=True)
    if bool((sizes == 0).any()):
        empty = list(named)[int((sizes == 0).nonzero()[0, 0])]
        raise DictionaryError(f"the direction {empty!r} is 0 everywhere: leave it out")
    read = rows / sizes if unit else rows
    written = rows / sizes if unit else rows / sizes.square()
    return Dictionary(
        "direction",
        form,
        place,
        place,
        read.T.contiguous(),
        written,
        rows.new_zeros(rows.shape[1]),
        Projection(),
        rebuilds=False,
        names=tuple(named),
    )


def subspace(file: Path, tensors: Mapping[str, Tensor], place: Place, width: Width) -> Dictionary:
    """The subspace that a file's only matrix spans, along whichever side is as wide as the site.

    Args:
        tensors: the file's.

    Raises:
        DictionaryError: the file holds no such matrix, or its rows depend on one another.
    """
    found, d_in = list(tensors.values()), width(place)
    if len(found) != 1 or found[0].dim() != len(("row", "column")) or d_in not in found[0].shape:
        raise DictionaryError(
            f"{file} holds {', '.join(str(list(value.shape)) for value in found[:6])}, and a subspace of {place} is one"
            f" matrix with a side of {d_in}"
        )
    matrix = found[0].to(torch.float64)
    rows = matrix if matrix.shape[1] == d_in else matrix.T
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    if len(rows) > d_in or float(sizes[-1]) <= LEAST_SPAN * float(sizes[0]):
        raise DictionaryError(
            f"the {len(rows)} vectors of {file} depend on one another: give as many as the subspace has"
        )
    return Dictionary(
        "subspace",
        f"subspace of {len(rows)} dimensions, made orthonormal",
        place,
        place,
        basis.T.contiguous(),
        basis.contiguous(),
        basis.new_zeros(d_in),
        Projection(),
        rebuilds=False,
        names=(file.stem,),
    )
