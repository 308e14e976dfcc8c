"""Clips at the levels of a nest: fewer of their frames, or the first as a picture.

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
        return FirstFrames(source) if source.is_video else source
    if not source.is_video:
        raise ValueError(
            f"{source.name!r} has pictures, not clips. Received: level={level!r}"
        )
    if source.num_frames == frames:
        return source
    if source.num_frames is None:
        raise ValueError(
            f"the clips of {source.name!r} may differ in length: open the source with "
            f"num_frames={frames} or a multiple. Received: level={level!r}"
        )
    if source.num_frames % frames:
        raise ValueError(
            f"the clips of {source.name!r} have {source.num_frames} frames, which "
            f"can't be divided into {frames}: open the source with num_frames={frames} "
            f"or a multiple. Received: level={level!r}"
        )
    return FewerFrames(source, frames)


class _Derived(Source):
    """Items of another source, which skips and reports what is unusable."""

    def __init__(self, source, **changes):
        super().__init__(
            source.name,
            source.channels,
            source.class_names,
            source.num_classes,
            source.has_captions,
            **changes,
        )
        self._source = source
        # What was skipped as the source was opened; the rest is met again.
        for what, why in source.skipped:
            self.skip(what, why)
        for sentence in source.notes:
            self.note(sentence)

    def __len__(self):
        return len(self._source)

    def describe(self, index):
        return self._source.describe(index)


class FirstFrames(_Derived):
    """The first frame of every clip as a picture with its caption and label.

    Args:
        source: A `Source` of clips.
    """

    def _read(self, index):
        item = dict(self._source[index])
        video = item.pop("video")
        return {**item, "image": video[0]}


class FewerFrames(_Derived):
    """Every so manyth frame of every clip, from the first on.

    Args:
        source: A `Source` of clips.
        num_frames: Int. Frames left, a divisor of those of the source.
    """

    def __init__(self, source, num_frames):
        super().__init__(source, is_video=True, num_frames=num_frames)
        self._step = source.num_frames // num_frames

    def _read(self, index):
        item = self._source[index]
        return {**item, "video": item["video"][:: self._step]}


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
        super().__init__(source, is_video=source.is_video, num_frames=source.num_frames)
        self.has_captions = True

    def _read(self, index):
        item = self._source[index]
        return {**item, "caption": self.class_names[item["label"]]}
