"""Options of the commands: one annotated type each, so that a command's signature reads as a list; counts as text."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from profiler.errors import ComponentError, ProfilerError

SECONDS = {"s": 1, "m": 60, "h": 3600}
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

MOST_SEED = 2**32 - 1
"""What every generator of random numbers takes."""
RunFile = Annotated[Path, typer.Argument(help="a run that `profiler record` wrote")]
ModelName = Annotated[str, typer.Argument(help="bundled, a Hugging Face name, or a local directory")]
Corpora = Annotated[
    list[str],
    typer.Option(
        help=(
            "stdlib, files (.txt .json .jsonl .csv .tsv .parquet .arrow; packed as .gz .bz2 .xz .zst; a folder or a"
            " glob of them) or hf:name[:config][:split], such as hf:name:config:train[:1000]; name=... names the"
            " domain; may be repeated"
        )
    ),
]
Out = Annotated[Path, typer.Option(help="the run file to write")]
Tokens = Annotated[str, typer.Option(help="tokens to read (300k, 1M), or all")]
TextField = Annotated[
    str,
    typer.Option(
        help=(
            "field that holds the text, or a conversation (messages of role and content); meta.text is text inside meta"
        )
    ),
]
IdField = Annotated[str, typer.Option(help="field that holds the document's id")]
DomainField = Annotated[str | None, typer.Option(help="field that names the document's domain")]
Components = Annotated[str, typer.Option(help="heads and neurons to record at every position, as L2H3,L0N17")]
Layers = Annotated[str | None, typer.Option(help="record these layers alone, as 10-20 or 0,4,10-20")]
Kinds = Annotated[str, typer.Option(help="record these kinds of components alone, as head or head,neuron")]
Dictionaries = Annotated[
    list[str] | None,
    typer.Option(
        "--dictionary",
        metavar="LAYER[.SITE]=PATH",
        help=(
            "record the features of a dictionary (SAELens, Gemma Scope, circuit-tracer), a vector, a .txt file of"
            " combinations of neurons or (subspace:PATH) a matrix, as L2=FOLDER or L2.resid_post=FILE; may be repeated"
        ),
    ),
]
Features = Annotated[str | None, typer.Option(help="of dictionaries, record these features alone, as 0-999 or 3,17")]
Select = Annotated[
    Path | None,
    typer.Option(help="record the components that this file names alone, one label a line, as L2H3"),
]
Seed = Annotated[int, typer.Option(help="seed of the order of documents and of the samples")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")]
Base = Annotated[
    str | None,
    typer.Option(help="of a LoRA adapter, the model it belongs to (a name or a directory): it is merged into that"),
]
DeviceMap = Annotated[
    Literal["auto"] | None,
    typer.Option(help="read the weights straight onto --device with accelerate, not into this machine's memory first"),
]
DType = Annotated[Literal["float32", "float64", "bfloat16", "float16"], typer.Option(help="dtype the model runs in")]
ContextLength = Annotated[
    int | None, typer.Option(help="tokens per window, BOS included; default: the model's, at most 1024")
]
WindowsPerDocument = Annotated[
    int | None, typer.Option(help="read this many random windows of each document instead of all")
]
BatchSize = Annotated[int, typer.Option(help="windows per forward pass")]
DiskBudget = Annotated[
    str | None, typer.Option(help="largest size of the run file (500MB); fewer samples are kept to meet it")
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(help="most memory of the pass (8GB); batches are made smaller to meet it; default: what is free"),
]
DensePositions = Annotated[
    int | None,
    typer.Option(
        help="random positions at which every component is recorded; default: 1024, fewer beyond 10,000 components, at"
        " least 256"
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        help="random examples kept per component and stratum of activation; default: 4, or 2 beyond 10,000 components"
    ),
]
Extremes = Annotated[int, typer.Option(help="extremes kept per component, measure and side")]
TokenSums = Annotated[
    Literal["heads", "all", "none"],
    typer.Option(
        help="components with sums per token id, for exact splits by any class; those of --components always have them"
    ),
]
OwnClass = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME=CONDITION",
        help="a token class of your own, SQL over text, body, token_id and class; may be repeated",
    ),
]
ReplicateGroups = Annotated[int, typer.Option(help="groups of documents per domain, for standard errors")]
Bos = Annotated[
    bool | None,
    typer.Option("--bos/--no-bos", help="put a BOS before every window; default: where the tokenizer has one"),
]
ShuffleBuffer = Annotated[int, typer.Option(help="documents in the shuffle buffer")]
TrustRemoteCode = Annotated[bool, typer.Option(help="run code that comes with the model or the dataset")]
AllowPickle = Annotated[bool, typer.Option(help="load weights that are not safetensors (they can run code)")]
ModelOfRun = Annotated[
    str | None,
    typer.Option(
        help=(
            "bundled, a Hugging Face name, or a directory; default: the run's, if it is safetensors without code of"
            " its own"
        )
    ),
]
CorpusOfRun = Annotated[
    list[str] | None, typer.Option(help="the run's corpus, as it was given to record; may be repeated")
]
TokensOfRun = Annotated[
    str, typer.Option(help="tokens of the run's corpus to read again, in windows chosen by hash, or all")
]
PatchedRun = Annotated[Path, typer.Argument(help="the run to write into; created if it does not exist")]
Task = Annotated[str, typer.Argument(help="a built-in task (see profiler tasks), or a .jsonl file of pairs")]
Scheme = Annotated[str | None, typer.Option(help="corruption scheme; default: the task's first")]
Split = Annotated[
    Literal["train", "held_out"], typer.Option(help="pairs of words and wordings for training, or of held-out ones")
]
DrawSeed = Annotated[int, typer.Option(help="seed of all random draws", min=0, max=MOST_SEED)]
Metric = Annotated[
    str,
    typer.Option(
        help="what selects and judges: logit_diff, prob_diff, kl, accuracy, or FILE.py:FUNCTION (the file is executed)"
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(help="keep to this time (90s, 10m, 1.5h): what decides least is left out, and said"),
]
MetricOfCheck = Annotated[
    str | None,
    typer.Option(help="what judges, as for patch; default: the circuit's own, if it is a built-in one"),
]
Reread = Annotated[
    bool,
    typer.Option(
        "--reread", help="allow reading the files and hub datasets that the run names, not only stdlib and --corpus"
    ),
]
Overwrite = Annotated[bool, typer.Option(help="replace the run file if it exists, and discard a stopped pass")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="continue from the last commit of a stopped pass, or from the start if there is none"
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="read one part of the corpus, 1/4 to 4/4; `profiler merge` joins the runs"),
]
Engine = Annotated[
    Literal["local", "ray"], typer.Option(help="where chunks are read: in this process, or by workers on Ray")
]
Workers = Annotated[int, typer.Option(min=1, help="processes that hold the model, with --engine ray")]
Address = Annotated[
    str | None, typer.Option(help="the Ray cluster to join, with --engine ray; default: one is started on this machine")
]
ChunksPerPiece = Annotated[
    int,
    typer.Option(min=1, help="chunks of 256 windows that a worker reads before it sends its sums, with --engine ray"),
]
CommitEvery = Annotated[
    float,
    typer.Option(
        min=0, help="least seconds between commits; they take at most 3 % of the time (0: commit every chunk)"
    ),
]


def number(text: str) -> int:
    """A count such as 300000, 300k, 1.5M or 2GB.

    Raises:
        ProfilerError: it is not a count.
    """
    match = re.fullmatch(r"([0-9_.]+)\s*([kmgt]?)b?", text.strip().lower())
    try:
        return int(float(match[1]) * UNITS[match[2]]) if match else int("")
    except (ValueError, OverflowError):
        raise ProfilerError(f"{text!r} is not a count: write 300000, 300k, 1.5M or 2GB") from None


def seconds(text: str) -> float:
    """A time such as 90s, 10m or 1.5h, in seconds.

    Raises:
        ProfilerError: it is not a time above 0.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smh])", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise ProfilerError(f"{text!r} is not a time: write 90s, 10m or 1.5h")
    return float(match[1]) * SECONDS[match[2]]


def number_or_all(text: str) -> int | None:
    """A count; None for `all`.

    Raises:
        ProfilerError: it is neither.
    """
    return None if text.strip().lower() == "all" else number(text)


def labels_of_file(path: Path | None) -> tuple[str, ...]:
    """The lines of a file, without blank ones; none where there is no file.

    Raises:
        ComponentError: it cannot be read, or names nothing.
    """
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ComponentError(f"--select {path} cannot be read ({error}): give a file of labels, one a line") from None
    if not (named := tuple(dict.fromkeys(label for line in lines if (label := line.strip())))):
        raise ComponentError(f"--select {path} names no component: give a label a line, such as L2H3")
    return named


def labels(text: str) -> tuple[str, ...]:
    """The parts of a list with commas, without blanks around them."""
    return tuple(part for label in text.split(",") if (part := label.strip()))
