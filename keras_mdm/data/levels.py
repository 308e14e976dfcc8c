"""Sources made from others: clips at the levels of a nest, class names as captions.

Progressive training of video models begins with pictures. `at_level` makes a source of
them from one of clips, and keeps the frames that `keras_mdm.diffusion.pyramid` keeps.
"""

from keras_mdm.data.source import Source
from keras_mdm.levels import read_level


def at_level(source, level):
    """A source whose items have the frames of a level.

    Args:
        source: A `Source`.
        level: Int or string, see `keras_mdm.levels`: `64`, or `"4x64"` for four frames.

    Returns:
        The source itself, if it fits; its clips with every so manyth frame, from the
        first on; or their first frames as pictures.

    Raises:
        ValueError: If the source has pictures where clips are needed, or clips that
            can't be divided into so many frames.

    Example:

    ```python
    clips = keras_mdm.data.open_source("shapes/clips")
    pictures = keras_mdm.data.at_level(clips, 16)
    ```
    """
    frames, _ = read_level(level)
    if frames == 1:
        if not source.is_video:
            return source
        return FirstFrames(source, is_video=False, num_frames=None)
    if not source.is_video:
        raise ValueError(
            f"{source.name!r} has pictures, not clips. Received: level={level!r}"
        )
    if source.num_frames == frames:
        return source
    if source.num_frames is None or source.num_frames % frames:
        why = (
            "may differ in length"
            if source.num_frames is None
            else f"have {source.num_frames} frames, which can't be divided into "
            f"{frames}"
        )
        raise ValueError(
            f"the clips of {source.name!r} {why}: open the source with "
            f"num_frames={frames} or a multiple. Received: level={level!r}"
        )
    return FewerFrames(source, num_frames=frames)


class _Derived(Source):
    """Items of another source, which skips and reports what is unusable."""

    def __init__(self, source, **changes):
        same = ("name", "channels", "class_names", "num_classes", "has_captions")
        same = {key: getattr(source, key) for key in (*same, "is_video", "num_frames")}
        super().__init__(**{**same, **changes})
        self._source = source
        self.stream = source.stream
        # What was skipped as the source was opened; the rest is met again.
        for what, why in source.skipped:
            self.skip(what, why)
        self.note(*source.notes)

    def __len__(self):
        return len(self._source)

    def describe(self, index):
        return self._source.describe(index)

    def contents(self):
        return self._source.contents()


class FirstFrames(_Derived):
    """The first frame of every clip as a picture with its caption and label."""

    def _read(self, index):
        item = dict(self._source.read(index))
        image = item.pop("video")[0]
        return {**item, "image": image}


class FewerFrames(_Derived):
    """`num_frames` of every clip, evenly, from the first on."""

    def _read(self, index):
        item = self._source.read(index)
        step = self._source.num_frames // self.num_frames
        return {**item, "video": item["video"][::step]}


class ClassCaptions(_Derived):
    """A labelled source whose captions are the names of the classes.

    Args:
        source: A `Source` with `class_names`.
    """

    def __init__(self, source):
        if source.class_names is None:
            raise ValueError(
                f"{source.name!r} has neither captions nor named classes: a model on "
                "text can't be trained on it."
            )
        super().__init__(source, has_captions=True)

    def _read(self, index):
        item = self._source.read(index)
        return {**item, "caption": self.class_names[item["label"]]}
