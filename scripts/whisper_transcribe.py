#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "faster-whisper>=1.1,<2",
#     "nvidia-cublas-cu12 ; sys_platform == 'linux' and platform_machine == 'x86_64'",
# ]
# ///
"""Transcribes speech with faster-whisper: on the GPU where one is visible, else on the CPU with int8.

The model is loaded once and kept for all files. It is named as in faster-whisper (`tiny`, `small.en`,
`turbo`, `large-v3`, a Hugging Face repository) or by the path of a folder in CTranslate2's format.
Models come from the Hugging Face cache (HF_HOME, HF_HUB_OFFLINE and HF_TOKEN are respected).

  whisper_transcribe.py talk.webm lecture.mp4 --model turbo --formats txt,srt
  uv run --script whisper_transcribe.py talk.webm        brings faster-whisper by itself
  whisper_transcribe.py --host                           serve tasks as JSON lines (as a worker runs it)
"""

import ctypes
import glob
import importlib.util
import os
import sys

from transcription import command_line, media
from transcription.arguments import one_of, text, whole_number
from transcription.failure import CRASH, Failure, bad_input
from transcription.job import Boundary, Recogniser, Segment, Word

COMPUTE_TYPES = (
    "default",
    "auto",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
    "float32",
)
INSTALL = "`scripts/setup --need uv`, then `gpuspool down` and `gpuspool up`; alone, run it with `uv run --script`"
CUDA_INSTALL = "pip install nvidia-cublas-cu12"
FRAMES_PER_SECOND = 100  # of the windows that Whisper listens through
# Whisper reads this much of what it wrote last before it goes on, and nothing that it wrote in despair.
CONTEXT_TOKENS = 223
DESPERATE_TEMPERATURE = 0.5


def temperature(name, value):
    """One number from 0 to 1, or a list of them to fall back through."""
    values = value if isinstance(value, list) else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, (int, float)) or not 0 <= one <= 1:
            raise bad_input(
                "bad_argument", f"`{name}` is {value!r}; it must be a number from 0 to 1, or a list of them"
            )
    if not values:
        raise bad_input("bad_argument", f"`{name}` is an empty list")
    return value


class Whisper(Recogniser):
    name = "whisper_transcribe"
    default_model = "turbo"
    settings = {
        "task": one_of("transcribe", "translate"),
        "beam_size": whole_number(1),
        "batch_size": whole_number(1),
        "initial_prompt": text,
        "hotwords": text,
        "temperature": temperature,
        "compute_type": one_of(*COMPUTE_TYPES),
    }

    def __init__(self, model=None, compute_type=None, download_root=None, hosted=True):
        super().__init__(model)
        self._hosted = hosted
        self._compute_type = compute_type or os.environ.get("GPUSPOOL_COMPUTE_TYPE") or None
        self._download_root = download_root or os.environ.get("GPUSPOOL_MODEL_DIR") or None

    @classmethod
    def from_options(cls, given):
        return cls(given.model, given.compute_type, given.download_root, given.host)

    def load(self):
        media.require_ffmpeg()
        try:
            import ctranslate2
            import faster_whisper
        except ImportError as error:
            raise Failure(CRASH, "missing_dependency", f"{error}; {INSTALL}") from None
        # A worker names its GPU; where it names none, the CPU is meant. A person means whatever is there.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        found = not self._hosted and visible is None and ctranslate2.get_cuda_device_count() > 0
        device = "cuda" if found or visible not in (None, "", "-1") else "cpu"
        if device == "cuda":
            load_cublas()
        self._faster_whisper = faster_whisper
        self._compute_type = self._compute_type or ("default" if device == "cuda" else "int8")
        self._model = self._open(device)

    def _open(self, device):
        if os.path.isabs(self.model) and not os.path.isfile(os.path.join(self.model, "model.bin")):
            raise bad_input("model_not_found", f"{self.model} is not a CTranslate2 folder: it has no model.bin")
        try:
            return self._faster_whisper.WhisperModel(
                self.model, device=device, compute_type=self._compute_type, download_root=self._download_root
            )
        except ValueError as error:
            # An unknown name, or a compute type that this device has not.
            raise bad_input("model_not_found", str(error)) from error
        except OSError as error:
            raise Failure(
                CRASH,
                "model_not_available",
                f"cannot get `{self.model}`: {error}; with no network, name the folder of a model",
            ) from error

    def check(self, request):
        known = self._model.supported_languages
        if request.language is not None and request.language not in known:
            raise bad_input(
                "bad_language", f"`language` is {request.language!r}; `{self.model}` knows {', '.join(known)}"
            )
        wanted = request.settings.get("compute_type", self._compute_type)
        if wanted != self._compute_type:
            raise bad_input(
                "wrong_compute_type",
                f"this host has loaded `{self.model}` as {self._compute_type}, the task wants {wanted}; "
                "set GPUSPOOL_COMPUTE_TYPE in the script's env",
            )

    def recognise(self, audio, request, at=None):
        import numpy

        samples = numpy.frombuffer(b"".join(audio.chunks(10.0)), dtype="<i2").astype(numpy.float32) / 32768.0
        options = {
            name: value for name, value in request.settings.items() if name not in ("batch_size", "compute_type")
        }
        options |= {
            "language": request.language,
            "word_timestamps": request.word_timestamps is True,
            "vad_filter": request.vad_filter,
        }
        engine = self._model
        if request.settings.get("batch_size", 1) > 1:
            engine = self._faster_whisper.BatchedInferencePipeline(self._model)
            options |= {"batch_size": request.settings["batch_size"], "without_timestamps": False}
        windows = Windows(self._model, options["initial_prompt"] if "initial_prompt" in options else None, at)
        if at is not None:
            options |= {"language": at["language"], "initial_prompt": windows.context, "clip_timestamps": From(at["frame"])}
        segments, info = engine.transcribe(samples, **options)
        self.language = "en" if request.settings.get("task") == "translate" else info.language
        done_s = 0.0
        for segment in segments:
            # Parts that are decoded at once have no order to go on in.
            if engine is self._model and windows.enter(segment):
                yield done_s, Boundary(windows.boundary(info.language))
            done_s = segment.end
            yield done_s, Segment(segment.start, segment.end, segment.text, words_of(segment))


