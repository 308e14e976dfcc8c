"""Data sets that TensorFlow reads: known shapes of batches, captions encoded.

Called by `model.streams` and `model.entry_points`.
"""

from keras_mdm.backend.devices import name


def with_known_shapes(data, example):
    """Data whose batches TensorFlow knows the shape of before it traces a step.

    Keras declares the batch size of grain data sets, PyDatasets and generators unknown
    to TensorFlow, so mixed batches could not be cut and XLA would compile each size.

    Args:
        data: Iterable of batches, all of the shapes of `example`.
        example: One batch: nested structure of arrays.

    Returns:
        A `tf.data.Dataset` on TensorFlow, `data` on the other backends.
    """
    if name() != "tensorflow":
        return data
    import tensorflow as tf

    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec(array.shape, array.dtype), example
    )
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(data), output_signature=signature
    )
    if hasattr(data, "__len__"):
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(data)))
    return dataset.prefetch(2)


def belongs_to(value, package):
    """Whether a value's class, or one that it derives from, is a package's."""
    return any(c.__module__.split(".")[0] == package for c in type(value).__mro__)


def map_captions(data, prepare, example):
    """A tf.data data set whose batches go through `prepare` on the host.

    Args:
        data: `tf.data.Dataset` of batch dicts with `captions`, or of tuples that begin
            with one.
        prepare: Callable from a dict of numpy arrays to one without `captions`.
        example: The first batch.

    Returns:
        A `tf.data.Dataset`.
    """
    import tensorflow as tf

    names = sorted(example)
    result = prepare({name: example[name].numpy() for name in names})
    kept = sorted(result)

    def encode(batch):
        def on_host(*arrays):
            found = prepare(dict(zip(names, arrays, strict=True)))
            return [found[name] for name in kept]

        values = tf.numpy_function(
            on_host,
            [batch[name] for name in names],
            [result[name].dtype for name in kept],
        )
        for key, value in zip(kept, values, strict=True):
            # Entries of the batch keep what tf.data knows of their shape.
            pictures = batch["videos" if "videos" in batch else "images"]
            known = pictures.shape[:1].concatenate(result[key].shape[1:])
            value.set_shape(batch[key].shape if key in batch else known)
        return dict(zip(kept, values, strict=True))

    def map_element(*element):
        encoded = encode(element[0])
        return (encoded, *element[1:]) if len(element) > 1 else encoded

    return data.map(map_element, num_parallel_calls=tf.data.AUTOTUNE)
