"""Condition tokens: what the innermost network makes of labels or text."""

from keras import ops

from keras_mdm.layers.attention import FeedForward, FromHeads, ToHeads, attend
from keras_mdm.layers.primitives import (
    Dense,
    Layer,
    LayerNorm,
    check_divisible,
)


class TokenBlock(Layer):
    """Pre-norm Transformer block over condition tokens.

    Args:
        size: int. Size of a token, a multiple of `num_heads`.
        num_heads: int. Number of attention heads. Defaults to 8.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        tokens: Tensor of shape `(batch, length, size)`.
        token_mask: Optional bool tensor of shape `(batch, length)`.

    Returns:
        Tensor of the shape of `tokens`.
    """

    def __init__(self, size, num_heads=8, **kwargs):
        super().__init__(**kwargs)
        check_divisible(size, num_heads, "attention heads")
        self.size = size
        self.num_heads = num_heads
        policy = self.dtype_policy
        self.norm = LayerNorm(size, dtype=policy, name="norm")
        self.qkv = ToHeads(size, size, 3, num_heads, dtype=policy, name="qkv")
        self.output_projection = FromHeads(
            size, size, zero=True, dtype=policy, name="output"
        )
        self.feed_forward = FeedForward(
            size, spatial=False, dtype=policy, name="feed_forward"
        )

    def call(self, tokens, token_mask=None):
        query, key, value = self.qkv(self.norm(tokens))
        attended = attend(query, (key, value, token_mask))
        return self.feed_forward(tokens + self.output_projection(attended))


class TokenConditioning(Layer):
    """Projects condition tokens, refines them and pools them into one embedding.

    Args:
        inputs: int. Size of the tokens that a conditioner yields.
        embedding_size: int. Size of the pooled embedding.
        projection_size: int. Size to which tokens are projected first, or `None`
            to take them as they are. Defaults to `None`.
        num_blocks: int. Number of `TokenBlock` layers. Defaults to 0.
        masked_attention: bool. Whether attention leaves out padding. The released
            models were trained with `False`: padding is attended to, and only the
            pooling leaves it out. Defaults to `True`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        tokens: Tensor of shape `(batch, length, inputs)`.
        token_mask: Optional bool tensor of shape `(batch, length)`, `True` for tokens
            and `False` for padding. At least one token a sample must be `True`.

    Returns:
        A pair: tokens of shape `(batch, length, token_size)` and an embedding of
        shape `(batch, embedding_size)`.
    """

    def __init__(
        self,
        inputs,
        embedding_size,
        projection_size=None,
        num_blocks=0,
        masked_attention=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.inputs = inputs
        self.embedding_size = embedding_size
        self.projection_size = projection_size
        self.num_blocks = num_blocks
        self.masked_attention = masked_attention
        policy = self.dtype_policy
        self.token_size = projection_size or inputs
        self.projection = None
        if projection_size is not None:
            self.projection = Dense(
                inputs, projection_size, dtype=policy, name="projection"
            )
        self.blocks = [
            TokenBlock(self.token_size, dtype=policy, name=f"block_{i}")
            for i in range(num_blocks)
        ]
        self.pooled = Dense(
            self.token_size, embedding_size, use_bias=False, dtype=policy, name="pooled"
        )

    def call(self, tokens, token_mask=None):
        if self.projection is not None:
            tokens = self.projection(tokens)
        for block in self.blocks:
            tokens = block(tokens, token_mask if self.masked_attention else None)
        return tokens, self.pooled(self._pool(tokens, token_mask))

    def _pool(self, tokens, mask):
        # Blocks that see the padding also pool it, as the released models do.
        if mask is None or (self.blocks and not self.masked_attention):
            return ops.mean(tokens, axis=1)
        weights = ops.cast(mask, "float32")[:, :, None]
        total = ops.sum(ops.cast(tokens, "float32") * weights, axis=1)
        count = ops.maximum(ops.sum(weights, axis=1), 1.0)
        return ops.cast(total / count, tokens.dtype)
