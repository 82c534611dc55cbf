"""A batch stays within its memory on any model, and how it is read changes no number."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import tiny
import torch
from live_bytes import LiveBytes
from passes import settings
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

import profiler
from profiler.config import RunConfig
from profiler.errors import ModelError, RunError
from profiler.model.direct import Attribution
from profiler.model.load import Model, load_model, model_from
from profiler.recording import forecast as forecasts
from profiler.recording import memory, tables
from profiler.recording.accumulators import compiled
from profiler.recording.batches import BatchSizes
from profiler.recording.forecast import forecast, within_memory
from profiler.recording.pipeline import Pass
from profiler.recording.write import Rows

SIZES = BatchSizes(windows=16, budget=100_000, fixed=10_000, held=50, single=5)


@pytest.mark.parametrize(
    ("width", "windows", "held"),
    [(10, 16, True), (300, 6, True), (1_800, 1, True), (1_801, 9, False), (18_000, 1, False), (90_000, 1, False)],
)
def test_a_batch_is_as_many_windows_as_fit(width, windows, held):
    """In 90,000 bytes: at 50 bytes of a position where all blocks are held, else at 5."""
    assert SIZES.fitting(width) == windows
    assert SIZES.holds(windows * width) == held
    fits = SIZES.bytes_of(windows, width) <= SIZES.budget
    assert fits == (width <= 18_000)
    if windows < SIZES.windows:
        one_more = SIZES.fixed + (windows + 1) * width * (SIZES.held if held else SIZES.single)
        assert one_more > SIZES.budget


def test_the_memory_of_a_batch_is_at_least_what_a_window_needs(base_config):
    spec = replace(load_model(base_config).spec, context_length=2**26)
    sizes = BatchSizes.of(base_config, spec)
    assert sizes.fitting(spec.context_length) == 1
    assert sizes.bytes_of(1, spec.context_length) == sizes.budget > 2_000_000_000
    assert BatchSizes.of(base_config.model_copy(update={"batch_memory": 10**6}), spec).budget == 10**6


FAMILIES = {
    "gpt1": "norms of the stream after each sum",
    "neox_parallel": "attention and MLP side by side",
    "gemma2": "norms after blocks, a soft cap",
    "qwen2_moe": "experts and a shared expert with a gate",
    "gpt_oss": "experts with biases, attention that is formed",
    "lfm2": "layers without heads",
}


@pytest.mark.parametrize(
    "name", [name if name == "gpt2" else pytest.param(name, marks=pytest.mark.slow) for name in tiny.ARCHITECTURES]
)
def test_blocks_read_one_at_a_time_leave_what_blocks_held_do(name, corpus):
    """The same windows at once: every table is the same to the bit, but for the sum of all DLA, whose order may be
    another."""
    both_ways(tiny.network(name), corpus)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [family if family == "gemma2" else pytest.param(family, marks=pytest.mark.monthly) for family in FAMILIES]
)
def test_so_they_do_in_other_families(family, corpus):
    import zoo  # looks at all of transformers

    both_ways(zoo.build(family, torch.float32).eval(), corpus)


def both_ways(network: PreTrainedModel, corpus: Path) -> None:
    config = settings(Path("network"), corpus, dtype="float32", batch_size=1, components=())
    model = model_from(network, tiny.tokenizer(), config)
    sizes = BatchSizes.of(config, model.spec)
    single = config.model_copy(update={"batch_memory": sizes.fixed + 1})
    assert not BatchSizes.of(single, model.spec).holds(1)
    held, other = (read(model, chosen) for chosen in (config, single))
    assert held.recorder.seen > 100
    tables, others = held.tables(), other.tables()
    assert tables.keys() == others.keys() >= {"positions", "closure", "spectrum_counts", "sample_rows", "dense_rows"}
    assert [name for name, frame in tables.items() if not frame.equals(others[name])] == []
    assert held.totals.carried == pytest.approx(other.totals.carried, rel=1e-12)


class ReadPass(Pass):
    """A pass that has read its corpus."""

    def tables(self) -> dict[str, pl.DataFrame]:
        """What it would write, without residuals, which are rounding errors."""
        made = {name: [of] if isinstance(of, pl.DataFrame) else [*of] for name, of in self.totals.frames().items()}
        frames = {name: pl.concat(parts) for name, parts in (made | self.store.rows).items() if parts}
        return {name: frame.drop("residual", strict=False) for name, frame in frames.items()}


def read(model: Model, config: RunConfig) -> ReadPass:
    run = ReadPass(model, config, Rows())
    for chunk in run.chunks():
        run.read(chunk)
    return run


def test_short_windows_of_a_pass_are_held_and_long_ones_are_not(base_config, monkeypatch):
    """Both ways in one pass: two forward passes for each batch of one long window, one for each of short windows."""
    model = load_model(base_config)
    sizes = BatchSizes.of(base_config, model.spec)
    budget = sizes.fixed + 30 * sizes.held
    config = base_config.model_copy(update={"batch_memory": budget, "batch_size": 4})
    seen: list[tuple[int, int]] = []

    def forward(tokens, wanted, own=model.forward):
        seen.append(tuple(tokens.shape))
        return own(tokens, wanted)

    read(replace(model, forward=forward), config)
    assert {width > 30 for _, width in seen} == {True, False}
    for windows, width in seen:
        assert seen.count((windows, width)) % 2 == 0 or width <= 30
        assert windows * width <= 30 or windows * width * sizes.single <= budget - sizes.fixed or windows == 1


def test_attribution_may_not_be_forgotten_of_a_second_pass(base_config, monkeypatch):
    """The parts of a batch that is read a block at a time must add up, or the pass ends."""
    model = load_model(base_config)
    left_out, own = next(iter(model.weights.blocks_at)), Attribution.at

    def at(self, site, *arguments):
        return iter(()) if site == left_out else own(self, site, *arguments)

    monkeypatch.setattr(Attribution, "at", at)
    with pytest.raises(ModelError, match="do not add up"):
        read(model, base_config.model_copy(update={"batch_memory": 1}))


# --- the bytes are those that are allocated


def wide_gpt2() -> PreTrainedModel:
    sizes = {"n_layer": 6, "n_head": 4, "n_embd": 64, "n_inner": 256, "n_positions": 128}
    return GPT2LMHeadModel(GPT2Config(**sizes, **tiny.SIZES))


def wide_llama() -> PreTrainedModel:
    sizes = {"hidden_size": 48, "intermediate_size": 160, "num_hidden_layers": 6, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, head_dim=24, max_position_embeddings=128, **tiny.SIZES))


def wide_eager() -> PreTrainedModel:
    network = wide_llama()
    network.set_attn_implementation("eager")
    return network


SHAPES = {"gpt2": wide_gpt2, "llama": wide_llama, "eager": wide_eager}


def measured_batch(model: Model, config: RunConfig, monkeypatch) -> tuple[int, int]:
    """The bytes that a batch is said to take, and those that it takes at once: of torch and of the compiled loop."""
    run = Pass(model, config, Rows())
    (chunk, *_) = run.chunks()
    first = next(chunk.batches(run.sizes.fitting, run.layout))
    run._read_batch(first)
    seen, own = LiveBytes(), compiled.add

    def add(*arguments):
        seen.note(sum(values.nbytes for values in arguments[-2:]))
        own(*arguments)

    monkeypatch.setattr(compiled, "add", add)
    with seen:
        run._read_batch(first)
    return run.sizes.bytes_of(*first.tokens.shape), seen.peak


WAYS = [
    pytest.param(shape, dtype, way, marks=() if (shape, dtype) == ("llama", "bfloat16") else pytest.mark.slow)
    for shape in SHAPES
    for dtype in ("float32", "bfloat16")
    for way in ("held", "single")
]


@pytest.mark.parametrize(("shape", "dtype", "way"), WAYS)
def test_a_batch_takes_no_more_than_is_said(shape, dtype, way, tmp_path, monkeypatch):
    torch.manual_seed(0)
    corpus = tiny.write_corpus(tmp_path / "corpus.jsonl", n_documents=30)
    config = RunConfig(
        model=shape, corpora=(str(corpus),), tokens=4_000, dtype=dtype, batch_size=8, dense_positions=64, seed=3
    )
    network = SHAPES[shape]().to(getattr(torch, dtype)).eval()
    model = model_from(network, tiny.tokenizer(), config)
    sizes = BatchSizes.of(config, model.spec)
    if way == "single":
        config = config.model_copy(update={"batch_memory": sizes.fixed + sizes.single * 128})
    said, taken = measured_batch(model, config, monkeypatch)
    assert taken <= said <= 2.5 * taken


def test_logits_are_summarised_some_rows_at_a_time(base_config, monkeypatch):
    """However many rows at a time: the same loss, rank and entropy, and no table of all rows by all tokens."""
    model = load_model(base_config)
    run = Pass(model, base_config, Rows())
    (chunk, *_) = run.chunks()
    batch = next(chunk.batches(lambda _: 8, run.layout))
    wanted = run.recorder.wanted(batch, run.recorder.dense.plan(batch), model.weights.wiring)
    assert len(wanted.logits[0]) > 30
    whole = model.run(batch.tokens, wanted).logits
    monkeypatch.setattr("profiler.model.forward.LOGIT_BYTES", 3 * 8 * model.spec.n_vocab)
    seen: list[int] = []

    def summary(logits, numbers):
        seen.append(len(logits))
        return wanted.summary(logits, numbers)

    parts = model.run(batch.tokens, replace(wanted, summary=summary)).logits
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12, equal_nan=True)  # no cap, no slope
    assert whole.shape == (len(wanted.logits[0]), 5)
    assert sum(seen) == len(whole) and max(seen) == 3


def test_logit_effects_do_not_depend_on_how_many_are_made_at_a_time(base_config, monkeypatch):
    model = load_model(base_config)
    run = Pass(model, base_config, Rows())
    arguments = (model.weights, run.recorder.chosen, [1.0] * len(model.spec.blocks), 10)
    whole = [frame.drop("effect") for frame in tables.logit_effects(*arguments)]
    monkeypatch.setattr(tables, "EFFECT_TOKENS", 7)  # fewer than the strongest that are asked for
    monkeypatch.setattr(tables, "EFFECT_ROWS", 5)
    slabs = [frame.drop("effect") for frame in tables.logit_effects(*arguments)]
    assert len(slabs) > len(whole)
    one, other = (pl.concat(frames) for frames in (whole, slabs))
    assert one.drop("product").equals(other.drop("product"))
    assert abs(one["product"] - other["product"]).max() < 1e-12


# --- limits


def test_a_batch_memory_that_no_window_fits_into_is_refused_with_the_least_that_works(base_config, tmp_path):
    config = base_config.model_copy(update={"batch_memory": 1_000})
    with pytest.raises(RunError, match=r"--batch-memory 0.00 GB is too small: a window of 48 tokens needs"):
        profiler.record(config, tmp_path / "run.duckdb")
    assert not list(tmp_path.iterdir())
    spec = load_model(base_config).spec
    sizes = BatchSizes.of(base_config, spec)
    least = config.model_copy(update={"batch_memory": sizes.fixed + sizes.single * spec.context_length})
    fitting, said = within_memory(least, spec, in_use=0, free=10**12)
    assert fitting.batch_memory == least.batch_memory and not said


def test_the_forecast_says_how_a_batch_is_read_and_what_a_second_forward_pass_costs(base_config):
    spec = load_model(base_config).spec
    config = base_config.model_copy(update={"tokens": 5_000})
    rates = forecasts.Rates(forward=1.0)
    sizes = BatchSizes.of(config, spec)
    single = config.model_copy(update={"batch_memory": sizes.fixed + sizes.single * spec.context_length})
    held, by_block = forecast(config, spec, rates), forecast(single, spec, rates)
    assert (held.batch.windows, held.batch.held, held.seconds) == (4, True, 0.0)
    assert (by_block.batch.windows, by_block.batch.held, by_block.seconds) == (1, False, 5_000)
    assert held.batch.sentence.startswith("a batch is 4 windows of 48 tokens and takes 0.0")
    assert "a block at a time, in a second forward pass" in by_block.batch.sentence


def test_memory_is_asked_of_the_device_of_the_pass(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3, 7))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 2)
    assert (memory.usable("cuda:0"), memory.resident("cuda")) == (3, 2)
    assert memory.usable("cpu") > 10**6 and memory.resident() > 10**6


def test_the_memory_of_a_batch_names_no_other_run(base_config):
    """It rounds otherwise, as the number of windows does."""
    assert base_config.digest() == base_config.model_copy(update={"batch_memory": 10**9}).digest()
