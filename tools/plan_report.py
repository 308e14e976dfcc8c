"""How `plan.py` says what a stage needs."""

import math

import plan_compile

# A step's FLOPs, bytes and pictures, in what people count them.
_GIB, _GIGA, _TERA, _HOUR = 2**30, 1e9, 1e12, 3600


def heading(args, mdm, stages, gibibytes, teraflops):
    """The line above the stages."""
    peak = f", {teraflops:g} TFLOP/s in bfloat16" if teraflops else ""
    return (
        f"{args.preset}: {mdm.network.count_params() / 1e6:,.1f} M parameters, "
        f"{mdm.network.dtype_policy.name}, {stages} "
        f"stage{'s' * (stages > 1)} on {args.devices} x {args.device} "
        f"({gibibytes:g} GiB{peak})\n"
        "Memory in GiB on each device, from the trace of the step without a compiler."
    )


class StageReport:
    """Prints one stage.

    Args:
        part: `StageOnDevices`.
        tried: List of pairs of `Setting` and `Need`, the last the chosen one.
        limit: Bytes that a device has for it.
    """

    def __init__(self, part, tried, limit):
        self.part, self.tried, self.limit = part, tried, limit
        self.setting, self.chosen = tried[-1]

    def print_all(self, number, args, teraflops, compiler):
        """Prints what the stage needs.

        Raises:
            ValueError: if no setting fits.
        """
        stage, part = self.part.stage, self.part
        print(
            f"\nStage {number}: {stage.resolution}, {stage.steps:,} steps of "
            f"{stage.batch_size:,}, {part.pictures} on each device"
        )
        self.print_levels()
        self.print_memory()
        self.check()
        self.print_choice()
        milliseconds = None
        if compiler is not None:
            milliseconds = self.print_compiled(compiler, args.device)
        self.print_time(args, teraflops, milliseconds)

    def print_levels(self):
        """Parameters and FLOPs of each level."""
        flops = self.part.flops()
        total = sum(flops.values())
        print("  level      parameters   FLOPs a sample, forward")
        for network in self.part.network.networks:
            count = sum(math.prod(v.shape) for v in network.own_variables) / 1e6
            share, level = flops[network.level] / total, network.level
            state = "" if level in self.part.trained else "   frozen"
            print(
                f"  {level!s:<10} {count:8,.1f} M   "
                f"{flops[level] / _GIGA:9,.1f} G {share:5.0%}{state}"
            )

    def print_memory(self):
        """Each setting that was tried."""
        print(
            "  weights averages optimizer activations temporary =  total of "
            f"{self.limit / _GIB:.1f}"
        )
        for setting, need in self.tried:
            fits = "fits" if need.total <= self.limit else "too much"
            values = (need.weights, need.averages, need.optimizer)
            values += (need.activations, need.temporary, need.total)
            columns = "{:9.2f}{:9.2f}{:10.2f}{:12.2f}{:10.2f}   {:6.2f}".format(
                *(value / _GIB for value in values)
            )
            print(f"{columns} {fits:>8}: {setting}")

    def check(self):
        """Raises a `ValueError` if no setting fits."""
        if self.chosen.total <= self.limit:
            return
        setting, need = min(self.tried, key=lambda pair: pair[1].total)
        raise ValueError(
            f"stage {self.part.stage.resolution} fits no setting: closest is {setting} "
            f"with {need.total / _GIB:.2f} of {self.limit / _GIB:.2f} GiB. A smaller "
            "--batch, more --devices or a larger device would."
        )

    def print_choice(self):
        """What to ask of the recipe."""
        stage, setting = self.part.stage, self.setting
        size = stage.batch_size // setting.accumulate
        lines = []
        if setting.accumulate > 1:
            lines.append(
                f"stage.batch_size={size} "
                f"stage.accumulate={stage.accumulate * setting.accumulate} "
                f"stage.steps={stage.steps * setting.accumulate}"
            )
        if setting.remat != self.part.asked:
            lines.append(f"model.remat={','.join(map(str, setting.remat))}")
        if self.part.devices > 1:
            lines.append("--fsdp" if setting.fsdp else "--data-parallel")
        print(f"  with     {' '.join(lines) or 'nothing but the defaults'}")

    def print_compiled(self, compiler, device):
        """What a compiler plans for the chosen setting.

        Returns:
            Milliseconds that it expects a step to take, or `None`.
        """
        size = self.part.prepare(self.setting)
        found = plan_compile.ask(self.part, size, compiler)
        whose = "the CPU" if compiler == "cpu" else compiler
        other = "" if compiler == device else f", in place of that of {device}"
        print(
            f"  compiled by the compiler of {whose}{other}: "
            f"{found['temporary_gib']:.2f} GiB beside the state"
        )
        milliseconds = found.get("estimated_ms")
        if milliseconds is not None:
            milliseconds *= self.setting.accumulate
            print(
                f"  it expects {milliseconds:,.1f} ms a step, "
                f"{found['share_of_peak']:.0%} of the peak, without fused attention"
            )
        return milliseconds

    def print_time(self, args, teraflops, milliseconds):
        """Time, and the data that it takes."""
        stage, part = self.part.stage, self.part
        flops = part.step_flops(self.setting)
        total = flops * stage.steps
        print(
            f"  work     {flops / _TERA:,.2f} TFLOP a step, "
            f"{total / 1e18:,.2f} EFLOP in all"
        )
        if teraflops is None:
            print("  time     not known: give a device by its name for its peak")
            return
        seconds = flops / (args.devices * teraflops * _TERA * args.share)
        basis = f"at {args.share:.0%} of the peak"
        if milliseconds is not None:
            seconds = milliseconds / 1e3
            basis = "as the compiler expects"
        rate = stage.batch_size / seconds
        print(
            f"  time     {seconds * stage.steps / _HOUR:,.1f} hours {basis}: "
            f"{seconds * 1e3:,.1f} ms a step\n"
            f"  data     {rate:,.0f} samples/s, "
            f"{rate * part.sample_bytes() / 1e6:,.1f} MB/s as arrays"
        )
