"""Layers, schedules and functions as JSON, without importing another backend."""

import keras


def serialize(thing):
    """What `keras.saving.deserialize_keras_object` makes a copy of a thing from.

    Keras' own function would import TensorFlow, on any backend, if it is installed.

    Args:
        thing: Object with a `get_config`, or a function, registered with
            `keras.saving.register_keras_serializable`.

    Returns:
        dict of JSON values.

    Raises:
        ValueError: if it is a function that is not registered.
    """
    if hasattr(thing, "get_config"):
        return {
            "module": type(thing).__module__,
            "class_name": type(thing).__name__,
            "config": thing.get_config(),
            "registered_name": keras.saving.get_registered_name(type(thing)),
        }
    registered = None
    if hasattr(thing, "__name__"):
        registered = keras.saving.get_registered_name(thing)
    if keras.saving.get_registered_object(registered) is not thing:
        raise ValueError(
            "a function can be saved if it is decorated with "
            "`@keras.saving.register_keras_serializable('your_package')`, so that "
            f"loading finds it. Received: {thing!r}"
        )
    return {
        "module": "builtins",
        "class_name": "function",
        "config": registered,
        "registered_name": registered,
    }
