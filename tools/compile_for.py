"""Compiles a model's training step for an accelerator, on a machine without one.

    python tools/compile_for.py --device tpu-v5e --preset mdm_tiny_32 --batch 32
    python tools/compile_for.py --device tpu-v5e --devices 16 --fsdp \\
        --preset mdm_s256 --batch 256 --remat 256
    python tools/compile_for.py --device h100 --preset mdm_s256 --batch 8

asks the device's own compiler, which comes in wheels and needs neither the device nor
its driver:

- TPUs (v4, v5e, v5p, v6e): `libtpu`, in the version that `jax[tpu]` of your jax names;
  for jax 0.10.2 `pip install --no-deps "libtpu==0.0.42.*"` (700 MB). It writes the
  cycles that it expects beside each kernel, the same on every machine and in every
  run: the figure of a model, not a measurement.
- H100: `pip install "jax[cuda13]"` (3 GB), or less of it: `pip install --no-deps
  jax-cuda13-plugin==0.10.2 jax-cuda13-pjrt==0.10.2 nvidia-cuda-nvcc nvidia-nvvm` beside
  jax 0.10.2 (1.4 GB), with `XLA_FLAGS="--xla_gpu_autotune_level=0
  --xla_gpu_enable_triton_gemm=false"`. It does not time candidates of convolutions and
  products, which takes the device; there compilation takes longer.

Prints one line of JSON: operations before compilation, seconds to trace, lower and
compile, kernels, memory on each device (temporary, and of arguments), FLOPs; for TPUs
the expected time of a step, its parts and the share of the chip's bfloat16 peak; for
several devices the bytes of each kind of collective. With `--no-compile` it only counts
operations, which takes no compiler.
"""

import json
import pathlib
import re
import sys
import time

import compile_report
import compile_targets
import train_memory
from shared import errors_as_lines, make_parser


def parse_arguments(arguments=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    devices = [compile_targets.H100, *compile_targets.TPUS]
    add("--device", default="tpu-v5e", choices=devices, help="the accelerator")
    add("--devices", type=int, default=1, help="chips; the batch is split over them")
    add("--fsdp", action="store_true", help="split every large variable over them too")
    add("--project", default=None, help="another checkout whose package is compiled")
    add("--config", help="JSON of a network, as tools/benchmark.py takes it")
    add("--preset", help="built-in preset, or a preset or run folder")
    add("--dtype", default="mixed_bfloat16", help="dtype policy of the network")
    add("--batch", type=int, default=8, help="samples a step on all devices")
    add("--ema", action="store_true", help="with the moving average")
    add("--remat", nargs="*", help="levels whose activations are computed again")
    add("--no-compile", action="store_true", help="count operations alone")
    add("--top", type=int, default=0, help="list the dearest kernels (TPUs)")
    add("--hlo", help="file to write the compiled program to")
    args = parser.parse_args(arguments)
    if (args.config is None) == (args.preset is None):
        parser.error("give either --config or --preset")
    if args.device == compile_targets.H100 and args.devices != 1:
        parser.error("an H100 is compiled for alone; --devices is for TPUs")
    return args


def make_model(args):
    """The model that the flags name, compiled for training."""
    import benchmark
    import benchmark_model

    flags = ["--config", args.config] if args.config else ["--preset", args.preset]
    flags += ["--dtype", args.dtype, "--backend", "jax"] + ["--ema"] * args.ema
    flags += ["--remat", *args.remat] if args.remat is not None else []
    return benchmark_model.make_model(benchmark.parse_arguments(flags))


def placed(shape, devices, args, is_data):
    """A shape with its sharding.

    Batches are split over the devices; variables are whole on each of them, or, with
    `--fsdp`, split as by `keras_mdm.distribution.FullySharded`.
    """
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

    from keras_mdm.distribution import sharded_axes

    if len(devices) == 1:
        sharding = SingleDeviceSharding(devices[0])
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
    axes = [None] * len(shape.shape)
    if is_data and shape.shape and shape.shape[0] == args.batch:
        axes[0] = "batch"
    elif args.fsdp and not is_data:
        axes = sharded_axes(shape.shape, len(devices), "batch")
    sharding = NamedSharding(Mesh(devices, ("batch",)), PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def compile_step(args):
    """Lowers the step, compiles it, and returns what is printed."""
    import jax

    mdm = make_model(args)
    step, *arguments = train_memory.abstract_step(mdm, args.batch)
    if not args.no_compile:
        devices = compile_targets.find_devices(args.device, args.devices)
        if len(devices) > 1:
            compile_targets.divide_batches(devices)
        state, *rest = arguments
        arguments = (
            jax.tree.map(lambda s: placed(s, devices, args, False), state),
            *jax.tree.map(lambda s: placed(s, devices, args, True), rest),
        )
    start = time.time()
    traced = jax.jit(step, donate_argnums=0).trace(*arguments)
    traced_at = time.time()
    platform = "cuda" if args.device == compile_targets.H100 else "tpu"
    only_counted = {"lowering_platforms": (platform,)} if args.no_compile else {}
    lowered = traced.lower(**only_counted)
    lowered_at = time.time()
    text = lowered.as_text()
    result = {
        "device": args.device,
        "devices": args.devices,
        "parameters": mdm.network.count_params(),
        "trainable_variables": len(mdm.trainable_variables),
        "batch": args.batch,
        "dtype": args.dtype,
        "trace_s": round(traced_at - start, 1),
        "lower_s": round(lowered_at - traced_at, 1),
        "operations": compile_report.count_operations(text),
        "fused_attention": compile_report.fused_attention(text),
    }
    if args.no_compile:
        return result
    # The compiler may take minutes, or the memory of this machine.
    print(json.dumps(result), file=sys.stderr, flush=True)
    start = time.time()
    compiled = lowered.compile()
    result["compile_s"] = round(time.time() - start, 1)
    result.update(describe(compiled, args))
    return result


def describe(compiled, args):
    """What the compiler says of the program that it made."""
    program = compiled.as_text()
    entry = compile_report.entry_of(program)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    result = {
        "kernels": len(re.findall(r" fusion\(", entry)),
        "custom_calls": len(re.findall(r" custom-call\(", entry)),
        "temporary_gib": round(memory.temp_size_in_bytes / 2**30, 2),
        "argument_gib": round(memory.argument_size_in_bytes / 2**30, 2),
        "flops": cost.get("flops"),
    }
    tpu = compile_targets.TPUS.get(args.device)
    if tpu is not None:
        rows = compile_report.kernels_by_cycles(entry)
        read = cost.get("bytes accessed", 0)
        result.update(compile_report.times(rows, cost["flops"], read, tpu))
        for cycles, part, place, kernel in rows[: args.top]:
            milliseconds = cycles / tpu.gigahertz / 1e6
            line = f"{milliseconds:8.3f} ms  {part:8}  {place[-100:]}  {kernel}"
            print(line, file=sys.stderr)
    if args.devices > 1:
        result["collective_bytes"] = compile_report.collective_bytes(program)
    if args.hlo:
        from keras_mdm.files import write_text

        write_text(args.hlo, program)
    return result


def main(arguments=None):
    args = parse_arguments(arguments)
    if args.project is not None:
        project = pathlib.Path(args.project).resolve()
        sys.path[:0] = [str(project), str(project / "tools")]
    compile_targets.prepare_process(args.device, not args.no_compile)
    compile_targets.pretend(args.device)
    with errors_as_lines():
        print(json.dumps(compile_step(args)))


if __name__ == "__main__":
    main()
