"""Rows of a dataset of the hub, streamed by `datasets`: `hf:name`, `hf:name:config`, `hf:name:config:split`.

A split may be one, several (`train+test`) or a part (`train[:1000]`, `test[10%:20%]`), as `datasets` writes them;
without one it is `train`. `datasets` does not stream parts: rows are skipped and taken here, so a part that begins late
reads what comes before it. A split of the only configuration is `hf:name::split`. A folder that stands where a name
would look is refused, or `datasets` would read it in place of the hub's; as `hf:./folder` it is read so on purpose.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from profiler.errors import CorpusError

WRITTEN = re.compile(r"hf:(?P<name>[^:]+)(:(?P<config>[^:\[+]*))?(:(?P<split>.+))?", re.DOTALL)
ENDLESS = 2**62


@dataclass(frozen=True)
class Hub:
    """A dataset of the hub as the user wrote it; `config` is None where none is given."""

    place: str
    name: str
    config: str | None
    split: str

    @classmethod
    def parse(cls, place: str) -> "Hub":
        """Take `hf:name[:config][:split]` apart.

        Raises:
            CorpusError: it is not written so, or names a folder here.
        """
        written = WRITTEN.fullmatch(place)
        if not written:
            raise CorpusError(f"corpus {place!r} cannot be read: write a hub dataset as hf:name[:config][:split]")
        name = written["name"]
        if not name.startswith((".", "/")) and Path(name).exists():
            raise CorpusError(
                f"corpus {place!r} is also a folder or file here, which would be read in place of the hub's: give"
                f" {name} to read its files, hf:./{name} to have datasets read it, or work in another folder"
            )
        return cls(place, name, written["config"] or None, written["split"] or "train")


def rows(place: str, *, remote_code: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows with their ids, `name:number` (with the split, where there are several).

    Raises:
        CorpusError: there is no such dataset, configuration or split, or it cannot be reached.
    """
    hub = Hub.parse(place)
    try:
        builder = datasets.load_dataset_builder(
            hub.name, hub.config, **({"trust_remote_code": True} if remote_code else {})
        )
        parts = _parts(hub, builder)
        for split, first, last in parts:
            rows = builder.as_streaming_dataset(split).skip(first).take(last - first)
            label = hub.name if len(parts) == 1 else f"{hub.name}:{split}"
            for number, row in enumerate(rows, first):
                yield f"{label}:{number}", row
    except CorpusError:
        raise
    except Exception as error:
        raise CorpusError(
            f"corpus {place!r} cannot be read: {_reason(error, hub)}. Check the name and the network"
        ) from error


def _parts(hub: Hub, builder: datasets.DatasetBuilder) -> list[tuple[str, int, int]]:
    """Splits to read, each from a row to another.

    Raises:
        CorpusError: a share of a split is asked for whose number of rows is not known.
    """
    known = {name: info.num_examples for name, info in (builder.info.splits or {}).items() if info.num_examples}
    names = re.findall(r"[\w.-]+(?=\[|\+|$|\s)", hub.split)
    lengths = {name: known.get(name, ENDLESS) for name in names} | known
    parts = datasets.ReadInstruction.from_spec(hub.split).to_absolute(lengths)
    if unknown := [
        part.splitname for part in parts if part.splitname not in known and re.search(r"%|\[-|:-", hub.split)
    ]:
        raise CorpusError(
            f"corpus {hub.place!r} asks for a share of {unknown[0]!r}, and how many rows that has is not known: give"
            f" rows, as {unknown[0]}[:1000]"
        )
    return [(part.splitname, part.from_, part.to) for part in parts]


def _reason(error: Exception, hub: Hub) -> str:
    """What went wrong, in a sentence that names the choices."""
    lines = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    if "Config name is missing" in lines[0] or "BuilderConfig" in lines[0]:
        names = datasets.get_dataset_config_names(hub.name)
        reason = f"it has no configuration {hub.config!r}" if hub.config else "it has several configurations"
        return (
            f"{reason}; give one of {', '.join(names)} as hf:{hub.name}:{names[0]} (hf:{hub.name}::split for a split"
            " alone)"
        )
    return lines[0][:300].rstrip(".")
