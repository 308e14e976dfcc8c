"""A folder of video files as a source: `open_source("clips:PATH", num_frames=16)`.

Captions, classes and splits are those of a folder of pictures.
"""

from keras_mdm.data.folders import Files
from keras_mdm.data.video_files import READABLE, import_av, read_clip


class Clips(Files):
    """The beginnings of the videos of a folder, all of one length.

    Videos that are damaged or too short are skipped and reported, never fatal.
    `Files` documents captions, classes, `path` and `split`.

    Args:
        path: String or path of the folder.
        split: String. The split.
        num_frames: Int. Frames of a clip. Defaults to all that a video has.
        frame_rate: Float. Frames a second, picked by their time stamps. Defaults to
            the frames of each video as they follow each other.
    """

    def __init__(self, path, split="train", num_frames=None, frame_rate=None):
        import_av(f"The source 'clips:{path}'")
        super().__init__(
            "clips", path, split, READABLE, is_video=True, num_frames=num_frames
        )
        self._frame_rate = frame_rate

    def _read_file(self, path):
        return {"video": read_clip(path, self.num_frames, self._frame_rate)}
