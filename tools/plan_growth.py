"""How FLOPs and memory of a nest grow with its resolution: a table and a plot.

    python tools/plan_growth.py --preset mdm_s1024 --largest 4096 --output docs/growth

writes `docs/growth.md` and `docs/growth.png`. Levels that the preset lacks are its
outermost network once more around the largest one. Memory is that of a training step of
one sample, as `plan.py` reads it off the trace; nothing is compiled or computed.
"""

import math
import pathlib

import compile_targets
from shared import agg_pyplot, errors_as_lines, make_parser

_HEAD = """# How a nest grows

| resolution | parameters | of this level | GFLOP a forward pass | of this level |\
 training memory of one sample | the same, `remat` | weights, average, optimizer |
|---|---|---|---|---|---|---|---|
"""


def parse_arguments(arguments=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--preset", default="mdm_s1024", help="built-in preset")
    add("--largest", type=int, default=4096, help="in pixels")
    add("--output", default="docs/growth", help="path of both files, without ending")
    return parser.parse_args(arguments)


def enlarged(mdm, largest):
    """The model with its outermost network around it until it has a resolution.

    Raises:
        ValueError: if no number of networks has it.
    """
    import keras_mdm
    from keras_mdm.backend import serialize

    network = mdm.network
    if not isinstance(network, keras_mdm.NestedUNet):
        raise ValueError(f"--preset must be a nest. Received: one of {network.levels}")
    options = network.get_config()
    options = {k: v for k, v in options.items() if k not in ("inner", "name")}
    while network.resolution < largest:
        network = keras_mdm.NestedUNet(network, **options)
    if network.resolution != largest:
        raise ValueError(
            f"--largest must be one of the resolutions that the networks of the preset "
            f"lead to, such as {network.resolution}. Received: {largest}"
        )
    return keras_mdm.MDM.from_config(
        {**mdm.get_config(), "network": serialize(network)}
    )


def measure(preset, largest):
    """One dict for each resolution, smallest first."""
    from plan_stage import Setting, StageOnDevices, weightless

    import keras_mdm

    rows = []
    with weightless():
        mdm = keras_mdm.MDM.from_preset(
            preset, load_weights=False, dtype="mixed_bfloat16"
        )
        mdm = enlarged(mdm, largest)
    for network in mdm.network.networks[::-1]:
        stage = keras_mdm.Stage(network.level, steps=1, batch_size=1)
        part = StageOnDevices(mdm, stage, 1)
        flops = part.flops()
        plain = part.need(Setting())
        again = part.need(Setting(remat=network.levels))
        own = sum(math.prod(v.shape) for v in network.own_variables)
        rows.append(
            {
                "resolution": network.level,
                "parameters": network.count_params(),
                "own_parameters": own,
                "flops": sum(flops.values()),
                "own_flops": flops[network.level],
                "memory": plain.activations + plain.temporary,
                "remat": again.activations + again.temporary,
                "state": plain.weights + plain.averages + plain.optimizer,
            }
        )
    return rows


def table(rows):
    """Lines of Markdown."""
    return "".join(
        f"| {row['resolution']} | {row['parameters'] / 1e6:.1f} M "
        f"| {row['own_parameters'] / 1e6:.1f} M | {row['flops'] / 1e9:,.0f} "
        f"| {row['own_flops'] / 1e9:,.0f} | {row['memory'] / 2**30:.2f} GiB "
        f"| {row['remat'] / 2**30:.2f} GiB | {row['state'] / 2**30:.2f} GiB |\n"
        for row in rows
    )


def plot(rows, path):
    """Draws both against the resolution, relative to the smallest."""
    figure, axes = agg_pyplot().subplots(figsize=(7, 4), layout="constrained")
    sizes = [row["resolution"] for row in rows]
    curves = {
        "pixels": [(size / sizes[0]) ** 2 for size in sizes],
        "FLOPs": [row["flops"] / rows[0]["flops"] for row in rows],
        "memory of a sample": [row["memory"] / rows[0]["memory"] for row in rows],
        "the same, remat": [row["remat"] / rows[0]["memory"] for row in rows],
        "parameters": [row["parameters"] / rows[0]["parameters"] for row in rows],
    }
    for label, values in curves.items():
        style = ":" if label == "pixels" else "o-"
        axes.loglog(sizes, values, style, label=label)
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("resolution in pixels")
    axes.set_ylabel(f"times that of {sizes[0]} pixels")
    axes.legend()
    figure.savefig(path, dpi=110)


def main(arguments=None):
    args = parse_arguments(arguments)
    compile_targets.prepare_process(compile_targets.H100, False)
    compile_targets.pretend(compile_targets.H100)
    from keras_mdm.files import whole_file, write_text

    with errors_as_lines():
        rows = measure(args.preset, args.largest)
        output = pathlib.Path(args.output)
        with whole_file(output.with_suffix(".png")) as temporary:
            plot(rows, temporary)
        text = (
            f"{_HEAD}{table(rows)}\n"
            f"`{args.preset}` in `mixed_bfloat16`, its outermost network once more "
            "around what it lacks. Made by\n\n"
            f"    python tools/plan_growth.py --preset {args.preset} "
            f"--largest {args.largest} --output {args.output}\n\n"
            "from traces of the training step, as `tools/plan.py` reads memory off "
            "them: no device was asked, nor a compiler.\n\n"
            f"![Growth against resolution]({output.name}.png)\n"
        )
        write_text(output.with_suffix(".md"), text)
        print(text)


if __name__ == "__main__":
    main()
