"""Conditioners: layers that turn labels or text into tokens for a network.

A conditioner has a `size` (of its tokens), `feature_names` (of the batch entries it
reads) and a call `(features, drop) -> (tokens, mask)`.
"""

from keras_mdm.conditioning.embeddings import TextEmbeddings
from keras_mdm.conditioning.labels import ClassLabels
