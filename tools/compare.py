"""Compares ways to train at CPU size: nests with others, regimes, losses, schedules.

    python tools/compare.py --output runs/compare --sets digits
    python tools/compare.py --output runs/compare --sets emoji=folder:pictures/emoji
    python tools/compare.py --report runs/compare

The first two train the lines of `compare_matrix.py`, each with some seeds, on sets that
have classes, and write CSV files and a report with plots into the folder. What is
finished there is skipped and what was interrupted goes on, so the same command may be
given again. The third writes the report anew, also of a folder that has the CSV files
alone, such as `docs/evidence`.

All lines of a set have the same parameters and FLOPs of a forward pass to within 6%,
and get the same training FLOPs, as `keras_mdm.networks.cost` counts them.
"""

import pathlib
import sys

import compare_matrix
from shared import choose_backend, errors_as_lines, make_parser


def parse_arguments(arguments=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--output", type=pathlib.Path, help="folder of runs, CSV files and report")
    add("--report", type=pathlib.Path, help="folder whose report is written anew")
    add(
        "--sets",
        nargs="+",
        default=["digits"],
        metavar="SET",
        help="digits, shapes, or NAME=SOURCE, such as emoji=folder:PATH, of pictures "
        "with classes (default: digits)",
    )
    add("--lines", nargs="+", help="lines of the matrix to run (default: all)")
    add("--matrix", type=pathlib.Path, help="JSON file with lines of your own")
    add("--seeds", type=int, default=3, help="runs of each line")
    add("--resolution", type=int, default=32, help="in pixels")
    add("--steps", type=int, default=600, help="of the reference")
    add("--batch-size", type=int, default=16, help="pictures a step")
    add("--backend", choices=("jax", "tensorflow"), help="Keras' backend")
    args = parser.parse_args(arguments)
    if (args.output is None) == (args.report is None):
        parser.error("one of --output and --report is needed")
    for name in ("seeds", "steps", "batch_size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if args.resolution < 16 or args.resolution % 8:
        parser.error("--resolution must be a multiple of 8 from 16")
    return args


def read_sets(names):
    """dict of the sets' names to those of their sources."""
    sets = {}
    for name in names:
        own, _, source = name.partition("=")
        if own in sets or "/" in own:
            raise ValueError(
                "names of --sets must differ and have no '/': write NAME=SOURCE. "
                f"Received: {name!r}"
            )
        sets[own] = source or own
    return sets


def run(args):
    """Trains what is not finished yet."""
    lines = compare_matrix.read_matrix(args.matrix, args.lines)
    sets = read_sets(args.sets)
    choose_backend(args.backend)

    import compare_arms
    import compare_files
    import compare_quality
    import compare_run

    read, examiners, tasks = {}, {}, {}
    for name, source in sets.items():
        read[name] = pictures = compare_quality.read_set(source, args.resolution)
        tasks[name] = compare_arms.Task(
            args.resolution,
            pictures.train.shape[-1],
            pictures.num_classes,
            args.steps,
            args.batch_size,
        )
        for line in lines:
            compare_arms.check_size(line, tasks[name])
    compare_files.check_settings(args.output, sets, tasks, lines)
    todo = [
        (name, line, seed)
        for name in sets
        for line in lines
        for seed in range(args.seeds)
    ]
    for number, (name, line, seed) in enumerate(todo, 1):
        folder = args.output / "runs" / compare_run.run_name(name, line, seed)
        if (folder / "rows.json").exists():
            continue
        print(f"{number} of {len(todo)}: {folder.name}", flush=True)
        if name not in examiners:
            examiners[name] = compare_quality.Examiner(read[name])
            compare_files.write_bounds(args.output, name, examiners[name].bounds())
        compare_run.train(
            folder, name, line, tasks[name], read[name], examiners[name], seed
        )
        compare_files.collect(args.output)

    import compare_report

    compare_report.write(args.output)


def main(arguments=None):
    args = parse_arguments(arguments)
    with errors_as_lines():
        if args.report is None:
            run(args)
        else:
            import compare_report

            compare_report.write(args.report)


if __name__ == "__main__":
    sys.exit(main())
