"""Measures of generated images and clips that need no download."""

from keras_mdm.metrics.distances import (
    frame_change,
    frechet_distance,
    gaussian_distance,
    kernel_distance,
    pixel_distances,
)
from keras_mdm.metrics.judge import ClipJudge, Judge, SceneJudge
from keras_mdm.metrics.scenes import (
    CLIP_ATTRIBUTES,
    score,
    summarize,
    to_cells,
    to_label,
)
