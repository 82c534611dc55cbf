"""Named arrays as Arrow, bit for bit: a commit on disk, and the result that a worker sends.

zstd squeezes the zeros of bins that nothing fell in. No torch here. Cost: about 0.3 s per 100 MB on one core.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
    [("name", pa.string()), ("dtype", pa.string()), ("shape", pa.list_(pa.int64())), ("data", pa.large_binary())]
)
OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


def _row(name: str, array: np.ndarray) -> pa.RecordBatch:
    """One array; its bytes are not copied."""
    array = np.ascontiguousarray(array)
    ends = pa.py_buffer(np.array([0, array.nbytes], dtype=np.int64))
    data = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(array)])
    shape = pa.array([list(array.shape)], SCHEMA.field("shape").type)
    return pa.record_batch([pa.array([name]), pa.array([array.dtype.str]), shape, data], schema=SCHEMA)


def write(sink: Path | pa.NativeFile, state: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a file or an Arrow output stream.

    Raises:
        OSError: the file cannot be written.
    """
    if isinstance(sink, Path):
        with pa.OSFile(str(sink), "wb") as file:
            write(file, state)
        return
    with pa.ipc.new_file(sink, SCHEMA, options=OPTIONS) as writer:
        for name, array in state.items():
            writer.write_batch(_row(name, array))


def read(source: Path | pa.Buffer) -> dict[str, np.ndarray]:
    """Arrays of a file or a buffer; read-only views where they can be.

    Raises:
        OSError, pyarrow.ArrowException: it is not what `write` wrote.
    """
    with pa.ipc.open_file(pa.OSFile(str(source)) if isinstance(source, Path) else source) as reader:
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    return {str(batch["name"][0]): _array(batch) for batch in batches}


def _array(batch: pa.RecordBatch) -> np.ndarray:
    data = batch["data"][0].as_buffer()
    return np.frombuffer(data, batch["dtype"][0].as_py()).reshape(batch["shape"][0].as_py())


def to_bytes(state: Mapping[str, np.ndarray]) -> pa.Buffer:
    """The arrays as one buffer, to send."""
    sink = pa.BufferOutputStream()
    write(sink, state)
    return sink.getvalue()
