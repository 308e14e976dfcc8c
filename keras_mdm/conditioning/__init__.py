"""Conditioners: layers that turn labels or text into tokens for a network.

A conditioner has a `size` (of its tokens), `feature_names` (of the batch entries it
reads) and a call `(features, drop) -> (tokens, mask)`. Those on text can also make
these entries from strings: `encode_texts`.
"""

from keras_mdm.conditioning.embeddings import TextEmbeddings
from keras_mdm.conditioning.labels import ClassLabels
from keras_mdm.conditioning.t5 import T5Encoder
from keras_mdm.conditioning.text import TextConditioner, TextEncoder
from keras_mdm.conditioning.tokenizers import find_vocabulary
