"""Importing features: into a copy of the file, which then takes the file's place, so that readers never wait."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...config.errors import UserError
from ..building.inputs.base import bad
from ..tokens.store import read_info
from ..tokens.tokenizer import open_tokenizer
from .adding import Adding
from .copying import copy_beside
from .database import About, check_totals, open_readonly, reading
from .identity import parse_id, text_ids
from .records import Row, RowOptions, check_names, read_rows

_BATCH_ROWS = 2048

Progress = Callable[[int, int], None]
"""Called with the bytes of sources read and the bytes in all."""
Identify = Callable[[str, list[Row]], list[bytes]]
"""From a file's path and some of its rows to document ids."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How records are taken."""

    rows: RowOptions = field(default_factory=RowOptions)
    store: Path | None = None
    """Token store whose tokenizer turns the records' texts into document ids; goes with rows.by_text."""


@dataclass(frozen=True)
class ImportResult:
    """What an import did."""

    num_records: int
    num_new: int
    """Values that were not there."""
    num_known: int
    """Values that were there already, with this event time."""
    about: About


def import_features(
    sources: Sequence[Path], database: Path, options: ImportOptions, progress: Progress = lambda done, total: None
) -> ImportResult:
    """Add all values of some files to the features file `database`, which is made if there is none.

    All or nothing. Raises UserError naming file and place of what is no value, has another type than the feature, or
    contradicts a value that is there; FoundBad if the features file is damaged; OSError if the disk refuses.
    """
    check_names(options.rows.features)
    for source in sources:
        if not source.is_file():
            raise UserError(f"SOURCE {source}", "no such file", "give JSON lines, Parquet or CSV")
    if database.is_file():
        _check_whole(database)
    identify = _identify(options)
    with copy_beside(database) as (beside, keep):
        with Adding(beside, database) as adding:
            for path, rows in _batches(sources, adding, options.rows, progress):
                adding.add(path, rows, identify(path, rows))
            result = ImportResult(adding.num_records, adding.num_new, adding.num_known, adding.finish(sources))
        if result.num_new:
            keep()
    return result


def _check_whole(database: Path) -> None:
    connection, about = open_readonly(database)
    try:
        with reading(database):
            check_totals(connection, database, about)
    finally:
        connection.close()


def _identify(options: ImportOptions) -> Identify:
    if options.store is None:
        return lambda path, rows: [_id(path, row) for row in rows]
    fingerprint = read_info(options.store).tokenizer_fingerprint
    tokenizer = open_tokenizer(options.store)
    return lambda path, rows: text_ids([row.document for row in rows], tokenizer, fingerprint)


def _id(path: str, row: Row) -> bytes:
    try:
        return parse_id(row.document)
    except UserError as error:
        raise bad(path, f"{row.place}: document: {error.problem}", error.remedy) from None


def _batches(
    sources: Sequence[Path], adding: Adding, options: RowOptions, progress: Progress
) -> Iterator[tuple[str, list[Row]]]:
    done, total = 0, sum(source.stat().st_size for source in sources)
    for source in sources:
        batch: list[Row] = []
        for row in read_rows(str(source), adding.kinds(), options):
            batch.append(row)
            if len(batch) == _BATCH_ROWS:
                progress(done + row.passed, total)
                yield str(source), batch
                batch = []
        yield str(source), batch
        done += source.stat().st_size
