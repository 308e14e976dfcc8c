"""Measures of drawn pictures that need no download."""

from keras_mdm.metrics.clip_judge import CLIP_ATTRIBUTES, ClipJudge, to_label
from keras_mdm.metrics.distances import (
    frame_change,
    frechet_distance,
    kernel_distance,
)
from keras_mdm.metrics.judge import Judge, SceneJudge
from keras_mdm.metrics.scenes import score, summarize, to_cells
