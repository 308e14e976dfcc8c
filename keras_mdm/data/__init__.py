"""Pictures, clips and captions for training: sources and the road to batches."""

from keras_mdm.data.pipeline import make_dataset
from keras_mdm.data.pipeline import steps_per_epoch
from keras_mdm.data.shapes import is_held_out
from keras_mdm.data.shapes import make_scene
from keras_mdm.data.shapes_drawing import draw
from keras_mdm.data.shapes_drawing import draw_clips
from keras_mdm.data.source import Source
from keras_mdm.data.source import UnusablePicture
from keras_mdm.data.sources import open_source
