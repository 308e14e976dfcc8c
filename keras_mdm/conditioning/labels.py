"""Class labels as one learned token."""

import keras
from keras import ops

from keras_mdm.checks import check_whole
from keras_mdm.layers.initializers import HostNormal


@keras.saving.register_keras_serializable("keras_mdm")
class ClassLabels(keras.layers.Layer):
    """Conditioner that turns a class label into one learned token.

    One more token stands for "no class": the null condition of classifier-free
    guidance.

    Args:
        num_classes: int. Labels run from 0 to `num_classes - 1`.
        size: int. Size of the token.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        features: dict with `labels`, an int tensor of shape `(batch,)`.
        drop: Optional bool tensor of shape `(batch,)`: samples that are given the
            null condition.

    Returns:
        A pair: tokens of shape `(batch, 1, size)`, and `None` for no mask.

    Example:

    ```python
    unet = keras_mdm.UNet(16, (32, 64), conditioner=ClassLabels(10, size=64))
    ```
    """

    feature_names = ("labels",)

    def __init__(self, num_classes, size, **kwargs):
        kwargs.setdefault("name", "class_labels")
        super().__init__(**kwargs)
        check_whole(num_classes=num_classes, size=size)
        self.num_classes = num_classes
        self.size = size

    def build(self, input_shape=None):
        self.table = self.add_weight(
            shape=(self.num_classes + 1, self.size),
            initializer=HostNormal(1.0),
            name="table",
        )

    def call(self, features, drop=None):
        labels = ops.cast(features["labels"], "int32")
        if drop is not None:
            labels = ops.where(drop, self.num_classes, labels)
        return ops.take(self.table, labels, axis=0)[:, None, :], None

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "num_classes": self.num_classes,
            "size": self.size,
        }
