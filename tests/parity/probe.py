"""Outputs, gradients and inner activations of a network, on every backend.

JAX compiles each function once, with few optimizations, which is the fastest way there;
the other backends run eagerly.
"""

import math

import keras
import numpy as np

from keras_mdm.convert.ml_mdm import TO_TORCH, named_variables
from keras_mdm.networks import NestedUNet


def to_numpy(tree):
    return keras.tree.map_structure(
        lambda x: None if x is None else keras.ops.convert_to_numpy(x), tree
    )


def to_tensors(tree):
    return keras.tree.map_structure(
        lambda x: None if x is None else keras.ops.convert_to_tensor(x), tree
    )


def fast(function, variables=(), repeated=False):
    """A forward function as the backend runs it fastest.

    Args:
        function: Callable of nested tensors.
        variables: Variables that it reads.
        repeated: bool. Whether it is called many times with the same shapes.
    """
    if keras.backend.backend() == "tensorflow" and repeated:
        import tensorflow as tf

        return tf.function(function, autograph=False)
    if keras.backend.backend() != "jax":
        return function
    import jax

    def with_values(values, *args):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*args)

    compiled = jax.jit(
        with_values, compiler_options={"xla_backend_optimization_level": 0}
    )
    return lambda *args: compiled([v.value for v in variables], *args)


def gradients(function, variables):
    """A function that also pulls cotangents back to variables.

    Args:
        function: Callable of nested tensors that returns (outputs, extras), where
            outputs are a list of tensors.
        variables: List of `keras.Variable`.

    Returns:
        A callable of (arguments, cotangents) that returns outputs, extras and the
        gradients of `sum_i sum(outputs[i] * cotangents[i])`, zeros where there are
        none.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def pull(values, args, cotangents):
            def pure(values):
                mapping = list(zip(variables, values, strict=True))
                with keras.StatelessScope(state_mapping=mapping):
                    return function(*args)

            outputs, back, extras = jax.vjp(pure, values, has_aux=True)
            return outputs, extras, back(cotangents)[0]

        compiled = jax.jit(pull, compiler_options={"xla_backend_optimization_level": 0})
        return lambda args, cotangents: compiled(
            [v.value for v in variables], args, cotangents
        )

    def run(args, cotangents):
        if backend == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                outputs, extras = function(*args)
            found = tape.gradient(
                outputs, [v.value for v in variables], output_gradients=cotangents
            )
        else:
            import torch

            outputs, extras = function(*args)
            found = torch.autograd.grad(
                outputs,
                [v.value for v in variables],
                grad_outputs=cotangents,
                allow_unused=True,
            )
        found = [
            keras.ops.zeros_like(v) if g is None else g
            for v, g in zip(variables, found, strict=True)
        ]
        return outputs, extras, found

    return run


class Probe:
    """Runs a network and reads gradients and activations by official name.

    Args:
        network: `UNet` or `NestedUNet`.
        activations: Names of official modules whose outputs are wanted.
    """

    def __init__(self, network, activations=()):
        self.network = network
        self._wanted = set(activations)
        self._names = list(named_variables(network))
        self._forward = fast(self._recording, network.variables)
        self._pull = gradients(self._recording, [v for _, v, _ in self._names])

    def _recording(self, inputs):
        seen = {}
        places = [p for p in official_modules(self.network) if p[0] in self._wanted]
        for name, owner, method in places:
            original = getattr(owner, method)

            def recording(*args, _name=name, _original=original, **kwargs):
                seen[_name] = _original(*args, **kwargs)
                return seen[_name]

            # Keras would track an attribute that is set the usual way.
            object.__setattr__(owner, method, recording)
        try:
            return self.network(inputs), seen
        finally:
            for _, owner, method in places:
                object.__delattr__(owner, method)

    def forward(self, inputs):
        """Returns outputs and activations, as numpy, channels last."""
        return to_numpy(self._forward(to_tensors(inputs)))

    def pull(self, inputs, cotangents):
        """Returns outputs, activations and the gradients of parameters, as numpy.

        Gradients are in the official layout, by official name.
        """
        outputs, seen, found = self._pull(
            (to_tensors(inputs),), to_tensors(list(cotangents))
        )
        by_name = {
            name: TO_TORCH[layout](keras.ops.convert_to_numpy(gradient))
            for (name, _, layout), gradient in zip(self._names, found, strict=True)
        }
        return to_numpy(outputs), to_numpy(seen), by_name


def official_modules(network, prefix=""):
    """Yields (official module, our object, its method) whose results correspond."""
    yield f"{prefix}temb_layer2", network.time_embedding.output_projection, "call"
    yield f"{prefix}temb_total", network, "embed"
    for micro in network.micro_embeddings:
        name = f"{prefix}cond_layers.{micro.feature}.1"
        yield name, micro.output_projection, "call"
    yield f"{prefix}conv_in", network.conv_in, "call"
    yield f"{prefix}norm_out", network.norm_out, "call"
    for way in ("down", "up"):
        for i, block in enumerate(getattr(network, f"{way}_blocks")):
            name = f"{prefix}{way}_blocks.{i}"
            yield name, block, way
            yield f"{name}.resnets.0", block.residuals[0], "call"
            for j, attention in enumerate(block.attentions):
                yield f"{name}.attn.{j}", attention, "call"
            for j, attention in enumerate(block.temporal_attentions):
                yield f"{name}.t_attn.{j}", attention, "call"
    if isinstance(network, NestedUNet):
        yield f"{prefix}in_adapter", network.adapter_in, "call"
        yield f"{prefix}out_adapter", network.adapter_out, "call"
        yield from official_modules(network.inner, f"{prefix}inner_unet.")
        return
    if network.mid_block is not None:
        yield f"{prefix}mid_blocks.0", network.mid_block, "middle"
        yield f"{prefix}mid_blocks.1", network.mid_residual, "call"
    if network.tokens is not None:
        yield f"{prefix}cond_emb", network.tokens.pooled, "call"
        if network.tokens.projection is not None:
            yield f"{prefix}lm_proj", network.tokens.projection, "call"
        for i, block in enumerate(network.tokens.blocks):
            yield f"{prefix}lm_head.{i}", block, "call"


def wave(shape):
    """Cotangent of the recorded gradients: sin of the flat NCHW index, as a mean."""
    size = math.prod(shape)
    flat = np.sin(np.arange(size, dtype="float64")) / size
    return flat.reshape(shape).astype("float32")
