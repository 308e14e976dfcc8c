"""Rows of figures in a CSV file that a resumed run goes on with.

Used by `callbacks` and `noise_levels`.
"""

import csv
import io

from keras_mdm.files import append_whole, whole_file
from keras_mdm.paths import member
from keras_mdm.training.attempts import Attempts

# Columns that say where a row belongs.
PLACE = ("stage", "resolution", "step")


class Rows:
    """A CSV file with a row for each of some steps of training.

    Args:
        path: Path.
        columns: Callable without arguments that returns the names of the columns,
            those of `PLACE` first.
    """

    def __init__(self, path, columns):
        self.path = path
        self._columns = columns
        self._waiting, self._attempts = [], Attempts(f"'{path}'")

    def append(self, *rows):
        """Writes rows, dicts by column, behind the others; what can't be written is
        with the next ones.
        """
        self._waiting += rows
        with self._attempts.going_on():
            if not self.path.exists() or not self.path.stat().st_size:
                self._write([])
            text = io.StringIO(newline="")
            csv.DictWriter(text, self._columns()).writerows(self._waiting)
            append_whole(self.path, text.getvalue().encode())
            self._waiting = []

    def _write(self, rows):
        with whole_file(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns())
            writer.writeheader()
            writer.writerows(rows)

    def take_up(self, now, in_stages):
        """Removes the rows after a step, which stand for training that was lost.

        Args:
            now: Pair of int: number of the stage, and of the step in it.
            in_stages: bool. Whether a stage says that rows after it were lost.

        Raises:
            ValueError: if the file is another model's, or not one of these at all.
        """
        if not self.path.exists() or not self.path.stat().st_size:
            return
        columns, cause = self._columns(), None
        path = member(self.path.parent, self.path.name)
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise self._refused(error) from error
        if reader.fieldnames != columns:
            cause = (
                f"it has the columns {reader.fieldnames}, and this model writes "
                f"{columns}"
            )
        # The last row may be half a row, of a run that was killed.
        elif not all(map(_is_row, rows[:-1])):
            cause = "it has rows without a step, or of more values than columns"
        if cause is not None:
            raise self._refused(cause)
        count = len(rows)
        rows = [row for row in rows if _is_row(row)]
        kept = [row for row in rows if (int(row["stage"]), int(row["step"])) <= now]
        if not in_stages and len(kept) < len(rows):
            raise self._refused(
                f"it has step {rows[-1]['step']} of another training, and this one is "
                f"at step {now[1]}"
            )
        # A stage that begins loses none, and may find the disk full.
        if len(kept) < count:
            self._write(kept)

    def _refused(self, cause):
        return ValueError(
            f"'{self.path}' can't be continued: {cause}. Choose another path, or "
            "remove the file."
        )


def _is_row(row):
    """Whether a row has a value for each column, and knows its step."""
    whole = None not in row and None not in row.values()
    return whole and row["stage"].isdecimal() and row["step"].isdecimal()
