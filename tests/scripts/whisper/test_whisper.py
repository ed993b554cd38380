"""whisper_transcribe with the real faster-whisper and a tiny model made on the spot.

The model says fixed sentences, so this tests loading, segments, settings, silence, boundaries and files; that
speech is understood is what the tests of sphinx_transcribe are for. Needs `scripts/setup --need whisper`.

    python3 -m unittest discover -s tests/scripts/whisper
"""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from support import PATIENCE_S, ROOT, TOOLS_PYTHON, WHISPER, Host, Workplace, assert_rises, read  # noqa: E402

SENTENCE = "Good morning. Today we will learn about the history of the steam engine."
NEXT_SENTENCE = "It was the engine of its day."
WINDOW_FRAMES = 3_000  # half a minute


class Whisper(Workplace):
    @classmethod
    def setUpClass(cls):
        if not os.path.exists(TOOLS_PYTHON):
            raise AssertionError(f"there is no {TOOLS_PYTHON}; run `scripts/setup --need whisper`")
        super().setUpClass()
        cls.model = cls.path("tiny-whisper")
        maker = os.path.join(ROOT, "tests", "fixtures", "make_tiny_whisper.py")
        subprocess.run([TOOLS_PYTHON, maker, cls.model], check=True, stdout=subprocess.DEVNULL)
        cls.media, *_ = cls.videos("talks", "--count", "1")

    def host(self, *arguments, **env):
        env = {"GPUSPOOL_MODEL": self.model, "HF_HUB_OFFLINE": "1"} | env
        return Host(WHISPER, *arguments, python=TOOLS_PYTHON, env=env)

    def outputs(self, *kinds):
        return {kind: self.path(self._testMethodName, f"talk.{kind}") for kind in kinds}


class Tasks(Whisper):
    def test_one_load_and_every_format(self):
        with self.host() as host:
            self.assertEqual(
                host.next(),
                {"event": "ready", "model": self.model, "script": "whisper_transcribe", "yields": True},
            )
            outputs = self.outputs("txt", "srt", "vtt", "json")
            progress, answer = host.run("first", input=self.media, outputs=outputs)
            assert_rises(self, progress)
            result = answer["result"]
            self.assertEqual(
                (result["text"], result["segments"], result["loads"], result["language"]), (SENTENCE, 1, 1, "en")
            )
            self.assertEqual(read(outputs["txt"]), SENTENCE + "\n")
            self.assertEqual(read(outputs["srt"]), f"1\n00:00:00,000 --> 00:00:03,000\n{SENTENCE}\n\n")
            self.assertEqual(host.result("again", input=self.media, outputs=outputs)["skipped"], list(outputs))
            os.unlink(outputs["vtt"])
            once_more = host.result("more", input=self.media, outputs=outputs)
            self.assertEqual((once_more["skipped"], once_more["loads"]), (["txt", "srt", "json"], 1))
            self.assertEqual(host.close(), 0)

    def test_words_have_times(self):
        with self.host() as host:
            host.next()
            outputs = self.outputs("json")
            host.result("words", input=self.media, outputs=outputs, word_timestamps=True, temperature=0)
        (segment,) = json.loads(read(outputs["json"]))["segments"]
        self.assertEqual([word["word"] for word in segment["words"]], SENTENCE.split())

    def test_the_settings_that_whisper_users_know(self):
        settings = {"beam_size": 2, "temperature": [0.0, 0.4], "initial_prompt": "Steam.", "hotwords": "engine",
                    "task": "transcribe", "language": "en", "vad_filter": False, "compute_type": "int8"}  # fmt: skip
        with self.host() as host:
            host.next()
            self.assertEqual(
                host.run("set", input=self.media, outputs=self.outputs("txt"), **settings)[1]["event"], "result"
            )
            batched = host.result("batched", input=self.media, outputs=self.outputs("srt"), batch_size=4)
            self.assertTrue(batched["text"].startswith("Good morning."))

    def test_silence_is_an_empty_transcript(self):
        with self.host() as host:
            host.next()
            result = host.result("quiet", input=self.silence(), formats=["srt"])
        self.assertTrue(result["empty"])
        self.assertEqual((result["text"], result["media_s"], read(result["outputs"]["srt"])), ("", 2.0, ""))

    def test_refusals(self):
        with open(self.path("broken.webm"), "wb") as file:
            file.write(b"no video" * 99)
        with self.host() as host:
            host.next()
            for code, args, words in (
                ("input_not_found", {"input": self.path("none.webm")}, "none.webm"),
                ("bad_media", {"input": self.path("broken.webm")}, "Invalid data found"),
                ("wrong_model", {"input": self.media, "model": "large-v3"}, "large-v3"),
                ("wrong_compute_type", {"input": self.media, "compute_type": "float32"}, "GPUSPOOL_COMPUTE_TYPE"),
                ("bad_language", {"input": self.media, "language": "klingon"}, "klingon"),
                ("bad_argument", {"input": self.media, "temperature": 7}, "temperature"),
                ("unknown_argument", {"input": self.media, "beamsize": 5}, "did you mean `beam_size`?"),
            ):
                with self.subTest(code=code):
                    kind, found, message = host.error("bad", **args)
                    self.assertEqual((kind, found), ("bad_input", code), message)
                    self.assertIn(words, message)


