"""Scaling of the loss where a network computes in float16. Called by `MDM.compile`.

`keras.Model.compile` looks at the dtype policy of the model itself, which is float32
here: clean pictures, noise and targets are.
"""

import keras


def with_scaled_loss(optimizer, network, auto_scale_loss):
    """The optimizer, in a `LossScaleOptimizer` where layers compute in float16.

    Args:
        optimizer: A Keras optimizer, or what `keras.optimizers.get` takes.
        network: `DenoisingNetwork`.
        auto_scale_loss: bool. See `MDM.compile`.

    Raises:
        ValueError: if weights are kept in float16.
    """
    policies = {layer.dtype_policy.name for layer in network._flatten_layers()}
    if "float16" in policies:
        raise ValueError(
            "weights kept in float16 can't be trained: most updates are too small for "
            "it. Make the network with dtype='mixed_bfloat16', or 'mixed_float16' on a "
            "device without bfloat16. Received: dtype='float16'"
        )
    if "mixed_float16" not in policies or not auto_scale_loss:
        return optimizer
    optimizer = keras.optimizers.get(optimizer)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)
