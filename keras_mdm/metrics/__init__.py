"""Measures of drawn pictures that need no download."""

from keras_mdm.metrics.distances import frechet_distance, kernel_distance
from keras_mdm.metrics.judge import Judge, SceneJudge
from keras_mdm.metrics.scenes import score, summarize, to_cells
