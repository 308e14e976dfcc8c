"""Building blocks of the networks. They know nothing of diffusion."""

from keras_mdm.layers.attention import FeedForward, SpatialAttention, attend
from keras_mdm.layers.embeddings import (
    MicroConditioning,
    TimestepEmbedding,
    sinusoidal_embedding,
)
from keras_mdm.layers.normalization import GroupNormalization
from keras_mdm.layers.primitives import (
    Conv3x3,
    Dense,
    FrameConv,
    LayerNorm,
    standardize,
)
from keras_mdm.layers.resampling import Downsample, Upsample
from keras_mdm.layers.residual import ResidualBlock
from keras_mdm.layers.temporal import (
    FrameDownsample,
    FrameEmbedding,
    FrameUpsample,
    TemporalAttention,
)
from keras_mdm.layers.tokens import TokenBlock, TokenConditioning
