"""In which dtype the layers of a network read its weights. Used by `generate`."""

import keras


def weight_dtypes(network, variables):
    """Dtypes in which a network's layers compute with variables of theirs.

    With a mixed policy kernels and biases are kept as float32 and cast at each use;
    who uses them many times casts them once before.

    Args:
        network: `UNet` or a doll around one.
        variables: List of variables of the network.

    Returns:
        List of str: the dtype of compute of dense and convolutional layers for
        theirs, for all others the one that they have.
    """
    kinds = (keras.layers.Dense, keras.layers.Conv2D)
    used = {
        id(weight): layer.compute_dtype
        for layer in network._flatten_layers()
        if isinstance(layer, kinds)
        for weight in layer.weights
    }
    return [used.get(id(variable), variable.dtype) for variable in variables]
