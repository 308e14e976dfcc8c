"""A data source of one's own: pictures out of an SQLite file.

    python examples/own_source.py --steps 200
    python examples/own_source.py --file pictures.db --steps 200

Everything that is particular to it is the class `Sqlite`: thirty lines. `open_source`
then knows "sqlite:PATH", and shuffling, batches, crops, worker processes, the report of
damaged pictures and exact resumption come from `make_dataset`. Without `--file` it
makes a file of scikit-learn's handwritten digits to show this.
"""

import argparse
import contextlib
import io
import pathlib
import sqlite3
import tempfile

import keras
from PIL import Image

import keras_mdm
from keras_mdm import data


@data.register_source("sqlite")
class Sqlite(data.Source):
    """Rows of a table `pictures` with `id` (1, 2, ...), `class` and `picture` (bytes).

    Args:
        path: String. The file.
        split: `"train"`, or `"test"` for every tenth row.
    """

    def __init__(self, path, split="train"):
        if not pathlib.Path(path).is_file():
            raise FileNotFoundError(f"No such file: '{path}'")
        if split not in ("train", "test"):
            raise ValueError(
                f"`split` must be 'train' or 'test'. Received: split={split!r}"
            )
        self._path = path
        rows = self._query("SELECT id, class FROM pictures ORDER BY id")
        self._ids = [i for i, _ in rows if (i % 10 == 0) == (split == "test")]
        names = sorted({name for _, name in rows})
        super().__init__(f"sqlite:{path}", channels=3, class_names=names)

    def _query(self, statement, *values):
        # A connection for each reading: threads and worker processes share none.
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            return connection.execute(statement, values).fetchall()

    def __len__(self):
        return len(self._ids)

    def _read(self, index):
        statement = "SELECT class, picture FROM pictures WHERE id = ?"
        ((name, picture),) = self._query(statement, self._ids[index])
        # Raises `UnusablePicture` if it is damaged: then it is skipped and counted.
        image = data.read_picture(io.BytesIO(picture), self.describe(index))
        return {"image": image, "label": self.class_names.index(name)}


def write_digits(path):
    """Writes an SQLite file with scikit-learn's digits as PNGs."""
    digits = data.open_source("digits")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE pictures (id INTEGER PRIMARY KEY, class TEXT, picture BLOB)"
        )
        for item in digits:
            file = io.BytesIO()
            Image.fromarray(item["image"][..., 0]).save(file, "PNG")
            row = (digits.class_names[item["label"]], file.getvalue())
            connection.execute(
                "INSERT INTO pictures (class, picture) VALUES (?, ?)", row
            )


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", help="SQLite file (default: digits in a new one)")
    parser.add_argument("--steps", type=int, default=200, help="training steps (200)")
    parser.add_argument("--output", default="own_source.png", help="picture to write")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if args.file is None:
            args.file = str(pathlib.Path(folder) / "digits.db")
            write_digits(args.file)
        source = data.open_source(f"sqlite:{args.file}")
        mdm = keras_mdm.MDM.from_preset(
            "mdm_tiny_32", num_classes=source.num_classes, image_channels=3
        )
        mdm.compile(optimizer=keras.optimizers.Adam(1e-3))
        dataset = data.make_dataset(source, 32, batch_size=16, repeat=True)
        history = mdm.fit(dataset, epochs=1, steps_per_epoch=args.steps)
        print(f"loss {history.history['loss'][-1]:.3f} on {len(source)} pictures.")
        print(source.report())
    labels = [number % source.num_classes for number in range(10)]
    images = mdm.generate(labels=labels, num_steps=20, seed=0)
    Image.fromarray(images.swapaxes(0, 1).reshape(32, -1, 3)).save(args.output)


if __name__ == "__main__":
    main()