class From(list):
    """Where faster-whisper begins. It passes for "from the beginning", so that silence is left out all the same."""

    def __init__(self, frame):
        super().__init__([frame / FRAMES_PER_SECOND])

    def __eq__(self, other):
        return other == "0"

    __hash__ = None


class Windows:
    """The windows of one recording, each decoded with the words before it in mind: between two of them it can be left."""

    def __init__(self, model, prompt, at):
        self._frame = at["frame"] if at else 0
        self._temperature = 0.0
        self.context = list(at["context"]) if at else []
        if at is None and prompt:
            self.context = model.hf_tokenizer.encode(" " + prompt.strip(), add_special_tokens=False).ids
        self._before = self.context

    def enter(self, segment):
        """Takes a segment in; whether it is the first of a window that is not the first."""
        is_new = segment.seek > self._frame
        if is_new:
            if self._temperature > DESPERATE_TEMPERATURE:
                self.context = []
            self._frame, self._before = segment.seek, self.context
        self._temperature = segment.temperature
        self.context = (self.context + list(segment.tokens))[-CONTEXT_TOKENS:]
        return is_new

    def boundary(self, language):
        """How to go on from before the window in hand."""
        return {"frame": self._frame, "context": self._before, "language": language}


def words_of(segment):
    if segment.words is None:
        return None
    return [Word(word.start, word.end, word.word.strip(), word.probability) for word in segment.words]


def load_cublas():
    """Loads cuBLAS now, or says what is missing: CTranslate2 would only find out at the first task.

    The one that pip installs lies where the dynamic linker does not look.
    """
    found = importlib.util.find_spec("nvidia")
    folders = found.submodule_search_locations if found else ()
    for name in ("libcublasLt.so.12", "libcublas.so.12"):
        places = [
            path for folder in folders for path in glob.glob(os.path.join(glob.escape(folder), "cublas", "lib", name))
        ]
        try:
            ctypes.CDLL((places or [name])[0], mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise Failure(CRASH, "missing_dependency", f"{error}; {CUDA_INSTALL}") from None


def options():
    parser = command_line.parser(Whisper, __doc__)
    add = parser.add_argument
    add("--task", choices=("transcribe", "translate"), help="translate: into English")
    add("--beam-size", "--beam_size", type=int, metavar="N", help="candidates kept while decoding (default 5)")
    add("--batch-size", "--batch_size", type=int, metavar="N", help="parts decoded at once; faster, more memory")
    add("--temperature", type=float, nargs="+", metavar="T", help="sampling temperatures to fall back through")
    add("--initial-prompt", "--initial_prompt", metavar="TEXT", help="what came before, for names and style")
    add("--hotwords", metavar="TEXT", help="words to expect")
    add(
        "--compute-type",
        "--compute_type",
        choices=COMPUTE_TYPES,
        help="default: the model's own on a GPU, int8 on a CPU",
    )
    add("--download-root", metavar="D", help="keep downloaded models there (default: the Hugging Face cache)")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.main(Whisper, options()))
