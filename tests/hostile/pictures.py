"""Forged pictures, captions and clips."""

import functools
import io
import json
import os
import struct
import zlib

from hostile.forge import (
    case,
    chunk,
    picture_source,
    png,
    read_all,
    sparse,
    write,
)


def read_folder(folder):
    return read_all(f"folder:{folder}")


def picture(data, name="odd.png"):
    """Makes a folder with two good pictures and an odd file."""

    def make(folder, outside):
        picture_source(folder)
        found = data(folder / name, outside) if callable(data) else data
        if isinstance(found, bytes):
            write(folder / name, found)

    return make


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\nshowpage\n"
)
GIF = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0"
FRAME = b"," + struct.pack("<HHHH", 0, 0, 65535, 65535) + b"\0\x02\x02D\x01\0;"


def bmp(width, height, bits=24, compression=0, data=b""):
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0
    )
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def tiff(width, height, entries=(), count=1):
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, count, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, count, 64),
        *entries,
    ]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + b"\0" * 4


def many_scans(path, outside):
    """A progressive JPEG of 150 KB that goes over its pixels two thousand times."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (4000, 4000), 99).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * 2000 + b"\xff\xd9"


def jpeg2000(path, outside):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGBA", (11_000, 11_000)).save(file, "JPEG2000")
    return file.getvalue()


LARGE = bytes(13300 * 2)
PICTURES = {
    "postscript.jpg": POSTSCRIPT,
    "postscript.png": POSTSCRIPT,
    "postscript.tif": b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, 99) + POSTSCRIPT,
    "dds.png": b"DDS " + struct.pack("<I", 124) + b"\xff" * 124,
    "flat.png": png(100_000_000, 1, b""),
    "wide.png": png(2**31 - 1, 2**31 - 1, b""),
    "zero.png": png(0, 0, b""),
    "gray16.png": png(13300, 13300, LARGE, depth=16),
    "short.png": png(8000, 8000, b""),
    "text.png": png(
        8, 8, b"", extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**27)))
    ),
    "profile.png": png(
        8, 8, b"", extra=chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**27)))
    ),
    "long-chunk.png": png(8, 8, b"", extra=b"\x7f\xff\xff\xfftEXt"),
    "canvas.gif": GIF + FRAME,
    "endless.gif": GIF + b"!\xff\x0b" + b"x" * 11 + b"\xff" * 1000,
    "huge.bmp": bmp(2**30, 2**30),
    "negative.bmp": bmp(-8, 8),
    "packed.bmp": bmp(30_000, 30_000, 8, 1, b"\0\1"),
    "bits.bmp": bmp(8, 8, 999),
    "huge.tif": tiff(2**31, 2**31),
    "strips.tif": tiff(8, 8, count=2**31),
    "digits.ppm": b"P6 " + b"9" * 5000 + b" 1 255\n",
    "huge.ppm": b"P6 1000000000 1000000000 255\n",
    "float.pfm": b"Pf\n8 8\nnan\n" + b"\0" * 256,
    "huge.qoi": b"qoif" + struct.pack(">II", 2**31, 2**31) + b"\4\0",
    "huge.sgi": b"\x01\xda\x01\x01\0\x03" + struct.pack(">HHH", 65535, 65535, 65535),
    "huge.pcx": b"\x0a\x05\x01\x08"
    + struct.pack("<HHHH", 0, 0, 65535, 65535)
    + b"\0" * 116,
    "huge.tga": b"\0\0\x0a" + b"\0" * 9 + struct.pack("<HH", 65535, 65535) + b"\x20\0",
    "huge.ico": b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0"
    + struct.pack("<II", 10**6, 22)
    + png(60_000, 60_000, b""),
    "huge.webp": b"RIFF"
    + struct.pack("<I", 100)
    + b"WEBPVP8X"
    + struct.pack("<I", 10)
    + b"\x02\0\0\0"
    + b"\xfe\x3f\0" * 2
    + b"\0" * 40,
    "huge.jp2": b"\xff\x4f\xff\x51"
    + struct.pack(">HH", 41, 0)
    + struct.pack(">8I", 2**31, 2**31, 0, 0, 1, 1, 0, 0)
    + b"\0\1\7\1\1",
    "huge.jpg": b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0\xff\xd9",
    "scans.jpg": many_scans,
    "large.jp2": jpeg2000,
    "exif.jpg": b"\xff\xd8\xff\xe1\xff\xff" + b"Exif\0\0" + b"II*\0" + b"\xff" * 100,
    "cut.avif": b"\0\0\0\x20ftypavif" + b"\xff" * 64,
    "zip.png": b"PK\3\4" + b"\0" * 30,
    "text.jpg": b"<svg xmlns='x'><image href='file:///etc/passwd'/></svg>",
    "empty.png": b"",
    "fifo.png": lambda path, outside: os.mkfifo(path),
    "sparse.png": lambda path, outside: sparse(path, 10**11),
    "sparse.tif": lambda path, outside: sparse(path, 10**11, tiff(10**5, 10**5)),
    "loop.png": lambda path, outside: path.symlink_to(path),
    "null.png": lambda path, outside: path.symlink_to("/dev/zero"),
}
for _name, _data in PICTURES.items():
    case("picture", _name, picture(_data, _name), read_folder)


# Captions.
def captions(files):
    """Makes a folder with pictures and files of captions; `{outside}` is filled in."""

    def make(folder, outside):
        picture_source(folder)
        for name, data in files.items():
            if isinstance(data, str):
                data = data.replace("{outside}", str(outside))
            write(folder / name, data)

    return make


ROW = '{"file_name": "good1.png", "text": "a"}\n'
CAPTIONS = {
    "outside.csv": {
        "metadata.csv": "file_name,text\n{outside}/secret.png,a\n"
        "../outside/secret.png,b\ngood1.png,c\n"
    },
    "system.csv": {"metadata.csv": "file_name,text\n/etc/passwd,a\ngood1.png,c\n"},
    "only-outside.csv": {"metadata.csv": "file_name,text\n{outside}/secret.png,a\n"},
    "url.csv": {"metadata.csv": "file_name,text\nhttp://127.0.0.1/x.png,a\n"},
    "field.csv": {"metadata.csv": "file_name,text\ngood1.png," + "x" * 200_000 + "\n"},
    "long.jsonl": {
        "metadata.jsonl": json.dumps({"file_name": "good1.png", "text": "x" * 200_000})
    },
    "deep.jsonl": {"metadata.jsonl": ROW + "[" * 100_000},
    "digits.jsonl": {"metadata.jsonl": ROW + '{"file_name": ' + "9" * 5000 + "}"},
    "object.jsonl": {"metadata.jsonl": '{"file_name": {"a": 1}, "text": "a"}'},
    "text-object.jsonl": {"metadata.jsonl": '{"file_name": "good1.png", "text": {}}'},
    "formula.csv": {"metadata.csv": "file_name;text\n=cmd|'/c calc'!A1;a\n"},
    "zero.csv": {"metadata.csv": b"file_name,text\ngood1.png,a\0b\n"},
    "lists.jsonl": {"metadata.jsonl": ROW + '{"a": [' + "[]," * 10**7 + "[]]}"},
    "fields.csv": {"metadata.csv": "file_name,text\ngood1.png,a\n" + "aa," * 10**7},
    "columns.csv": {"metadata.csv": "file_name,text,text\ngood1.png,a,b\n"},
    "long.txt": {"good1.txt": "x" * 200_000, "good2.txt": "a"},
    "huge.txt": {"good1.txt": "x" * 2**25, "good2.txt": "a"},
    "binary.txt": {"good1.txt": b"\xff\xfe\0\xd8", "good2.txt": "a"},
}
for _name, _files in CAPTIONS.items():
    case("captions", _name, captions(_files), read_folder)


def escapes(folder, outside):
    """Names that a terminal would obey; the reasons must not have them."""
    for name in ("\x1b[31mred\x07", "a\nb", "\u202egnp.exe"):
        write(folder / name / "good.png", png(8, 8, bytes(64)))
        write(folder / name / "odd.png", b"odd")


def read_escapes(folder):
    from keras_mdm.data import open_source

    found = read_all(f"folder:{folder}")
    source = open_source(f"folder:{folder}", "all")
    shown = "".join([*source.class_names, *found, source.report(), source.name])
    assert shown.isprintable(), shown
    return found


case("captions", "escapes", escapes, read_escapes)


# Clips.
def read_clips(folder):
    return read_all(f"clips:{folder}", num_frames=2)


def clip(name, data):
    def make(folder, outside):
        from hostile.forge import write

        gif = functools.partial(_gif, 2)
        write(folder / "good.gif", gif())
        text = (
            data.replace("{outside}", str(outside)) if isinstance(data, str) else data
        )
        write(folder / name, text)

    return make


def _gif(count):
    from PIL import Image

    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (60 * i, 9, 9)) for i in range(count)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=50)
    return file.getvalue()


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
for _name, _data in {
    "concat.mp4": "ffconcat version 1.0\nfile '{outside}/secret.png'\n",
    "concat.mkv": "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/x'\n",
    "playlist.mp4": PLAYLIST.format("file://{outside}/secret.png"),
    "playlist.avi": PLAYLIST.format("http://127.0.0.1:{port}/x"),
    "playlist.mov": PLAYLIST.format("concat:{outside}/secret.txt|x"),
    "sdp.mp4": "v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "dash.webm": "<?xml version='1.0'?><MPD><BaseURL>{outside}</BaseURL></MPD>",
    "canvas.gif": GIF + FRAME,
    "picture.mp4": png(8, 8, bytes(64)),
    "postscript.gif": POSTSCRIPT,
    "empty.mp4": b"",
    "box.mp4": b"\0\0\0\x18ftypisom\0\0\0\0isomiso2"
    + struct.pack(">I", 2**31)
    + b"moov",
    "reference.mov": b"\0\0\0\x14ftypqt  \0\0\0\0qt  "
    + struct.pack(">I", 60)
    + b"moov"
    + struct.pack(">I", 52)
    + b"rmra"
    + struct.pack(">I", 44)
    + b"rmda"
    + struct.pack(">I", 36)
    + b"rdrf"
    + b"\0\0\0\0url \0\0\0\x14http://127.0.0.1/x\0\0",
    "element.mkv": b"\x1aE\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff",
}.items():
    case("clip", _name, clip(_name, _data), read_clips)


def _network_name(folder, outside):
    write(folder / "good.gif", _gif(2))
    write(folder / "http:" / "127.0.0.1:9" / "x.mp4", b"x")


def read_clips_here(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        return read_all("clips:.", num_frames=2)
    finally:
        os.chdir(before)


case("clip", "http-folder", _network_name, read_clips_here)


def _large_clip(folder, outside):
    from PIL import Image

    write(folder / "good.gif", _gif(2))
    pictures = [Image.new("P", (12_000, 12_000), color) for color in (0, 1)]
    path = folder / "large.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=50)


case("clip", "large", _large_clip, read_clips)


def _lying_clip(folder, outside):
    """Frames that are far larger than the container says."""
    import av
    from PIL import Image

    write(folder / "good.gif", _gif(2))
    file = io.BytesIO()
    Image.new("RGB", (8000, 8000)).save(file, "JPEG")
    with av.open(str(folder / "lying.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        for number in range(2):
            packet = av.Packet(file.getvalue())
            packet.stream, packet.pts, packet.dts = stream, number, number
            container.mux(packet)


case("clip", "lying", _lying_clip, read_clips)
