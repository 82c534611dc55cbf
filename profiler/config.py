"""Everything that changes a run's numbers, frozen, validated, stored whole in the run and hashed into its id."""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FREE = ("disk_budget", "memory_limit", "device_map", "trust_remote_code", "allow_pickle")
OF_FILES = ("dictionaries",)
"""Settings that name files, whose content counts and not their place."""
"""Settings that change no number; what a disk budget lowered is among the others."""
QUANTILES = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999]


MOST_ROWS = 10_000_000
"""More kept rows than any machine holds: what is beyond is a slip of the pen."""


class ModelSettings(BaseModel):
    """Which model is loaded, how, and what may run: all that loading one asks for.

    Raises:
        pydantic.ValidationError: a value is out of range (the command line turns it into a sentence).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    base: str | None = Field(default=None, description="of a LoRA adapter, the model that it is merged into")
    device: str = "cpu"
    device_map: Literal["auto"] | None = Field(default=None, description="accelerate reads the weights onto the device")
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    context_length: int | None = Field(default=None, ge=4)
    prepend_bos: bool | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    dictionaries: tuple[str, ...] = Field(
        default=(), description="dictionaries at sites of the model, as L2=FOLDER (profiler.dictionaries.read)"
    )


class RunConfig(ModelSettings):
    """The settings of one pass. Attributes are those of the command line; see `profiler record --help`.

    Raises:
        pydantic.ValidationError: a value is out of range (the command line turns it into a sentence).
    """

    corpora: tuple[str, ...] = Field(min_length=1)
    shard: str | None = Field(default=None, description="the part of the corpus to read, 1/4; None reads all of it")
    tokens: int | None = Field(default=1_000_000, gt=0, description="stop after this many tokens; None reads all")
    text_field: str = "text"
    id_field: str = "id"
    domain_field: str | None = None
    components: tuple[str, ...] = ()
    layers: str | None = Field(default=None, description="layers to record, 0,4,10-20; None records all")
    kinds: tuple[Literal["head", "neuron", "mixer", "per_layer", "feature", "direction", "subspace"], ...] = Field(
        default=(), description="kinds of components to record; empty records all"
    )
    select: tuple[str, ...] = Field(default=(), description="labels of components to record; empty records all")
    features: str | None = Field(default=None, description="features to record, 0-999 or 3,17; None records all")
    seed: int = Field(default=0, ge=0, lt=2**63)
    windows_per_document: int | None = Field(default=None, ge=1, description="random windows; None reads all")
    batch_size: int = Field(default=16, gt=0)
    shuffle_buffer: int = Field(default=10_000, ge=1)
    samples_per_stratum: int | None = Field(
        default=None, ge=1, le=MOST_ROWS, description="None follows the number of components"
    )
    extremes: int = Field(default=10, ge=1, le=MOST_ROWS)
    dense_positions: int | None = Field(
        default=None, ge=0, le=MOST_ROWS, description="None follows the number of components"
    )
    replicate_groups: int = Field(default=8, ge=2, le=1024, description="groups of documents per domain")
    logit_effects: int = Field(default=10, ge=0)
    token_sums: Literal["heads", "all", "none"] = Field(
        default="heads", description="components with sums per token id"
    )
    classes: tuple[str, ...] = Field(default=(), description="token classes of the user's own, NAME=CONDITION")
    disk_budget: int | None = Field(default=None, gt=0, description="bytes")
    memory_limit: int | None = Field(default=None, gt=0, description="bytes; None: what the machine has")

    def digest(self) -> str:
        """Hash of the settings that change numbers; batch size and device only round differently and are left out."""
        fields = self.model_dump(mode="json", exclude={"batch_size", "device", *FREE, *OF_FILES})
        return hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8).hexdigest()
