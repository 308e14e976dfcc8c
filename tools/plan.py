"""Plans a training run before any accelerator is at hand.

    python tools/plan.py --preset mdm_s1024 --batch 512 --devices 32 --device h100
    python tools/plan.py --preset mdm_base_256 --device "24 GiB"

prints, for each stage of the progressive schedule of the recipes: parameters, FLOPs of
each level, the memory that each device needs, which of accumulation, sharded state
(fsdp) and recomputed activations (remat) make it fit, the data rate, and the time in
hours at a share of the device's peak. `--set` takes the settings of the recipes.

Memory is read off the trace of the training step (`plan_memory.py`), which takes
seconds and neither a device nor a compiler. Beside what an H100's compiler planned,
temporary memory is 0.91 GiB for 0.95 (a nest of 18.6 M parameters at batch 32), 7.1 for
7.9 (`mdm_flickr_256` at batch 8), 3.5 for 3.7 (`mdm_base_64`, 32) and 5.0 for 5.7
(`mdm_base_256`, 8). A TPU's compiler keeps less: 4.7 GiB for 7.0 (`mdm_base_64`, 64).
`--compile` asks a compiler about what was chosen: the device's own where it is
installed (see `compile_for.py`), that of an H100 for other GPUs, or else the CPU's, and
says which; from a TPU's comes the expected time as well.

Of a GPU's memory JAX takes three quarters unless `XLA_PYTHON_CLIENT_MEM_FRACTION` says
more; the plan fills `--fill` of it.
"""

import importlib.util
import os
import re
import sys
import tempfile

import compile_targets
from shared import errors_as_lines, make_parser

KNOWN = {**compile_targets.CARDS, **compile_targets.TPUS}
XLA_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


def parse_arguments(arguments=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--preset", required=True, help="built-in preset, or a preset or run folder")
    add(
        "--device",
        required=True,
        help=f"one of {', '.join(KNOWN)}, or an amount of memory such as '24 GiB'",
    )
    add("--devices", type=int, default=1, help="how many of them")
    add(
        "--batch",
        nargs="+",
        help="samples a step on all devices, one number or one for each stage "
        "(default: the recipes')",
    )
    add("--share", type=float, default=0.3, help="of the peak reached")
    add("--fill", type=float, default=0.9, help="of the memory used")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the recipes, such as stage.freeze_inner=true",
    )
    add(
        "--compile",
        action="store_true",
        help="ask a compiler about each stage's choice: minutes each",
    )
    return parser.parse_args(arguments)


def find_device(name):
    """A device by its name.

    Returns:
        A pair: gibibytes of memory, and the peak in teraflops or `None`.

    Raises:
        ValueError: if it is unknown.
    """
    if name in KNOWN:
        return KNOWN[name].gibibytes, KNOWN[name].teraflops
    amount = re.fullmatch(r"(\d+(?:\.\d+)?) *GiB", name)
    if amount is None or not float(amount[1]):
        raise ValueError(
            f"--device must be one of {', '.join(KNOWN)}, or an amount of memory such "
            f"as '24 GiB'. Received: {name!r}"
        )
    return float(amount[1]), None


def check_numbers(args):
    """Raises a `ValueError` for a number that is out of range."""
    if args.devices < 1:
        raise ValueError(f"--devices must be at least 1. Received: {args.devices}")
    for name in ("share", "fill"):
        if not 0 < (value := getattr(args, name)) <= 1:
            raise ValueError(
                f"--{name} must be above 0 and at most 1. Received: {value}"
            )


def choose_compiler(device):
    """The compiler that `--compile` asks: of a TPU, an H100, or `"cpu"`."""
    if device in compile_targets.TPUS:
        return device if importlib.util.find_spec("libtpu") else "cpu"
    plugins = ("jax_cuda13_plugin", "jax_cuda12_plugin")
    found = any(importlib.util.find_spec(name) for name in plugins)
    return compile_targets.H100 if found else "cpu"


def make_run(args):
    """The model and the stages that the recipes would train.

    Returns:
        A pair: `MDM`, `weightless`, and a list of `Stage`.
    """
    from keras_mdm_recipes import (
        command_line,
        stages,
        train_image,
        train_text_to_image,
        train_video,
        training,
    )
    from plan_stage import weightless

    import keras_mdm
    from keras_mdm.conditioning import TextConditioner
    from keras_mdm.levels import read_level

    with tempfile.TemporaryDirectory() as output:
        flags = ["--output", output, "--preset", args.preset]
        flags += ["--batch-size", *args.batch] if args.batch else []
        flags += ["--set", *args.set] if args.set else []
        # Its settings are those of all recipes that matter here.
        settings, _ = command_line.parse(train_video, flags)
    settings.fill({"model.dtype": "mixed_bfloat16"})
    with weightless():
        mdm = keras_mdm.MDM.from_preset(
            args.preset, load_weights=False, **training.model_options(settings)
        )
    recipe = train_image
    if read_level(mdm.network.level)[0] > 1:
        recipe = train_video
    elif isinstance(mdm.network.conditioner, TextConditioner):
        recipe = train_text_to_image
    plan = stages.make_stages(settings, mdm, stages.fill_defaults(recipe, settings))
    keras_mdm.ProgressiveSchedule(plan).check(mdm)
    return mdm, plan


def plan_stages(args):
    """Prints the plan, a stage at a time."""
    check_numbers(args)
    gibibytes, teraflops = find_device(args.device)
    compiler = choose_compiler(args.device) if args.compile else None
    is_tpu = args.device in compile_targets.TPUS
    pretended = compiler or (args.device if is_tpu else compile_targets.H100)
    on_target = pretended != "cpu"
    if compiler == compile_targets.H100:
        os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
    compile_targets.prepare_process(pretended, on_target and args.compile)
    if on_target:
        compile_targets.pretend(pretended)
    # Keras is imported from here on, for the process that is set up.
    from plan_report import StageReport, heading
    from plan_stage import StageOnDevices

    mdm, plan = make_run(args)
    limit = gibibytes * 2**30 * args.fill
    parts = [StageOnDevices(mdm, stage, args.devices) for stage in plan]
    print(heading(args, mdm, len(plan), gibibytes, teraflops), flush=True)
    for number, part in enumerate(parts, 1):
        tried = list(part.tried(limit))
        StageReport(part, tried, limit).print_all(number, args, teraflops, compiler)


def main(arguments=None):
    args = parse_arguments(arguments)
    with errors_as_lines():
        plan_stages(args)


if __name__ == "__main__":
    sys.exit(main())
