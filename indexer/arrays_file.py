"""Columns of equal length in one file, read from beginning to end in parts: NumPy's .npz and .npy, and Parquet.

A part holds a list or an array a column. Nothing is mapped and nothing is read whole, so a file may be larger than the
memory; the rows of a Parquet file's groups are read page by page.
"""

import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from indexer.errors import ConfigError, DataError
from indexer.metadata import Kind
from indexer.table_file import days_of

Part = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
"""Column -> values; a list, or an array with one row a value."""

_KINDS: Final = {"U": Kind.STRING, "b": Kind.BOOL, "i": Kind.NUMBER, "u": Kind.NUMBER, "f": Kind.NUMBER, "M": Kind.DATE}
_MAX_HEADER: Final = 100_000
_MAX_ROW_BYTES: Final = 1 << 20
_PAGE_BUFFER: Final = 1 << 20


class Columns(Protocol):
    """What a file of columns can do."""

    @property
    def name(self) -> str:
        """Of the file, for messages."""

    @property
    def rows(self) -> int:
        """Of every column."""

    @property
    def kinds(self) -> Mapping[str, Kind | None]:
        """Column -> what its values are; None for what no field of a gallery can hold."""

    def row_shape(self, column: str) -> tuple[int, ...] | None:
        """The shape of one row of numbers, (14, 16); None where rows differ, or there is no number."""

    def parts(self, columns: Sequence[str], rows: int) -> Iterator[Part]:
        """The named columns in order, `rows` at a time.

        Raises:
            DataError: the file ends early or is damaged.
        """


class NumpyColumns:
    """The arrays of an .npz, or the fields of an .npy of records. Use `NumpyColumns.open`."""

    def __init__(self, path: Path, dtypes: Mapping[str, np.dtype[Any]], rows: int) -> None:
        self._path = path
        self._dtypes = dtypes
        self.name = path.name
        self.rows = rows
        self.kinds: Mapping[str, Kind | None] = {
            name: None if of.subdtype else _KINDS.get(of.kind) for name, of in dtypes.items()
        }

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the headers.

        Raises:
            DataError: no such file, another format, pickled objects in it, or columns of different lengths.
        """
        with _as_data_error(path), ExitStack() as stack:
            if not zipfile.is_zipfile(path):
                array = _Array(stack.enter_context(path.open("rb")))
                if array.dtype.fields is None:
                    raise DataError(
                        f"an .npy must hold records with named fields, found {array.dtype}; or take an .npz"
                    )
                return cls(path, {name: array.dtype[name] for name in array.dtype.names or ()}, array.rows)
            archive = stack.enter_context(zipfile.ZipFile(path))
            arrays = {}
            for member in archive.namelist():
                with archive.open(member) as file:
                    arrays[member.removesuffix(".npy")] = _Array(file)
            if len({array.rows for array in arrays.values()}) > 1:
                lengths = {name: array.rows for name, array in arrays.items()}
                raise DataError(f"its arrays must be of one length, found {str(lengths)[:300]}")
            rows = next((array.rows for array in arrays.values()), 0)
            return cls(path, {name: array.dtype for name, array in arrays.items()}, rows)

    def row_shape(self, column: str) -> tuple[int, ...] | None:
        """The shape of one row of numbers."""
        dtype = self._dtypes[column]
        return dtype.shape if dtype.base.kind in "fiu" else None

    def parts(self, columns: Sequence[str], rows: int) -> Iterator[Part]:
        """The named columns, `rows` at a time; see `Columns`."""
        with _as_data_error(self._path), ExitStack() as stack:
            if zipfile.is_zipfile(self._path):
                archive = stack.enter_context(zipfile.ZipFile(self._path))
                arrays = {name: _Array(stack.enter_context(archive.open(f"{name}.npy"))) for name in columns}
                read = {name: array.read for name, array in arrays.items()}
                for start in range(0, self.rows, rows):
                    some = min(rows, self.rows - start)
                    yield {name: _plain(read[name](some)) for name in columns}
            else:
                records = _Array(stack.enter_context(self._path.open("rb")))
                for start in range(0, self.rows, rows):
                    part = records.read(min(rows, self.rows - start))
                    yield {name: _plain(part[name]) for name in columns}


class ParquetColumns:
    """The columns of a .parquet file. Use `ParquetColumns.open`."""

    def __init__(self, path: Path, file: Any, kinds: Mapping[str, Kind | None]) -> None:
        self._path = path
        self._file = file
        self.name = path.name
        self.rows: int = file.metadata.num_rows
        self.kinds = kinds

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the schema.

        Raises:
            DataError: no such file, or no Parquet.
            ConfigError: pyarrow is not installed.
        """
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError("Parquet needs pyarrow; install it with: pip install 'mgrl[parquet]'") from error
        with _as_data_error(path):
            # Without pre-buffering a group of a million rows is read page by page, and not at once.
            file = pyarrow.parquet.ParquetFile(path, buffer_size=_PAGE_BUFFER, pre_buffer=False)
            return cls(path, file, {field.name: _arrow_kind(field.type) for field in file.schema_arrow})

    def row_shape(self, column: str) -> tuple[int, ...] | None:
        """The shape of one row of numbers, as the first row has it."""
        with _as_data_error(self._path):
            for batch in self._file.iter_batches(1, columns=[column]):
                numbers = _numbers(batch.column(0), column)
                return numbers.shape[1:] if numbers.dtype.kind in "fiu" else None
        return None

    def parts(self, columns: Sequence[str], rows: int) -> Iterator[Part]:
        """The named columns, `rows` at a time; see `Columns`."""
        with _as_data_error(self._path):
            for batch in self._file.iter_batches(rows, columns=list(columns)):
                yield {name: self._values(batch.column(name), name) for name in columns}

    def _values(self, array: Any, column: str) -> Sequence[Any] | npt.NDArray[Any]:
        return _numbers(array, column) if self.kinds[column] is None else days_of(array).to_pylist()


