"""Memory of a training step with and without rematerialisation, before any is spent.

    python tools/train_memory.py --preset mdm_s256v --batch 1

Compiles the training step of a preset on JAX without running it, once for each choice
of levels whose activations are computed again in the backward pass, and prints XLA's
own figures as a table:

- `temporary`: what the step needs beside its arguments, mostly activations.
- `state`: weights, moving average and both moments of the optimizer, changed in place.

XLA plans memory for the device that JAX finds; on a CPU the plan is one for a CPU, and
another device may fuse more. XLA's CPU compiler would undo rematerialisation before it
plans (its gain is for accelerators), so it is told to leave that pass out. One JSON
line goes to the standard output, the table to the standard error.
"""

import json
import os
import sys
import time

from shared import errors_as_lines, make_parser


def parse_arguments(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--preset", required=True, help="built-in preset, or a preset or run folder")
    add("--batch", type=int, default=1, help="samples a step")
    add(
        "--dtype",
        default="float32",
        help="dtype policy of the network, such as mixed_bfloat16",
    )
    add(
        "--only",
        nargs="+",
        metavar="CHOICE",
        help="some of the rows: 'none', a level, 'all'; default: every one",
    )
    return parser.parse_args(argv)


def abstract_batch(mdm, size):
    """Shapes and dtypes of a training batch of the largest level that takes part."""
    import jax
    from benchmark_model import make_condition

    from keras_mdm.levels import level_shape, read_level

    network = mdm.active_network
    pictures = "images" if read_level(network.level)[0] == 1 else "videos"
    condition, _ = make_condition(mdm, 1)
    batch = {
        name: jax.ShapeDtypeStruct((size, *value.shape[1:]), value.dtype)
        for name, value in condition.items()
    }
    shape = (size, *level_shape(network.level, network.image_channels))
    return batch | {pictures: jax.ShapeDtypeStruct(shape, "uint8")}


def abstract_step(mdm, size):
    """The training step of a compiled model, and the shapes that it is called on.

    Returns:
        A tuple: function, state and batch of `size` samples.
    """
    import jax

    def shapes(variables):
        return [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in variables]

    state = (
        shapes(mdm.trainable_variables),
        shapes(mdm.non_trainable_variables),
        shapes(mdm.optimizer.variables),
        shapes(mdm.metrics_variables),
    )

    def step(state, data):  # A new one each time: JAX keeps traces by function.
        return mdm.train_step(state, data)

    return step, state, abstract_batch(mdm, size)


def measure(mdm, size):
    """Bytes that XLA plans for a training step of the compiled model.

    Returns:
        dict of int: `temporary` and `state`; and of float: `compile_s`.
    """
    import jax

    start = time.perf_counter()
    step, *shapes = abstract_step(mdm, size)
    options = {}
    if jax.default_backend() == "cpu":
        options = {
            "xla_disable_hlo_passes": "cse_barrier_expander",
            # Buffers are planned before code is made, so the code need not be fast.
            "xla_backend_optimization_level": 0,
        }
    lowered = jax.jit(step, donate_argnums=0).lower(*shapes)
    plan = lowered.compile(options).memory_analysis()
    return {
        "temporary": plan.temp_size_in_bytes,
        "state": plan.alias_size_in_bytes,
        "compile_s": time.perf_counter() - start,
    }


def choices(network, only):
    """Names of the rows and the levels that each computes again.

    Raises:
        ValueError: if one of `only` is no row.
    """
    rows = {"none": False}
    rows |= {str(level): [level] for level in network.levels}
    rows["all"] = True
    unknown = set(only or ()) - set(rows)
    if unknown:
        raise ValueError(
            f"--only must have some of {sorted(rows)}. Received: {sorted(unknown)}"
        )
    return {name: levels for name, levels in rows.items() if name in (only or rows)}


def run(arguments):
    import jax
    from keras import ops

    import keras_mdm

    if arguments.batch < 1:
        raise ValueError(f"--batch must be at least 1. Received: {arguments.batch}")
    mdm = keras_mdm.MDM.from_preset(
        arguments.preset, load_weights=False, dtype=arguments.dtype
    )
    found = {}
    device = jax.local_devices()[0]
    print(
        f"{arguments.preset}, batch {arguments.batch}, {arguments.dtype}, planned for "
        f"{device.device_kind}, GiB:\n"
        f"{'computed again':>16}{'temporary':>11}{'state':>8}",
        file=sys.stderr,
    )
    for name, levels in choices(mdm.network, arguments.only).items():
        mdm.network.set_remat(levels)
        mdm.compile()
        found[name] = measure(mdm, arguments.batch)
        row = (found[name][key] / 2**30 for key in ("temporary", "state"))
        print(
            f"{name:>16}" + "{:>11.2f}{:>8.2f}".format(*row),
            file=sys.stderr,
            flush=True,
        )
    return {
        "preset": arguments.preset,
        "batch": arguments.batch,
        "dtype": arguments.dtype,
        "device": device.device_kind,
        "bytes": found,
        "parameters": sum(int(ops.size(v)) for v in mdm.network.variables),
    }


def main(argv=None):
    arguments = parse_arguments(argv)
    os.environ["KERAS_BACKEND"] = "jax"
    with errors_as_lines():
        print(json.dumps(run(arguments)))


if __name__ == "__main__":
    main()
