"""Asks a compiler about a stage of `plan.py`: the device's own, or the CPU's."""

import compile_for
import compile_targets
import jax
import train_memory


def ask(part, size, compiler):
    """What a compiler plans for the training step of a prepared stage.

    Args:
        part: `plan_stage.StageOnDevices`, prepared for a setting.
        size: int. Samples on a device.
        compiler: str. A device that `compile_for.py` knows, or `"cpu"`.

    Returns:
        dict, as `compile_for.describe`: `temporary_gib`, for TPUs `estimated_ms` and
        `share_of_peak` as well.
    """
    if compiler == "cpu":
        found = train_memory.measure(part.mdm, size)
        return {"temporary_gib": found["temporary"] / 2**30}
    args = compile_for.parse_arguments(
        ["--device", compiler, "--preset", "of the plan"]
    )
    devices = compile_targets.find_devices(compiler, 1)
    step, *shapes = train_memory.abstract_step(part.mdm, size)
    placed = jax.tree.map(
        lambda shape: compile_for.placed(shape, devices, args, False), shapes
    )
    lowered = jax.jit(step, donate_argnums=0).trace(*placed).lower()
    return compile_for.describe(lowered.compile(), args)
