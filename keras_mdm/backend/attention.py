"""Attention in one kernel of the accelerator, where its backend has one.

Not by `keras.ops.dot_product_attention`, which on a TPU leaves out the scale and takes
a causal mask, and on a GPU refuses masks of the shape that it broadcasts itself. Called
by `layers.attention`.
"""

import math

import keras

from keras_mdm.backend.devices import name, on_cpu
from keras_mdm.backend.sharding import batch_mesh

# Queries and keys, and features of a head, from which on the kernel for TPUs is faster
# than plain products. It fills heads up to 128 features.
_LEAST_FOR_TPU, _LEAST_SIZE_FOR_TPU = 128, 64
_TPU_BLOCKS = (512, 256, 128)


def attention_kernel(query, key):
    """The kernel for a query and a key on this device.

    Args:
        query: Tensor of shape `(batch, queries, heads, size)`.
        key: Tensor of shape `(batch, keys, heads, size)`.

    Returns:
        Callable of query, key, value and mask (bool of shape `(batch, keys)`, or
        `None`), which returns the attended values; `None` where there is none and plain
        products are to be taken.
    """
    if name() == "torch":
        return _attend_in_torch
    if name() != "jax" or on_cpu():
        return None
    import jax

    if jax.default_backend() == "tpu":
        long = min(query.shape[1], key.shape[1]) >= _LEAST_FOR_TPU
        wide = query.shape[-1] >= _LEAST_SIZE_FOR_TPU
        return on_each_device(attend_on_tpu, query) if long and wide else None
    return attend_on_gpu if _suits_cudnn(query) else None


def on_each_device(kernel, query):
    """A kernel that XLA can't divide, which each device runs on its rows of a batch.

    `None` if the devices do not divide the rows, as of part of a mixed batch.
    """
    divided = batch_mesh()
    if divided is None:
        return kernel
    import jax

    mesh, axis = divided
    if query.shape[0] % mesh.shape[axis]:
        return None
    rows = jax.sharding.PartitionSpec(axis)
    # Pallas' kernels do not say over which axes their results vary.
    return jax.shard_map(
        kernel, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False
    )


def _suits_cudnn(query):
    half = keras.backend.standardize_dtype(query.dtype) in ("bfloat16", "float16")
    return half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128 and _has_cudnn()


def _has_cudnn():
    """Whether the GPU is one of NVIDIA's that has the kernel: Ampere or newer."""
    import jax

    # Devices that are only compiled for have no such attribute.
    capability = getattr(jax.devices()[0], "compute_capability", "8.0")
    try:
        return float(capability) >= 8.0
    except ValueError:
        return False


def attend_on_gpu(query, key, value, mask, implementation="cudnn"):
    """cuDNN's kernel: lengths must be even, and a mask must have a row a query."""
    import jax

    queries = query.shape[1]
    query, key, value, mask = _padded(query, key, value, mask, 2)
    if mask is not None:
        shape = (key.shape[0], 1, query.shape[1], key.shape[1])
        mask = jax.numpy.broadcast_to(mask[:, None, None, :], shape)
    result = jax.nn.dot_product_attention(
        query, key, value, mask=mask, implementation=implementation
    )
    return result[:, :queries]


def attend_on_tpu(query, key, value, mask):
    """The splash kernel: lengths must be whole blocks, and it does not scale."""
    import jax
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as splash,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    queries, heads = query.shape[1:3]
    query, key, value, mask = _padded(query, key, value, mask, _TPU_BLOCKS[-1])
    length, keys = query.shape[1], key.shape[1]
    of_queries = next(block for block in _TPU_BLOCKS if length % block == 0)
    of_keys = next(block for block in _TPU_BLOCKS if keys % block == 0)
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((length, keys))] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=splash.BlockSizes(
            block_q=of_queries,
            block_kv=of_keys,
            block_q_dkv=of_queries,
            block_kv_dkv=of_keys,
            block_q_dq=of_queries,
            block_kv_dq=of_keys,
        ),
    )
    query = query / math.sqrt(query.shape[-1])
    heads_first = [jax.numpy.swapaxes(x, 1, 2) for x in (query, key, value)]
    if mask is None:
        result = jax.vmap(kernel)(*heads_first)
    else:
        # Queries attend to keys of their own segment. Those that fill up a block are
        # cut off below, so that theirs does not matter.
        segments = splash.SegmentIds(
            q=jax.numpy.ones((query.shape[0], length), "int32"),
            kv=mask.astype("int32"),
        )
        result = jax.vmap(kernel)(*heads_first, segments)
    return jax.numpy.swapaxes(result, 1, 2)[:, :queries]


def _padded(query, key, value, mask, multiple):
    """All with zeros behind, up to multiples of a length; such keys are masked."""
    import jax

    def pad(x):
        rest = -x.shape[1] % multiple
        widths = [(0, 0), (0, rest)] + [(0, 0)] * (x.ndim - 2)
        return jax.numpy.pad(x, widths) if rest else x

    if key.shape[1] % multiple:
        if mask is None:
            mask = jax.numpy.ones(key.shape[:2], "bool")
        mask = pad(mask)
    return pad(query), pad(key), pad(value), mask


def _attend_in_torch(query, key, value, mask):
    mask = None if mask is None else mask[:, None, None, :]
    return keras.ops.dot_product_attention(query, key, value, mask=mask)
