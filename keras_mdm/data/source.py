"""What every source of pictures or videos has in common.

`sources.py` opens one by name and `make_dataset` reads it. A source of one's own
derives from `Source`, and `register_source` makes it known: `examples/own_source.py`.
"""

import collections
import hashlib
import json
import math
import threading
import zlib

from keras_mdm.text_files import cut, printable, whole_characters

_MOST_GROUPS = 1000  # Folders or shards with a digest of their own.
_MOST_READ = 2**28  # Bytes of a set that are compared.


class UnusablePicture(ValueError):
    """A picture or video that cannot be used: corrupt, truncated, too small or short.

    Args:
        what: String. Which one (a path, or `"cifar10/train[17]"`).
        why: String. What is wrong with it.
    """

    def __init__(self, what, why):
        # Both go to `args` so that the error survives pickling between processes.
        super().__init__(what, why)
        self.what = what
        self.why = why

    def __str__(self):
        return printable(f"{self.what}: {cut(str(self.why), 1000)}")


class Source:
    """Random access to pictures or videos: `len(source)` and `source[index]`.

    An item is a dict with `image` (uint8, `(height, width, channels)`) or `video`
    (uint8, `(frames, height, width, channels)`), and, where the source has them,
    `label` (int), `caption` (str), `captions` (tuple of str, where a picture has
    several), `micro_conditioning` (dict of float, such as the original `scale` in
    pixels) and `attributes` (dict). Sub-classes implement `__len__` and `_read(index)`;
    the latter raises an `UnusablePicture`, or a `ValueError` that says why.

    A source that can only be read from its start on has a method
    `stream(seed, epoch, shard)`: an iterator over the rows of a pass, which `read`
    takes in place of an index, in an order of its own for each epoch (if `seed` is
    `None`, in that of the data); `shard` is a pair `(index, count)`.

    Args:
        name: String. Name that messages use.
        channels: Int. Channels of the pictures, 1 or 3.
        class_names: Iterable of strings, or `None` for an unlabelled source.
        num_classes: Int or `None`. Defaults to the number of `class_names`.
        has_captions: Bool. Whether every item has a `caption`.
        is_video: Bool. Whether items hold `video` instead of `image`.
        num_frames: Int. Frames of every video; others are unusable. Defaults to
            videos of any length, which `make_dataset` refuses.
        no_captions: String. Why there are none, for messages.
    """

    stream = None

    def __init__(
        self,
        name,
        channels=3,
        class_names=None,
        num_classes=None,
        has_captions=False,
        is_video=False,
        num_frames=None,
        no_captions="",
    ):
        self.name = printable(name)
        self.channels = channels
        self.class_names = None
        if class_names is not None:
            self.class_names = tuple(map(printable, class_names))
        if num_classes is None and class_names is not None:
            num_classes = len(self.class_names)
        self.num_classes = num_classes
        self.has_captions = has_captions
        self.is_video = is_video
        self.num_frames = num_frames
        self._no_captions = no_captions
        self._skipped = {}
        self._notes = []
        self._lock = threading.Lock()

    def __len__(self):
        raise NotImplementedError

    def _read(self, index):
        raise NotImplementedError

    def describe(self, index):
        """Returns the name of a picture for messages."""
        return f"{self.name}[{index}]"

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(
                f"`index` must be in [0, {len(self)}) for {self.name!r}. "
                f"Received: index={index}"
            )
        return self.read(int(index))

    def read(self, index):
        """Returns the item at an index, or of a row of `stream`; counts unusable ones.

        Raises:
            UnusablePicture: If it cannot be used.
        """
        try:
            item = self._read(index)
            if self.num_frames is not None and len(item["video"]) != self.num_frames:
                raise ValueError(
                    f"has {len(item['video'])} frames, not {self.num_frames}"
                )
            # Beyond the classes it would be clipped, and be that of others.
            if self.num_classes and not 0 <= item.get("label", 0) < self.num_classes:
                raise ValueError(
                    f"has the label {item['label']} of {self.num_classes} classes"
                )
        except UnusablePicture as error:
            self.skip(error.what, error.why)
            raise
        # Whatever one odd item makes a library raise, it does not end a run.
        except Exception as error:
            what, why = self.describe(index), str(error)
            if not isinstance(error, ValueError) or not why:
                why = f"{type(error).__name__}: {why}"
            self.skip(what, why)
            raise UnusablePicture(what, why) from error
        return item

    def contents(self):
        """What a resumed run compares, since labels are numbers and order has a seed.

        Returns:
            dict of JSON values: how many items, the names of the classes, and of files
            a digest of their names, captions, sizes, and, if all of them are together
            at most 256 MiB, of the bytes in them.
        """
        names = self.class_names
        return {
            self.noun: len(self),
            "class_names": None if names is None else list(names),
            "captions": self.has_captions,
        }

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    @property
    def noun(self):
        """What messages call the items: `"pictures"` or `"videos"`."""
        return "videos" if self.is_video else "pictures"

    @property
    def skipped(self):
        """Tuple of `(what, why)`, one for each unusable picture met so far."""
        with self._lock:
            return tuple(self._skipped.items())

    def skip(self, what, why):
        """Remembers that `what` is not used and `why`, once; from any thread."""
        with self._lock:
            self._skipped[printable(what)] = printable(cut(str(why), 1000))

    @property
    def notes(self):
        """Tuple of sentences about what else of the data is not used."""
        return tuple(self._notes)

    def note(self, *sentences):
        """Remembers sentences about what is not used, for `report`."""
        self._notes.extend(map(printable, sentences))

    def require_captions(self, received):
        """Raises a `ValueError` that says why, if there are no captions.

        `received` is what asks for them, such as `"keep=('captions',)"`.
        """
        if not self.has_captions:
            why = f": {self._no_captions}" if self._no_captions else ""
            raise ValueError(
                f"{self.name!r} has no captions{why}. Received: {received}"
            )

    def report(self):
        """Says in a few sentences what was skipped so far and why, with the `notes`."""
        skipped = self.skipped
        if not skipped:
            told = f"No {self.noun[:-1]} of {self.name!r} was skipped so far."
        else:
            shown = "; ".join(f"{what} ({why})" for what, why in skipped[:5])
            more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
            told = (
                f"{len(skipped)} of {len(self)} {self.noun} of {self.name!r} were "
                f"skipped: {shown}{more}."
            )
        return " ".join((told, *self._notes))

    def __getstate__(self):
        # Locks cannot travel to worker processes.
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = threading.Lock()


