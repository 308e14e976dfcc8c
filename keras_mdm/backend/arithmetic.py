"""Operations that TensorFlow has in one pass over memory, or as one operation.

Called by `model.optimizer` and `model.ema`.
"""

import keras

from keras_mdm.backend.devices import name


def fused_adam():
    """Adam's update of one weight as one operation, or `None` if there is none.

    Returns:
        `None`, or a callable of the weight, both moments, the powers of both betas, the
        learning rate, the betas, epsilon and the gradient.
    """
    if name() != "tensorflow":
        return None
    import tensorflow as tf

    def handle(variable):
        # Keras hands over the weight as TensorFlow's variable, moments as its own.
        return (variable if hasattr(variable, "handle") else variable.value).handle

    def update(weight, first, second, powers, rate, betas, epsilon, gradient):
        tf.raw_ops.ResourceApplyAdam(
            var=handle(weight),
            m=handle(first),
            v=handle(second),
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=rate,
            beta1=betas[0],
            beta2=betas[1],
            epsilon=epsilon,
            grad=tf.convert_to_tensor(gradient),
        )

    return update


def sum_of_squares(x):
    """Sum of squares of a float tensor's elements, in one pass over it."""
    if name() != "tensorflow":
        return keras.ops.sum(keras.ops.square(x))
    import tensorflow as tf

    return 2.0 * tf.nn.l2_loss(x)


def move_towards(variable, value, share):
    """Moves a variable a share of the way to a value, in few passes over memory."""
    if name() != "tensorflow":
        variable.assign(variable + (value - variable) * share)
        return
    import tensorflow as tf

    tf.raw_ops.ResourceApplyGradientDescent(
        var=variable.value.handle, alpha=share, delta=variable.value - value
    )
