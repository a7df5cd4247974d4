"""What a job could not store, as JSON lines that the next job can take for a manifest."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from indexer.errors import DataError
from indexer.metadata import ID_COLUMN, to_json
from indexer.placing import Fate, Outcome
from indexer.sources.manifest import NOTED_ID, NOTED_NAME, REASON


class FailedFile:
    """The list of a job's failed photos; use it as a context manager. It takes its name when the job has ended.

    Until then it is `NAME.part`, so that a list that is there stays whole, whatever happens to the job.
    """

    def __init__(self, path: Path) -> None:
        """Begin a list.

        Raises:
            DataError: the file cannot be written.
        """
        self._path = path
        self._part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write {path.name}: {error.strerror}") from error

    def note(self, outcome: Outcome) -> None:
        """List a photo, if it failed."""
        if outcome.fate is Fate.SKIPPED:
            self._file.write(json.dumps(failed_row(outcome)) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        os.replace(self._part, self._path)


def failed_row(outcome: Outcome) -> dict[str, Any]:
    """A failed photo as a row of a manifest.

    An id that was made from the place is only noted: given as the photo's own it would replace whoever has it.
    """
    item = outcome.item
    values = to_json({field: value for field, value in item.metadata.items() if value is not None})
    taken_away = {field: None for field, value in item.metadata.items() if value is None}
    own = {ID_COLUMN if item.has_own_id else NOTED_ID: item.photo_id}
    return {**item.locator, **own, NOTED_NAME: item.name, REASON: outcome.reason, **values, **taken_away}
