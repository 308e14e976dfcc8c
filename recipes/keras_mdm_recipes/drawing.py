"""How `sample` and `evaluate` draw: the flags, the model and the call they share."""

import pathlib
import time

from keras_mdm_recipes import averages, devices, start


def add_flags(parser, sweep=False):
    """Adds the flags of the sampler, the average, the backend and the devices."""
    add = parser.add_argument
    add("--sampler", help="such as ddim or dpm_solver (default: the model's)")
    add("--num-steps", type=int, help="sampler steps (default: the model's)")
    add("--guidance-scale", type=float, help="1 is none (default: the model's)")
    averages.add_flag(parser, sweep)
    add(
        "--backend",
        choices=start.BACKENDS,
        help="Keras backend (default: that of KERAS_BACKEND, or else the first "
        "installed of jax, tensorflow, torch)",
    )
    add("--dtype", help=f"dtype policy {start.DTYPE_HELP}")
    add("--data-parallel", action="store_true", help="draw on all devices (JAX)")


def load_model(args, run):
    """The model of a run or preset, on the devices asked for.

    The average is taken later, by `averages.take`: once all arguments are known to fit.
    Chooses the backend, so Keras must not be imported before.
    """
    averages.check(args, run)
    if (pathlib.Path(run) / "state").is_dir() and not start.read_run(run):
        raise ValueError(
            f"the run in '{run}' has not ended, and has its model at its end: wait, or "
            "go on with it by --resume."
        )
    start.choose_backend(args.backend)
    devices.prepare(args.data_parallel)

    import keras_mdm

    return keras_mdm.MDM.from_preset(run, dtype=args.dtype or start.default_dtype())


def draw(args, mdm, *prompts, **options):
    """Draws as the flags say, and as further arguments of `MDM.generate` do.

    Returns:
        A pair: what `MDM.generate` returns, and the seconds that it took.
    """
    names = ("seed", "batch_size", "sampler", "num_steps", "guidance_scale")
    flags = {name: getattr(args, name) for name in names}
    began = time.perf_counter()
    drawn = mdm.generate(*prompts, **{**flags, **options})
    return drawn, time.perf_counter() - began