class _Array:
    """An array in NumPy's format, read as a stream. Its dtype is that of one row, so it may have a shape."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DataError(f"an array of NumPy's format {version[0]}.{version[1]}; 1.0 and 2.0 are read")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file, _MAX_HEADER)
        if dtype.hasobject:
            raise DataError("an array of Python objects, which only unpickling would read; save texts as dtype str")
        if not shape or (is_fortran and len(shape) > 1):
            raise DataError(f"an array of shape {shape}, or in Fortran order; rows must lie one after the other")
        if dtype.itemsize * int(np.prod(shape[1:], dtype=object)) > _MAX_ROW_BYTES or not dtype.itemsize:
            raise DataError(f"an array of {dtype} and shape {shape}; a row may have {_MAX_ROW_BYTES} bytes")
        self.rows: int = shape[0]
        self.dtype: np.dtype[Any] = np.dtype((dtype, shape[1:])) if shape[1:] else dtype

    def read(self, rows: int) -> npt.NDArray[Any]:
        """The next rows."""
        wanted = rows * self.dtype.itemsize
        data = self._file.read(wanted)
        if len(data) < wanted:
            raise DataError("it is cut short")
        return np.frombuffer(data, self.dtype.base).reshape(rows, *self.dtype.shape)


def _plain(values: npt.NDArray[Any]) -> Sequence[Any] | npt.NDArray[Any]:
    """Python's own values of a column of single ones.

    Raises:
        DataError: a text holds numbers that are no characters, which NumPy would make a str of that Python cannot use.
    """
    if values.dtype.kind == "U" and values.size:
        codes = np.ascontiguousarray(values).view(f"{values.dtype.byteorder}u4")
        if codes.max() > sys.maxunicode:
            raise DataError("a text holds what is no character; the file is damaged")
    if values.dtype.kind == "M":
        values = values.astype("M8[D]")  # finer ones would come out as integers
    return values.tolist() if values.ndim == 1 else values


def _arrow_kind(kind: Any) -> Kind | None:
    import pyarrow.types as of

    rules: list[tuple[Callable[[Any], bool], Kind]] = [
        (of.is_string, Kind.STRING),
        (of.is_large_string, Kind.STRING),
        (of.is_boolean, Kind.BOOL),
        (of.is_integer, Kind.NUMBER),
        (of.is_floating, Kind.NUMBER),
        (of.is_date, Kind.DATE),
        (of.is_timestamp, Kind.DATE),
    ]
    if of.is_list(kind) and of.is_string(kind.value_type):
        return Kind.TAGS
    return next((ours for is_kind, ours in rules if is_kind(kind)), None)


def _numbers(array: Any, column: str) -> npt.NDArray[Any]:
    """Lists of numbers, however deep, as an array with one row a list."""
    import pyarrow.compute
    import pyarrow.types

    shape = [len(array)]
    while pyarrow.types.is_nested(array.type):
        lengths = pyarrow.compute.min_max(pyarrow.compute.list_value_length(array)).as_py()
        if array.null_count or lengths["min"] != lengths["max"]:
            raise DataError(f"the lists of {column} must all be there and of one length")
        shape.append(lengths["min"])
        array = array.flatten()
    if array.null_count:
        raise DataError(f"the lists of {column} must hold numbers, one is null")
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(shape)


@contextmanager
def _as_data_error(path: Path) -> Iterator[None]:
    """Name the file in what goes wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path.name}: {error.strerror or error}") from error
    except MemoryError:
        raise
    # The decoders of both formats raise almost anything on damaged bytes: BadZipFile, zlib.error, ArrowInvalid, ...
    except Exception as error:
        raise DataError(f"{path.name} is damaged, or not what its suffix says: {error}") from error