class Left(Whisper):
    """Half-minute windows: the model says its second sentence only where it remembers the first."""

    def test_it_goes_on_where_it_was_left_and_nothing_tells(self):
        media = self.ffmpeg("long.wav", "-stream_loop", "-1", "-i", self.media, "-t", "62", "-ac", "1", "-ar", "16000")
        for name, settings, sentences, lefts in (
            ("remembering", {}, [SENTENCE, NEXT_SENTENCE], 1),
            ("forgetting", {"temperature": 0.8, "vad_filter": False}, [SENTENCE] * 3, 2),
        ):
            with self.subTest(name):
                args = {"input": media, "word_timestamps": True} | settings
                whole, outputs = self.outputs_in(name, "whole"), self.outputs_in(name, "left")
                with self.host() as host:
                    host.next()
                    self.assertEqual(host.result("whole", outputs=whole, **args)["text"], " ".join(sentences))
                state, rises = None, []
                for attempt in range(1, lefts + 1):
                    progress, state = self.leave(attempt, state, outputs=outputs, **args)
                    rises += progress
                    self.assertEqual(state["at"]["frame"], attempt * WINDOW_FRAMES)
                    self.assertFalse(any(os.path.exists(path) for path in outputs.values()))
                with self.host() as host:
                    host.next()
                    host.give("long", lefts + 1, state, outputs=outputs, **args)
                    progress, last = host.answer("long", lefts + 1)
                self.assertEqual((last["event"], last["result"]["segments"]), ("result", len(sentences)), last)
                rises += progress
                media_s = [event["media_s"] for event in rises]
                self.assertEqual((media_s, rises[-1]["percent"]), (sorted(media_s), 100.0))
                for kind, path in outputs.items():
                    self.assertEqual(read(path), read(whole[kind]), kind)
                self.assertEqual(len(os.listdir(os.path.dirname(outputs["txt"]))), len(outputs), "nothing else is left")

    def leave(self, attempt, state, **args):
        """Asks a new host to leave at its first boundary: what the next one needs lies in the file and in the state."""
        with self.host() as host:
            host.next()
            host.give("long", attempt, state, **args)
            host.say({"yield": {"task_id": "long", "attempt": attempt}})
            progress, last = host.answer("long", attempt)
        self.assertEqual(last["event"], "yielded", last)
        return progress, last["state"]

    def outputs_in(self, name, folder):
        return {kind: self.path(name, folder, f"long.{kind}") for kind in ("txt", "srt", "vtt", "json")}


class Loading(Whisper):
    def test_models_that_cannot_be_had(self):
        for model, kind, code in (
            ("no-such-size", "bad_input", "model_not_found"),
            ("/no/such/folder", "bad_input", "model_not_found"),
            ("someone/unknown", "crash", "model_not_available"),
        ):
            with self.subTest(model=model), self.host(GPUSPOOL_MODEL=model, HF_HOME=self.path("hf")) as host:
                event = host.next()
                self.assertEqual((event["event"], event["class"], event["code"]), ("error", kind, code), event)
                self.assertEqual(host.process.wait(PATIENCE_S), 1)

    def test_without_faster_whisper(self):
        with Host(WHISPER, python=sys.executable, env={"PYTHONNOUSERSITE": "1", "PYTHONPATH": self.blocker()}) as host:
            event = host.next()
            self.assertEqual((event["class"], event["code"]), ("crash", "missing_dependency"))
            self.assertIn("uv run --script", event["message"])

    def blocker(self):
        """A folder whose ctranslate2 cannot be imported, whatever this interpreter has."""
        folder = self.path("blocked")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "ctranslate2.py"), "w") as file:
            file.write("raise ImportError('no ctranslate2 here')\n")
        return folder

    def test_in_a_persons_hands(self):
        command = [
            TOOLS_PYTHON,
            WHISPER,
            self.media,
            "--model",
            self.model,
            "--output-dir",
            self.path("out"),
            "--formats",
            "txt",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(read(self.path("out", "talk-01.txt")), SENTENCE + "\n")
