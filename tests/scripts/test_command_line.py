"""The scripts in a person's hands: transcription alone, the maker of videos, the setup."""

import os
import shutil
import subprocess
import time
from importlib import machinery, util

from support import MAKER, SCRIPTS, SETUP, SPHINX, WHISPER, Workplace, read


def run(*command, env=None):
    return subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL)


class Transcribe(Workplace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        (cls.media,) = cls.videos("clips", "--count", "1", "--short")

    def test_help_needs_nothing_installed(self):
        for script in (SPHINX, WHISPER):
            done = run(script, "--help")
            self.assertEqual(done.returncode, 0, done.stderr)
            for option in ("--output-dir", "--formats", "--language", "--model", "--word-timestamps", "--vad-filter"):
                self.assertIn(option, done.stdout)

    def test_files_one_after_the_other(self):
        os.makedirs(self.path("in", "deep"))
        files = [self.path("in", "same.webm"), self.path("in", "same.mkv"), self.path("in", "deep", "same.webm")]
        for file in files:
            shutil.copy(self.media, file)
        missing = self.path("in", "none.webm")
        done = run(SPHINX, files[0], missing, *files[1:], "--output-dir", self.path("out"), "--formats", "txt,srt")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("2/4 none.webm  FAILED: there is no file", done.stderr)
        self.assertIn("x realtime", done.stderr)
        for name in ("same.webm.txt", "same.mkv.txt", "deep/same.txt", "deep/same.srt"):
            self.assertIn("birthday cake", read(self.path("out", name)))
        again = run(SPHINX, *files, "--output-dir", self.path("out"), "--formats", "txt,srt")
        self.assertEqual((again.returncode, again.stderr.count("already done")), (0, 3), again.stderr)

    def test_wrong_usage(self):
        self.assertEqual(run(SPHINX).returncode, 2)
        self.assertEqual(run(SPHINX, "--no-such-option").returncode, 2)
        done = run(SPHINX, self.media, "--formats", "doc")
        self.assertEqual(done.returncode, 1)
        self.assertIn("the formats are txt, srt, vtt, json", done.stderr)

    def test_what_is_missing_is_named(self):
        done = run(shutil.which("python3"), SPHINX, self.media, env={"PATH": self.folder})
        self.assertEqual(done.returncode, 69)
        self.assertIn("apt-get install ffmpeg", done.stderr)


class Maker(Workplace):
    def test_videos_differ_and_are_kept(self):
        talks = self.videos("talks", "--count", "4")
        self.assertEqual(len({tuple(words) for words in talks.values()}), 4)
        sizes = {os.path.getsize(path) for path in talks}
        self.assertEqual(len(sizes), 4)
        names = [os.path.basename(path) for path in talks]
        self.assertLess(len(set(names)), len(names))
        done = run(MAKER, self.path("talks"), "--count", "4")
        self.assertIn("0 videos made, 4 were there", done.stderr)

    def test_short_ones_are_cheap_and_many(self):
        clips = self.videos("clips", "--count", "125", "--short")
        self.assertEqual(len(clips), 125)
        self.assertTrue(all(os.path.getsize(path) < 20_000 for path in clips))

    def test_no_sentence_has_anothers_keywords(self):
        maker = util.module_from_spec(util.spec_from_loader("maker", machinery.SourceFileLoader("maker", MAKER)))
        maker.__spec__.loader.exec_module(maker)
        self.assertGreaterEqual(len(maker.SENTENCES), 14)
        for sentence, *keywords in maker.SENTENCES:
            for other, *_ in maker.SENTENCES:
                heard = other.lower().strip(".").split()
                self.assertEqual([word in heard for word in keywords], [other == sentence] * 2, (keywords, other))


class Setup(Workplace):
    def test_nothing_to_do_is_quick(self):
        began = time.monotonic()
        done = run(SETUP, "--need", "speech")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertLess(time.monotonic() - began, 0.3)

    def test_what_is_missing_is_named_with_its_use(self):
        done = run("/bin/bash", SETUP, "--check", "--need", "speech", env={"PATH": self.folder})
        self.assertEqual(done.returncode, 69)
        self.assertIn("flite: speaks", done.stderr)
        self.assertIn("ffmpeg: decodes", done.stderr)
        self.assertNotIn("uv:", done.stderr)

    def test_wrong_usage(self):
        done = run(SETUP, "--need", "coffee")
        self.assertEqual(done.returncode, 2)
        self.assertIn("coffee", done.stderr)
        self.assertEqual(run(SETUP, "coffee").returncode, 2)


class Files(Workplace):
    def test_what_people_run_can_be_run(self):
        for name in ("sphinx_transcribe.py", "whisper_transcribe.py", "make_speech_videos", "setup"):
            self.assertEqual(os.stat(os.path.join(SCRIPTS, name)).st_mode & 0o777, 0o755, name)

    def test_the_dependencies_of_whisper_are_where_uv_looks(self):
        block = read(WHISPER).split("# /// script\n")[1].split("# ///\n")[0]
        self.assertIn('"faster-whisper>=1.1,<2"', block)
        self.assertNotIn("# /// script", read(SPHINX))
