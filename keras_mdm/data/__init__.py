"""Pictures, clips and captions for training: sources and the road to batches."""

from keras_mdm.data.embeddings import EmbeddingShards
from keras_mdm.data.levels import ClassCaptions, at_level
from keras_mdm.data.limits import Limits
from keras_mdm.data.pictures import read_picture
from keras_mdm.data.pipeline import make_dataset, steps_per_epoch
from keras_mdm.data.shapes import is_held_out, make_scene
from keras_mdm.data.shapes_drawing import draw, draw_clips
from keras_mdm.data.source import Source, UnusablePicture
from keras_mdm.data.sources import open_source, register_source
from keras_mdm.data.transforms import prepare as prepare_picture
