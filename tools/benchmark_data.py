"""Measures how fast data sets are read, decoded and prepared, without any model.

    python tools/benchmark_data.py --dataset folder:pictures webdataset:cc12m
    python tools/benchmark_data.py --dataset clips:videos --num-frames 16

For each data set and number of worker processes a table says, of the batches that
`make_dataset` delivers: seconds until all workers have started, then images (or clips)
a second, and 10^6 bytes of pixels a second. Compare it with the images a second that
training reports: as long as these are fewer, steps do not wait for data. Squares are
cut at random places, so that nothing prepared is kept in memory. What the system still
has in its memory of files that were just read is faster than a disk: give data sets
that are larger than that memory.
"""

import time

from shared import choose_backend, errors_as_lines, make_parser

COLUMNS = "{:<32}{:>8}{:>10}{:>12}{:>10}{:>10}"


def parse_arguments(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--dataset",
        nargs="+",
        required=True,
        help="sources, as keras_mdm.data.open_source takes them",
    )
    add("--split", default="train", help="of each")
    add("--data-dir", help="where TFDS keeps its sets")
    add("--resolution", type=int, default=64, help="side in pixels")
    add("--batch-size", type=int, default=32, help="pictures in each batch")
    add("--num-frames", type=int, help="frames of each clip")
    add(
        "--num-workers",
        type=int,
        nargs="+",
        default=[0, 1, 2, 4],
        help="worker processes, one measurement each; 0: threads of this process; "
        "default: 0 1 2 4",
    )
    add(
        "--seconds",
        type=float,
        default=10.0,
        help="of each measurement, after the workers have started",
    )
    add("--upscale", action="store_true", help="enlarge small pictures, not skip them")
    arguments = parser.parse_args(argv)
    if not arguments.seconds > 0:
        parser.error(f"--seconds must be above 0. Received: {arguments.seconds}")
    return arguments


def measure(batches, seconds, warm_up=1, update=lambda count: None):
    """Reads batches for a while.

    Args:
        batches: Iterator of dicts of arrays, without end.
        seconds: float. How long, after the warm-up.
        warm_up: int. Batches before.
        update: Callable of the number of pictures of each batch, as it comes.

    Returns:
        Tuple: seconds of the warm-up, pictures a second and bytes a second.
    """
    begin = time.perf_counter()
    for _ in range(warm_up):
        next(batches)
    start = last = time.perf_counter()
    count = size = 0
    while last - start < seconds:
        batch = next(batches)
        last = time.perf_counter()
        pixels = batch["videos"] if "videos" in batch else batch["images"]
        count, size = count + len(pixels), size + pixels.nbytes
        update(len(pixels))
    return start - begin, count / (last - start), size / (last - start)


def run(arguments):
    from tqdm import tqdm

    from keras_mdm import data

    # All of them first: a mistake in the last should not be told after minutes.
    sources = [
        data.open_source(
            name, arguments.split, arguments.data_dir, num_frames=arguments.num_frames
        )
        for name in arguments.dataset
    ]

    def make_dataset(source, workers):
        return data.make_dataset(
            source,
            arguments.resolution,
            arguments.batch_size,
            crop="random",
            upscale=arguments.upscale,
            repeat=True,
            num_workers=workers,
        )

    datasets = [
        (source, workers, make_dataset(source, workers))
        for source in sources
        for workers in arguments.num_workers
    ]
    print(
        COLUMNS.format("data set", "workers", "start s", "images/s", "MB/s", "skipped")
    )
    for source, workers, dataset in datasets:
        batches = iter(dataset)
        title = f"{source.name}, {workers} workers"
        with tqdm(desc=title, unit=f" {source.noun}", leave=False) as bar:
            # Each worker has started when its first batch is there.
            first, rate, size = measure(
                batches, arguments.seconds, 1 + workers, bar.update
            )
        batches.close()
        numbers = f"{first:.1f}", f"{rate:.1f}", f"{size / 1e6:.1f}"
        row = (source.name[-31:], workers, *numbers, len(source.skipped))
        print(COLUMNS.format(*row), flush=True)
    for source in sources:
        if source.skipped or source.notes:
            print(source.report())


def main(argv=None):
    arguments = parse_arguments(argv)
    choose_backend(None)
    with errors_as_lines():
        run(arguments)


if __name__ == "__main__":
    main()
