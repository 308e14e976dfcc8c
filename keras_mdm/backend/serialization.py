"""Layers, schedules and functions as JSON and back, without importing anything."""

import keras

# Their classes are registered too, and build more than a model of this package has.
_OTHERS = {"keras", "keras_hub", "keras_nlp", "keras_cv", "keras_rs"}


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


def deserialize(config):
    """What `serialize` was given: a thing of this package, or one that you registered.

    Keras' own function would import what a file names, and build any layer of its own.

    Args:
        config: dict of JSON values.

    Raises:
        ValueError: if any class or function in it is of neither kind. Nothing was
            built then.
    """
    check_classes(config)
    return keras.saving.deserialize_keras_object(config)


def check_classes(config):
    """Raises the `ValueError` of `deserialize`, and builds nothing."""
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, list | tuple):
            left.extend(value)
        elif isinstance(value, dict):
            ours = True
            if {"class_name", "registered_name", "module"} & set(value):
                ours = _check_class(value)
            # What is inside a class of the user's is for that class to read.
            left.extend(value.values() if ours else ())


def _check_class(config):
    """Whether a class or function that may be built is one of this package."""
    name, registered = config.get("class_name"), config.get("registered_name")
    found = None
    if isinstance(registered, str) and registered.split(">")[0] not in _OTHERS:
        found = keras.saving.get_registered_object(registered)
    # Keras looks a function up by this.
    named = config.get("config") if name == "function" else registered
    if (
        found is None
        or named != registered
        or (name != "function" and name != getattr(found, "__name__", None))
    ):
        raise ValueError(
            f"{str(name)[:80]!r} is no class of keras_mdm, so nothing was built. If it "
            "is yours, import the module that decorates it with "
            "`@keras.saving.register_keras_serializable('your_package')` first. "
            f"Received: registered_name={str(registered)[:80]!r}"
        )
    return registered.split(">")[0] == "keras_mdm"
