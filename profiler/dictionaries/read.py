"""What `--dictionary` names: where a dictionary stands, where its files are, and which reader reads them.

L2=FOLDER                       where it stands is said by its files, in layer 2
L2.resid_post=FILE              an autoencoder, a vector or a matrix at a site
L2.mlp_in:mlp_out=FILE          a transcoder
L2.resid_post=subspace:FILE     the rows of a matrix span a subspace
L2=bundled:autoencoder          one of the bundled model's: autoencoder, transcoder
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from profiler.dictionaries import released, saelens, tensors, vectors
from profiler.dictionaries.dictionary import Dictionary, Place
from profiler.dictionaries.hooks import READ_ALONE, SITES
from profiler.dictionaries.tensors import ENDINGS, PICKLES
from profiler.errors import DictionaryError

ASKED = re.compile(r"L(?P<layer>\d{1,6})(\.(?P<reads>\w+)(:(?P<writes>\w+))?)?=(?P<path>.+)", re.DOTALL)
SUBSPACE, OURS = "subspace:", "bundled:"
BUNDLED = Path(__file__).parents[1] / "bundled" / "dictionaries"
"""Where the bundled model's dictionaries are."""
HASHED_BYTES = 2**24
NAMES = ("params.npz", "params.safetensors")
"""Files that a folder of Gemma Scope holds."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        reads, writes: sites that were named; None where the files say it.
        path: a file or a folder.
        spans: whether the file's matrix spans a subspace.
    """

    layer: int
    reads: Place | None
    writes: Place | None
    path: Path
    spans: bool

    @classmethod
    def parse(cls, text: str) -> "Request":
        """What a text asks for.

        Raises:
            DictionaryError: it is of another form, or names a site that there is not.
        """
        match = ASKED.fullmatch(text)
        if match is None:
            raise DictionaryError(
                f"--dictionary {text!r} cannot be read: write LAYER=PATH, as in L2=FOLDER, or LAYER.SITE=PATH, as in"
                " L2.resid_post=FILE, or of a transcoder L2.mlp_in:mlp_out=FILE"
            )
        layer, reads = int(match["layer"]), match["reads"]
        writes = match["writes"] or reads
        for site in (reads, writes):
            if site is not None and site not in SITES:
                raise DictionaryError(f"--dictionary {text!r} names site {site!r}: choose of {', '.join(SITES)}")
        if reads is not None and match["writes"] is None and reads in READ_ALONE:
            raise DictionaryError(
                f"--dictionary {text!r}: nothing writes {reads}; of a transcoder give both, {reads}:mlp_out"
            )
        spans, given = match["path"].startswith(SUBSPACE), match["path"].removeprefix(SUBSPACE)
        path = BUNDLED / given.removeprefix(OURS) if re.fullmatch(rf"{OURS}\w+", given) else Path(given).expanduser()
        places = [None if site is None else Place(layer, site) for site in (reads, writes)]
        return cls(layer, places[0], places[1], path, spans)


def read(asked: str, width: vectors.Width) -> Dictionary:
    """The dictionary that a text names.

    Args:
        width: of each site of the model.

    Raises:
        DictionaryError: there is none, it cannot be read, or it stands in another layer.
    """
    request = Request.parse(asked)
    if not request.path.exists():
        raise DictionaryError(
            f"--dictionary {asked}: {request.path} is not there: name a file or a folder of this machine"
        )
    found = _found(request, width)
    if found.reads.layer != request.layer:
        raise DictionaryError(
            f"--dictionary {asked}: the files say that it stands in layer {found.reads.layer}: write"
            f" L{found.reads.layer}={request.path}"
        )
    return replace(found, source=str(request.path), digest=_digest(request, found))


def _found(request: Request, width: vectors.Width) -> Dictionary:
    path, layer, given = request.path, request.layer, (request.reads, request.writes)
    if path.is_dir():
        if (path / saelens.SETTINGS).is_file():
            return saelens.read(path, *given)
        if released.is_cross_layer(path, layer):
            return released.read_cross_layer(path, layer, *given)
        file = next((path / name for name in NAMES if (path / name).is_file()), None)
        file = file or next((f for f in [path / f"layer_{layer}.safetensors"] if f.is_file()), None)
        if file is None:
            raise DictionaryError(
                f"{path} holds no dictionary that can be read: it has neither {saelens.SETTINGS} (SAELens), {NAMES[0]}"
                f" or {NAMES[1]} (Gemma Scope), W_enc_{layer}.safetensors (a cross-layer transcoder) nor"
                f" layer_{layer}.safetensors (circuit-tracer)"
            )
        return released.read(file, tensors.read(file), layer, *given)
    if path.suffix in vectors.TEXTS:
        return vectors.combinations(path, layer, width)
    if path.suffix not in (*ENDINGS, *PICKLES):
        raise DictionaryError(
            f"{path} is no dictionary: give a folder, a {', '.join(ENDINGS)} file, or a {vectors.TEXTS[0]} file of"
            " combinations"
        )
    found = tensors.read(path)
    if request.spans:
        return vectors.subspace(path, found, _site(request), width)
    if any(name.lower() == "w_dec" for name in found):
        return released.read(path, found, layer, *given)
    return vectors.directions(path, found, _site(request), width)


def _site(request: Request) -> Place:
    if request.reads is None or request.reads != request.writes:
        raise DictionaryError(
            f"--dictionary L{request.layer}={request.path}: a vector does not say where it stands: give one site, as in"
            f" L{request.layer}.resid_post={request.path}"
        )
    return request.reads


def _files(request: Request) -> Iterator[Path]:
    """The files that a dictionary is made of."""
    path, layer = request.path, request.layer
    if path.is_file():
        yield path
        return
    names = (saelens.SETTINGS, saelens.WEIGHTS, *NAMES, "config.json", "config.yaml", f"layer_{layer}.safetensors")
    of_layer = (f"W_enc_{layer}.safetensors", f"W_dec_{layer}.safetensors")
    yield from (path / name for name in (*names, *of_layer) if (path / name).is_file())


def _digest(request: Request, found: Dictionary) -> str:
    """Hash of where it stands and of every file's name and bytes."""
    digest = hashlib.blake2b(f"{found.reads} {found.writes} {found.kind}".encode(), digest_size=16)
    for file in _files(request):
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            while piece := opened.read(HASHED_BYTES):
                digest.update(piece)
    return digest.hexdigest()
