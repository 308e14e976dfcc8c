"""Encodes the captions of a data set once, so that training need not load the encoder.

    python tools/encode_captions.py --dataset webdataset:cc12m --output cc12m_t5 \\
        --encoder flan-t5-xl
    python recipes/train_text_to_image.py --output runs/cc12m --preset mdm_s64_text \\
        --dataset webdataset:cc12m --set data.embeddings=cc12m_t5

`--encoder` is a local folder of a Hugging Face T5 model. Captions are encoded in
shards; a shard is there whole or not at all, so a run that was stopped goes on with the
same command. Captions that several pictures share are encoded once in a shard.

With `--runner beam` shards are elements of an Apache Beam pipeline (`pip install
apache-beam`); what follows `--` are its options, for example

    python tools/encode_captions.py ... --runner beam -- --runner=FlinkRunner \\
        --flink_master=HOST:8081 --parallelism=64

Data set and output must then be on a file system that every worker sees.

CC12M is a list of addresses and captions (`cc12m.tsv`, from
https://github.com/google-research-datasets/conceptual-12m). img2dataset
(`pip install img2dataset`) fetches the pictures into the tar shards that
`webdataset:cc12m` reads, with the original sizes in their `.json`:

    sed -i '1s/^/url\\tcaption\\n/' cc12m.tsv
    img2dataset --url_list cc12m.tsv --input_format tsv --url_col url \\
        --caption_col caption --output_format webdataset --output_folder cc12m \\
        --image_size 1024 --resize_mode keep_ratio --resize_only_if_bigger True \\
        --processes_count 16 --thread_count 64 --number_sample_per_shard 10000 \\
        --enable_wandb False

It goes on where it was stopped (`--incremental_mode incremental`, its default), and is
distributed over machines with `--distributor pyspark` or `--distributor ray`, writing
to a shared `--output_folder` (a local one or any fsspec address, such as s3://...).
"""

import dataclasses
import pathlib
import time

from shared import LIMITS_HELP, errors_as_lines, limits, make_parser, open_data

from keras_mdm.data.embeddings import (
    EmbeddingShards,
    write_about,
    write_shard,
    written_shards,
)
from keras_mdm.text_files import printable


@dataclasses.dataclass(frozen=True)
class Job:
    """What every worker needs to encode a shard; it travels to other machines.

    Attributes:
        dataset, split, data_dir: Arguments of `keras_mdm.data.open_source`.
        limits: dict of those of `keras_mdm.data.Limits` that are no defaults.
        output: str. Folder of the shards.
        encoder: Callable without arguments that loads the encoder, or str: folder of a
            Hugging Face T5 model.
        shard_size: int. Pictures whose captions are in a shard.
        batch_size: int. Captions encoded at once.
        dtype: str. Dtype of a T5 model.
    """

    dataset: str
    output: str
    encoder: object
    split: str = "train"
    data_dir: str | None = None
    limits: dict | None = None
    shard_size: int = 10_000
    batch_size: int = 32
    dtype: str = "float32"

    def open_source(self):
        settings = {"data_dir": self.data_dir, "limits": self.limits}
        source = open_data(settings, self.split, self.dataset)
        source.require_captions(f"dataset={self.dataset!r}")
        return source

    def load_encoder(self):
        if callable(self.encoder):
            return self.encoder()
        from keras_mdm.conditioning.t5 import T5Encoder

        return T5Encoder.from_hugging_face(self.encoder, dtype=self.dtype)

    @property
    def encoder_name(self):
        if callable(self.encoder):
            return self.encoder.__name__
        return pathlib.Path(self.encoder).name


def read_captions(source, indices):
    """Distinct captions of some items; items that can't be read have none."""
    captions = {}
    for index in indices:
        try:
            item = source[index]
        except ValueError:  # Damaged: counted by the source.
            continue
        texts = item.get("captions") or (item["caption"],)
        captions.update(dict.fromkeys(text for text in texts if text.strip()))
    return list(captions)


def encode_shard(job, source, encoder, number):
    """Encodes and writes one shard.

    Returns:
        int, the number of captions in it.
    """
    start = number * job.shard_size
    indices = range(start, min(start + job.shard_size, len(source)))
    captions = read_captions(source, indices)
    # Texts of like length side by side: less padding to compute.
    captions.sort(key=len)
    embeddings, masks = [], []
    for begin in range(0, len(captions), job.batch_size):
        rows, mask = encoder.encode(captions[begin : begin + job.batch_size])
        embeddings.extend(rows)
        masks.extend(mask)
    write_shard(job.output, number, captions, embeddings, masks)
    return len(captions)


def missing_shards(job, source):
    """Numbers of the shards that are still to be written."""
    count = -(-len(source) // job.shard_size)
    return sorted(set(range(count)) - set(written_shards(job.output)))


def encode_here(job):
    """Encodes the missing shards in this process, with progress."""
    source = job.open_source()
    missing = missing_shards(job, source)
    if not missing:
        return source
    encoder = job.load_encoder()
    write_about(job.output, job.encoder_name, encoder.size, encoder.max_tokens)
    start, total = time.perf_counter(), 0
    for done, number in enumerate(missing, 1):
        total += encode_shard(job, source, encoder, number)
        seconds = time.perf_counter() - start
        left = seconds / done * (len(missing) - done)
        print(
            f"shard {done}/{len(missing)}: {total} captions, "
            f"{total / seconds:.1f} captions/s, {left / 60:.0f} min left",
            flush=True,
        )
    return source


def encode_with_beam(job, options):
    """Encodes the missing shards as an Apache Beam pipeline with such flags."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    class EncodeShards(beam.DoFn):
        """Loads source and encoder once in a worker."""

        def setup(self):
            self.source = job.open_source()
            self.encoder = job.load_encoder()
            size, max_tokens = self.encoder.size, self.encoder.max_tokens
            write_about(job.output, job.encoder_name, size, max_tokens)

        def process(self, number):
            yield encode_shard(job, self.source, self.encoder, number)

    source = job.open_source()
    missing = missing_shards(job, source)
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        (
            pipeline
            | beam.Create(missing)
            | beam.Reshuffle()
            | beam.ParDo(EncodeShards())
        )
    return source


def parse_arguments(arguments=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--dataset", required=True, help="as in train_text_to_image.py")
    add("--output", required=True, help="folder of embeddings; gone on with if there")
    add("--encoder", required=True, help="folder of a Hugging Face T5 model")
    add("--split", default="train", help="split of the data set")
    add("--data-dir", help="where TFDS keeps its sets")
    add("--limits", type=limits, help=LIMITS_HELP)
    add("--shard-size", type=int, default=10_000, help="pictures in a shard")
    add("--batch-size", type=int, default=32, help="captions encoded at once")
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the encoder",
    )
    add("--runner", choices=("local", "beam"), default="local", help="what runs it")
    add("beam_options", nargs="*", metavar="-- BEAM_OPTION", help="for --runner beam")
    return parser.parse_args(arguments)


def main(arguments=None):
    args = vars(parse_arguments(arguments))
    runner, options = args.pop("runner"), args.pop("beam_options")
    with errors_as_lines():
        job = Job(**args)
        if job.shard_size < 1 or job.batch_size < 1:
            raise ValueError("--shard-size and --batch-size must be at least 1.")
        if runner == "beam":
            source = encode_with_beam(job, options)
        else:
            source = encode_here(job)
        found = EmbeddingShards(job.output)
        print(source.report())
        print(f"{len(found)} captions of size {found.size} in {printable(job.output)}")


if __name__ == "__main__":
    main()