def fingerprints(paths):
    """The size of each of some files, and of a small set the CRC-32 of its bytes too.

    To read all of a large one would take as long as a pass of training.
    """
    sizes = [path.stat().st_size for path in paths]
    # Small files take long for their size.
    small = sum(max(size, 2**12) for size in sizes) <= _MOST_READ
    pairs = zip(paths, sizes, strict=True)
    return [[size, _checksum(path)] if small else size for path, size in pairs]


def _checksum(path):
    try:
        return zlib.crc32(path.read_bytes())
    except OSError:  # Training skips it.
        return None


def digests(items):
    """Digests of what is in each of several groups, of all if there are many.

    Args:
        items: Iterable of pairs: the group, and JSON values of an item that may not
            change.

    Returns:
        dict of group to str.
    """
    counts, sums = collections.Counter(), collections.defaultdict(hashlib.sha256)
    for group, values in items:
        counts[group] += 1
        sums[group].update(json.dumps(values).encode())
    if len(sums) > _MOST_GROUPS:
        joined = "".join(sums[group].hexdigest() for group in sorted(sums))
        total = hashlib.sha256(joined.encode()).hexdigest()
        return {"all": f"{counts.total()}: {total[:16]}"}
    return {g: f"{counts[g]}: {sums[g].hexdigest()[:16]}" for g in sorted(sums)}


def read_captions(value, max_length):
    """Tuple of the captions of an item, without blanks around them, at least one.

    Raises a `ValueError` if `value` is no string and no list of strings, or too long.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise ValueError(
            f"a caption must be a string or a list. Received: {str(value)[:80]!r}"
        )
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"captions must be strings. Received: {text!r}")
        if len(text) > max_length:
            raise ValueError(
                f"a caption has {len(text)} characters, more than {max_length}"
            )
    return tuple(whole_characters(text).strip("\ufeff").strip() for text in texts)


def caption_items(texts):
    """The part of an item that holds its captions: the first, and all of several."""
    several = {"captions": tuple(texts)} if len(texts) > 1 else {}
    return {"caption": texts[0], **several}


def micro_conditioning_of(values):
    """The finite numbers of a dict, as floats.

    `scale`, the shorter side of the original picture, is among them if
    `original_width` and `original_height` are, which img2dataset writes.
    """
    micro = {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    micro = {key: value for key, value in micro.items() if math.isfinite(value)}
    if {"original_width", "original_height"} <= micro.keys():
        micro["scale"] = min(micro["original_width"], micro["original_height"])
    return micro


def refuse_frames(name, num_frames, frame_rate):
    """Raises a `ValueError` if frames are to be chosen where there are pictures."""
    if num_frames is not None or frame_rate is not None:
        raise ValueError(
            f"{name!r} has pictures, not clips, so there are no frames to choose. "
            f"Received: num_frames={num_frames}, frame_rate={frame_rate}"
        )
