"""How a person speaks to a transcription script: files in, transcripts beside them, a line of progress.

Exit codes: 0 all done, 1 some failed, 2 wrong usage, 69 something the machine lacks.
"""

import argparse
import os
import sys
import time

from . import host, job
from .arguments import COMMON, FORMATS
from .failure import classify

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69


def parser(recogniser_type, description):
    """The options that every transcription script has; a script adds its own."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = options.add_argument
    add("files", nargs="*", metavar="FILE", help="media files")
    add("--output-dir", "--output_dir", metavar="D", help="write there, folders mirrored (default: beside the media)")
    add("--formats", "--output_format", default=",".join(FORMATS), metavar="LIST", help="some of %(default)s, or all")
    add("--language", metavar="CODE", help="language spoken, such as en")
    add("--model", default=os.environ.get("GPUSPOOL_MODEL") or None, metavar="NAME",
        help=f"model (default: $GPUSPOOL_MODEL, else {recogniser_type.default_model})")  # fmt: skip
    for name, words in (("word-timestamps", "times of single words in the json"), ("vad-filter", "leave silence out")):
        add(f"--{name}", f"--{name.replace('-', '_')}", action=argparse.BooleanOptionalAction, help=words)
    add("--overwrite", action="store_true", help="redo what is already there and newer than the media")
    add("--host", action="store_true", help="serve tasks as JSON lines on standard input (for a worker)")
    return options


def main(recogniser_type, options, argv=None):
    """Runs a script: as a host, or over the files named. Returns the exit code."""
    given = options.parse_args(argv)
    recogniser = recogniser_type.from_options(given)
    if given.host:
        return host.serve(recogniser)
    if not given.files:
        options.print_usage(sys.stderr)
        print("name at least one media file (--help lists the options)", file=sys.stderr)
        return EXIT_USAGE
    try:
        recogniser.start()
    except Exception as error:
        failure = classify(error)
        print(f"cannot load `{recogniser.model}`: {failure.message}", file=sys.stderr)
        return EXIT_UNAVAILABLE if failure.code == "missing_dependency" else EXIT_FAILED
    return transcribe_all(recogniser, given)


def transcribe_all(recogniser, given):
    """One file after the other; a bad one is named and the rest goes on."""
    files = list(dict.fromkeys(os.path.abspath(file) for file in given.files))
    common = {name: value for name, value in vars(given).items() if name in COMMON or name in recogniser.settings}
    failed = 0
    for number, file in enumerate(files, start=1):
        line = ProgressLine(f"{number}/{len(files)} {os.path.basename(file)}")
        try:
            args = common | {"input": file, "output_dir": mirrored(file, files, given.output_dir)}
            result = job.run(recogniser, args, job.Ear(tell=line.show))
        except Exception as error:
            failed += 1
            line.end(f"FAILED: {classify(error).message}")
        except KeyboardInterrupt:
            line.end("stopped")
            return 130
        else:
            line.end(summary(result))
    return EXIT_FAILED if failed else 0


def mirrored(file, files, output_dir):
    """The folder of `output_dir` for one of `files`, so that equal names in different folders stay apart."""
    if output_dir is None:
        return None
    folders = [os.path.dirname(one) for one in files]
    return os.path.normpath(
        os.path.join(os.path.abspath(output_dir), os.path.relpath(os.path.dirname(file), os.path.commonpath(folders)))
    )


def summary(result):
    if len(result["skipped"]) == len(result["outputs"]):
        return "already done"
    written = [path for kind, path in result["outputs"].items() if kind not in result["skipped"]]
    words = "no speech found; " if result.get("empty") else ""
    warned = f" (ffmpeg: {result['warnings'][0]})" if "warnings" in result else ""
    return f"{words}{result['media_s']:.1f} s at {result['speed']:.1f}x realtime -> {', '.join(written)}{warned}"


class ProgressLine:
    """`1/3 talk.webm  40% | 00:24/01:00 | 00:05<<00:08 | 4.8x`, redrawn in place on a terminal."""

    def __init__(self, label):
        self._label = label
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()

    def show(self, media_s, total_s, percent):
        took = time.monotonic() - self._began
        speed = media_s / took if took > 0 else 0.0
        left = (total_s - media_s) / speed if total_s and speed else None
        share = "  ?%" if percent is None else f"{percent:3.0f}%"
        self._draw(f"{share} | {short(media_s)}/{short(total_s)} | {short(took)}<<{short(left)} | {speed:.1f}x")

    def _draw(self, words):
        if self._live:
            print(f"\r\033[K{self._label}  {words}", end="", file=sys.stderr, flush=True)

    def end(self, words):
        print(("\r\033[K" if self._live else "") + f"{self._label}  {words}", file=sys.stderr, flush=True)


def short(seconds):
    return "--:--" if seconds is None else f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
