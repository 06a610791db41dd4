"""The columns of a row, and reading and writing tables of rows.

A row states whether a candidate (a category path or an item title) is relevant to a query:

=============  ======  =====================================================================================
column         dtype   meaning
=============  ======  =====================================================================================
id             str     unique within a file
task           str     ``qc`` or ``qi``; only in the tables that `prepare`, `split` and `translate` write
language       str     ISO 639-1 code
language_tag   str     the language as written in the raw file (``vn``); submissions repeat it
origin_query   str     the query as typed
candidate      str     ``category_path`` of QC, ``item_title`` of QI
label          Int8    1 relevant, 0 not relevant, missing if unknown
grade          str     the label as written in the raw file if a label rule translates it, else empty
levels         list    levels of the category path in normal form, from the top level down; empty for QI
=============  ======  =====================================================================================

Later stages add columns, such as ``group``, ``origin`` and ``probability``.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from babelcart.core.errors import UserError, short_repr
from babelcart.core.files import atomic_write
from babelcart.core.tasks import CANDIDATE_FIELD

if TYPE_CHECKING:
    import pandas as pd

# Columns of a row in the raw files.
RAW_COLUMNS = ("id", "language", "origin_query", "candidate", "label")
# Columns of a row in every table.
ROW_COLUMNS = ("id", "language", "language_tag", "origin_query", "candidate", "label", "grade", "levels")
# Columns of the tables of `prepare`.
PREPARED_COLUMNS = ("id", "task", *ROW_COLUMNS[1:])


def raw_fields(task: str) -> dict[str, str]:
    """Field of an unlabelled row in the competition's files -> the column that holds it."""
    columns = {"language": "language_tag"}
    return {(CANDIDATE_FIELD[task] if name == "candidate" else name): columns.get(name, name) for name in RAW_COLUMNS if name != "label"}


def raw_row(row: Any, task: str) -> dict[str, str]:
    """Return an unlabelled row of `DataFrame.itertuples` with the fields and texts of the competition's files."""
    return {field: getattr(row, column) for field, column in raw_fields(task).items()}


def language_counts(rows: pd.DataFrame) -> str:
    """Return the languages of some rows with their numbers of rows, the most frequent first, for a message."""
    return ", ".join(f"{language} {count:,}" for language, count in rows["language"].value_counts().items())


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet; equal tables give equal bytes."""
    import pyarrow as pa

    table = table.reset_index(drop=True)
    options = {}
    if "levels" in table:  # Arrow cannot infer the type of empty lists
        schema = pa.Schema.from_pandas(table.drop(columns="levels"), preserve_index=False)
        fields = [pa.field("levels", pa.list_(pa.string())) if name == "levels" else schema.field(name) for name in table]
        options["schema"] = pa.schema(fields)
    with atomic_write(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd", **options)


def read_table(path: Path, *columns: str, labelled: bool = False) -> pd.DataFrame:
    """Read a table of rows that `write_table` wrote.

    Parameters
    ----------
    path : Path
    *columns : str
        Required columns in addition to `ROW_COLUMNS`: ``probability``, or columns of text such as ``origin``.
    labelled : bool
        Whether the table must have at least one row and every row a label.

    Raises
    ------
    UserError
        If the file does not exist or is not Parquet, if a column is missing, or if a column holds a value that it must not hold.
    """
    try:
        with path.open("rb") as handle:
            return parse_table(handle, str(path), *columns, labelled=labelled)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `dvc repro`, or `dvc pull` to fetch it") from None


def parse_table(content: IO[bytes], name: str, *columns: str, labelled: bool = False) -> pd.DataFrame:
    """Read a table from a binary file as `read_table` does; messages call the file `name`."""
    import pandas as pd

    try:
        table = pd.read_parquet(content)
    except Exception as error:  # pyarrow and pandas raise a dozen types for a damaged file
        if getattr(error, "errno", None):  # an error of the operating system
            raise
        raise UserError(f"{name} is not a complete Parquet file ({error}); `make heal`, then `dvc repro`, writes it again") from error
    remedy = "The file was changed or written by another version; run `dvc repro`, or restore it with `dvc checkout`"
    for column in (*ROW_COLUMNS, *columns):
        if column not in table:
            raise UserError(f"{name} has no column {column}, it has {short_repr(list(table))}. {remedy}")
        values = table[column]
        if column == "label":
            valid = bool((values if labelled else values.dropna()).isin([0, 1]).all())
            accepted = "0 or 1" if labelled else "0, 1 or missing"
        elif column == "probability":
            valid = pd.api.types.is_float_dtype(values) and bool(values.between(0, 1).all())
            accepted = "numbers from 0 to 1"
        elif column == "levels":
            valid, accepted = all(map(pd.api.types.is_list_like, values)), "lists of texts"
        else:
            valid, accepted = pd.api.types.is_string_dtype(values) and not values.isna().any(), "texts, none missing"
        if not valid:
            raise UserError(f"{name}: the column {column} has other values than {accepted}. {remedy}")
    if labelled and not len(table):
        raise UserError(f"{name} has no rows; at least one is needed")
    return table
