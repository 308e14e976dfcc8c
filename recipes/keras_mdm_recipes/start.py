"""How every program starts: errors as lines or tracebacks, the backend, saved runs.

Nothing here imports Keras at the top: the backend must be chosen before that.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import sys
import traceback
import warnings
import zlib

from keras_mdm_recipes import values

FOLDER = pathlib.Path(__file__).parent
BACKENDS = ("jax", "tensorflow", "torch")
_MAX_JSON = 2**24
_programs = []  # An `ExitStack` of each `errors_as_lines`.
DTYPE_HELP = (
    "such as float32 or mixed_bfloat16 (default: mixed_bfloat16 on an accelerator, "
    "float32 on a CPU)"
)
CACHE_HELP = (
    "folder of compiled programs, which later runs find there (JAX alone; 'none': no "
    "such folder; default: JAX_COMPILATION_CACHE_DIR, or keras_mdm/jax in the user's "
    "cache folder)"
)


@contextlib.contextmanager
def errors_as_lines(folder=FOLDER):
    """Within it, an error that was foreseen ends the program with one line, and so do
    Ctrl-C and SIGTERM.

    Errors that nobody foresaw are bugs and keep their traceback. The notes of an
    interrupt are shown.

    Args:
        folder: Path of the folder that the program is in.
    """
    previous, sys.unraisablehook = sys.unraisablehook, _end_if_interrupted
    try:
        with contextlib.ExitStack() as stack:
            _programs.append(stack)
            stack.callback(_programs.pop)
            yield
    except Exception as error:
        if not is_foreseen(error, folder):
            raise
        sys.exit(f"error: {_shown(str(error))}")
    except (KeyboardInterrupt, SystemExit) as end:
        if (code := _code(end)) is None:
            raise
        told = ["\nInterrupted.", *getattr(end, "__notes__", ())]
        print(*told, file=sys.stderr, flush=True)
        sys.exit(code)
    finally:
        sys.unraisablehook = previous


def _code(end):
    """The exit code of an exception that a signal raised, or `None` of others."""
    if isinstance(end, KeyboardInterrupt):
        return 130
    is_sigterm = isinstance(end, SystemExit) and end.code == 143
    return 143 if is_sigterm else None


def _end_if_interrupted(unraisable):
    """Ends the program where Python would drop an interrupt: in functions that the
    garbage collector calls, such as JAX's."""
    if (code := _code(unraisable.exc_value)) is None:
        sys.__unraisablehook__(unraisable)
        return
    print("\nInterrupted.", file=sys.stderr, flush=True)
    os._exit(code)


def _shown(text):
    """A text without what a terminal would obey."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text
    )


def is_foreseen(error, folder=FOLDER):
    """Whether an error tells the user of a mistake, not of a bug.

    It does if a `raise` of the package, of a recipe or of a program in `folder` made
    it, with words for the user, or if the system refused a file by its name.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return True
    if isinstance(error, ModuleNotFoundError):
        # One that is not installed.
        return not (error.name or "").startswith("keras_mdm")
    if not isinstance(error, (ValueError, OSError, ImportError, ArithmeticError)):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    package = importlib.util.find_spec("keras_mdm").submodule_search_locations
    folders = [folder, FOLDER, *map(pathlib.Path, package)]
    ours = any(folder in pathlib.Path(last.filename).parents for folder in folders)
    return ours and (last.line or "").startswith("raise ")


def make_parser(description):
    """A parser that shows the docstring as it was written, and defaults of flags."""
    return argparse.ArgumentParser(
        description=description, formatter_class=_HelpFormatter
    )


class _HelpFormatter(
    argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter
):
    def _get_help_string(self, action):
        # "default: None" says nothing: those flags explain it in words.
        if action.default is None or isinstance(action.default, bool | list | tuple):
            return action.help
        return super()._get_help_string(action)


def choose_backend(name, cache_dir=None):
    """Sets the Keras backend, and this process for it, before Keras is imported.

    Args:
        name: str or `None` for a choice by what is installed.
        cache_dir: str or `None`. See `CACHE_HELP`.

    Returns:
        The backend's name.
    """
    # Names of folders need not be text that the terminal can show.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    name = name or os.environ.get("KERAS_BACKEND")
    if name is None:
        installed = [b for b in BACKENDS if importlib.util.find_spec(b)]
        if not installed:
            sys.exit("error: no backend is installed; try `pip install jax`.")
        name = installed[0]
    if importlib.util.find_spec(name) is None:
        sys.exit(f"error: backend '{name}' is not installed; try `pip install {name}`.")
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow turns oneDNN off on CPUs without AVX-512, where it is faster too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if cache_dir is None:
        cache_dir = str(cache_folder(name))
    elif cache_dir != "none":
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache_dir

    from keras_mdm import backend

    backend.prepare_cpu()
    backend.keep_programs(None if cache_dir == "none" else cache_dir)
    backend.tell_programs(_print_program)
    if _programs:
        from keras_mdm.fitting import interrupts

        _programs[-1].enter_context(interrupts.held(raised=True))
    return name


def cache_folder(kind):
    """Path of the folder of one kind of what is kept in the user's cache."""
    # As `keras_mdm.files` has it, which would import Keras.
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(cache) / "keras_mdm" / kind


def default_dtype():
    """The dtype policy of programs where none is given, of the chosen backend."""
    from keras_mdm import backend

    return "float32" if backend.on_cpu() else "mixed_bfloat16"


def _print_program(name, seconds, found):
    how = "found compiled" if found else "compiled"
    print(f"Program {name}: {how} in {seconds:.1f} s", file=sys.stderr, flush=True)


def config_of(folder):
    """Path of the `config.json` of a run folder.

    Raises:
        ValueError: if it is a link, which may lead out of the folder.
    """
    path = pathlib.Path(folder) / "config.json"
    if path.is_symlink():
        raise ValueError(f"'{path}' is a link: put the file itself there.")
    return path


def read_run(folder):
    """`config.json` of a run folder as a dict; empty if there is none."""
    path = config_of(folder)
    if not path.is_file() or not (path.parent / "preset").is_dir():
        return {}
    config = read_json(path)
    names = config.get("class_names") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"'{path}' is damaged: `class_names` must be a list of texts.")
    return config


def check_writable(folder):
    """Raises a `ValueError` unless a folder, or where it will be made, can be written
    to: before what is to be written there takes its time."""
    folder = pathlib.Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise ValueError(f"'{folder}' can't be written to.")


def read_json(path):
    """A JSON file as a dict, with or without the byte order mark that editors write."""
    # Not by the package, which would import Keras before its backend is chosen.
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"'{path}' is damaged: it has more than {_MAX_JSON} bytes.")
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is damaged: it is not JSON. {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' is damaged: it is no JSON object.")
    written = value.pop("checksum", None)
    if written is not None and written != checksum(value):
        raise ValueError(
            f"'{path}' is damaged: its checksum is not that of what it holds. If you "
            "changed it yourself, remove its line 'checksum'."
        )
    if written is None and "recipe" in value:
        # Of here, so that it is told once.
        warnings.warn(
            f"'{path}' has no checksum, so damage would not be noticed.", stacklevel=1
        )
    return value


def checksum(values):
    """The checksum of a dict of JSON values."""
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def path(text):
    """A file or folder that was given as a flag; `~` is the user's home folder."""
    return os.path.expanduser(text)


def limits(text):
    """Limits of data that were given as a flag."""
    return values.convert(values.Limits, text)


def level(text):
    """A resolution that was given as a flag: `64`, or `"8x64"` with frames."""
    return int(text) if text.isdecimal() else text
