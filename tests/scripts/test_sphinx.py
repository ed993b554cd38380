"""sphinx_transcribe as a worker has it: a host that hears real speech."""

import json
import os
import signal
import subprocess
import sys
import time

from support import PATIENCE_S, SPHINX, Host, Workplace, assert_rises, read, touch


class Speech(Workplace):
    """What was said is what is written."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.talks = cls.videos("talks", "--count", "4")

    def test_each_video_gives_its_own_words(self):
        self.assertEqual(sorted(os.path.basename(path) for path in self.talks).count("talk.webm"), 2)
        with Host(SPHINX) as host:
            self.assertEqual(host.next(), {"event": "ready", "model": "en-us", "script": "sphinx_transcribe", "yields": True})
            for number, (media, keywords) in enumerate(self.talks.items()):
                progress, answer = host.run(f"talk-{number}", input=media)
                assert_rises(self, progress)
                result = answer["result"]
                for keyword in keywords:
                    self.assertIn(keyword, result["text"].split(), media)
                self.assertEqual(result["loads"], 1)
                self.assertEqual((result["language"], result["model"], result["skipped"]), ("en", "en-us", []))
                self.assertGreater(result["speed"], 0)
                self.check_files(result)
            self.assertEqual(host.close(), 0)

    def check_files(self, result):
        files = result["outputs"]
        self.assertEqual(list(files), ["txt", "srt", "vtt", "json"])
        document = json.loads(read(files["json"]))
        self.assertEqual(document["text"][:500], result["text"])
        self.assertEqual(read(files["txt"]).split(), document["text"].split())
        self.assertEqual(read(files["srt"]).count(" --> "), result["segments"])
        self.assertEqual(read(files["vtt"]).count(" --> "), result["segments"])
        words = [word for segment in document["segments"] for word in segment["words"]]
        times = [at for word in words for at in (word["start"], word["end"])]
        self.assertEqual(times, sorted(times))
        self.assertLessEqual(times[-1], result["media_s"])
        self.assertEqual([word["word"] for word in words], document["text"].split())

    def test_sound_that_begins_late_has_late_times(self):
        media, (keyword, _) = next(iter(self.talks.items()))
        late = self.ffmpeg("late.mkv", "-f", "lavfi", "-i", "color=size=32x32:rate=5:duration=8", "-itsoffset", "3",
                           "-i", media, "-map", "0:v", "-map", "1:a", "-c:v", "libvpx", "-c:a", "copy")  # fmt: skip
        with Host(SPHINX) as host:
            host.next()
            early_s, late_s = (self.time_of(host, path, keyword) for path in (media, late))
        self.assertAlmostEqual(late_s - early_s, 3.0, delta=0.15)

    def time_of(self, host, media, keyword):
        result = host.result("when", input=media, output_dir=self.path("times"), formats=["json"])
        segments = json.loads(read(result["outputs"]["json"]))["segments"]
        return next(word["start"] for segment in segments for word in segment["words"] if word["word"] == keyword)


class Again(Workplace):
    """Finished work is not redone, format by format."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        (cls.media,) = cls.videos("clips", "--count", "1", "--short")

    def setUp(self):
        self.outputs = {kind: self.path(self._testMethodName, f"any name.{kind}") for kind in ("txt", "srt")}
        self.host = self.enterContext(Host(SPHINX))
        self.host.next()
        self.first = self.host.result("first", input=self.media, outputs=self.outputs)
        self.written = self.stamps()

    def stamps(self):
        return {kind: os.stat(path).st_mtime_ns for kind, path in self.outputs.items()}

    def test_all_there(self):
        self.assertEqual(self.first["outputs"], self.outputs)
        progress, answer = self.host.run("second", input=self.media, outputs=self.outputs)
        self.assertEqual((progress, answer["result"]["skipped"]), ([], ["txt", "srt"]))
        self.assertEqual(self.stamps(), self.written)

    def test_only_the_missing_format(self):
        os.unlink(self.outputs["srt"])
        result = self.host.result("second", input=self.media, outputs=self.outputs)
        self.assertEqual(result["skipped"], ["txt"])
        self.assertEqual(self.stamps()["txt"], self.written["txt"])
        self.assertIn("birthday cake", read(self.outputs["srt"]))

    def test_overwrite(self):
        result = self.host.result("second", input=self.media, outputs=self.outputs, overwrite=True)
        self.assertEqual(result["skipped"], [])
        self.assertGreater(self.stamps()["txt"], self.written["txt"])

    def test_changed_media(self):
        before = os.stat(self.media)
        self.addCleanup(os.utime, self.media, ns=(before.st_atime_ns, before.st_mtime_ns))
        touch(self.media, ahead_s=5)
        self.assertEqual(self.host.result("second", input=self.media, outputs=self.outputs)["skipped"], [])


class Refusals(Workplace):
    """A bad task is answered with its fault, and the host goes on."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        (cls.media,) = cls.videos("clips", "--count", "1", "--short")

    def test_each_fault_has_its_code(self):
        mute = self.ffmpeg("mute.webm", "-f", "lavfi", "-i", "color=size=32x32:rate=5:duration=1", "-c:v", "libvpx")
        with open(self.path("broken.webm"), "wb") as file:
            file.write(b"this is no video" * 100)
        open(self.path("empty.mp3"), "wb").close()
        os.mkfifo(self.path("fifo.webm"))
        cases = [
            ("input_not_found", {"input": self.path("none.webm")}, "none.webm"),
            ("input_not_found", {"input": self.path("broken.webm", "under.webm")}, "under.webm"),
            ("input_not_a_file", {"input": self.path("fifo.webm")}, "fifo.webm"),
            ("input_not_a_file", {"input": self.folder}, self.folder),
            ("no_audio", {"input": mute}, "mute.webm"),
            ("bad_media", {"input": self.path("broken.webm")}, "Invalid data found"),
            ("bad_media", {"input": self.path("empty.mp3")}, "empty.mp3"),
            ("bad_language", {"input": self.media, "language": "de"}, "'de'"),
            ("wrong_model", {"input": self.media, "model": "large-v3"}, "large-v3"),
            ("unknown_argument", {"input": self.media, "langage": "en"}, "did you mean `language`?"),
            ("output_not_writable", {"input": self.media, "outputs": {"txt": os.path.join(mute, "x.txt")}}, "x.txt"),
        ]
        with Host(SPHINX) as host:
            host.next()
            for code, args, words in cases:
                with self.subTest(code=code, args=args):
                    kind, found, message = host.error("bad", **args)
                    self.assertEqual((kind, found), ("bad_input", code), message)
                    self.assertIn(words, message)
            self.assertIn("birthday cake", host.result("good", input=self.media)["text"])

    def test_lines_that_are_no_task(self):
        with Host(SPHINX) as host:
            host.next()
            for line in (b"{", b"[]", b'{"args":{}}', b'{"task_id":"x","attempt":"one"}', b"\xff\xfe"):
                host.say(line)
                event = host.next()
                self.assertEqual(
                    (event["event"], event["code"], event["task_id"]), ("error", "bad_request", None), line
                )
            self.assertEqual(
                host.error("no-args"),
                ("bad_input", "missing_argument", "`input` is missing: the absolute path of a media file"),
            )
            self.assertEqual(host.close(), 0)

    def test_silence_is_an_empty_transcript(self):
        with Host(SPHINX) as host:
            host.next()
            result = host.result("quiet", input=self.silence(), formats=["txt", "vtt"])
        self.assertTrue(result["empty"])
        self.assertEqual((result["text"], result["segments"], result["media_s"]), ("", 0, 2.0))
        self.assertEqual((read(result["outputs"]["txt"]), read(result["outputs"]["vtt"])), ("", "WEBVTT\n\n"))

    def test_cut_media_gives_what_is_there_and_a_warning(self):
        with open(self.media, "rb") as file:
            whole = file.read()
        with open(self.path("cut.webm"), "wb") as file:
            file.write(whole[: len(whole) * 3 // 4])
        with Host(SPHINX) as host:
            host.next()
            result = host.result("cut", input=self.path("cut.webm"))
        self.assertTrue(result["warnings"])
        self.assertGreater(result["media_s"], 0.2)


class Ends(Workplace):
    """How a host begins to serve, stops a task, and ends."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        (cls.media,) = cls.videos("clips", "--count", "1", "--short")
        cls.long = cls.ffmpeg("long.wav", "-stream_loop", "59", "-i", cls.media, "-ac", "1", "-ar", "16000")

    def test_the_end_of_stdin_lets_work_finish(self):
        with Host(SPHINX) as host:
            host.give("one", input=self.media)
            host.give("two", attempt=3, input=self.media, formats=["txt"])
            code = host.close()
            self.assertEqual(host.next()["event"], "ready")
            self.assertEqual(host.answer("one")[1]["event"], "result")
            self.assertEqual(host.answer("two", attempt=3)[1]["result"]["skipped"], ["txt"])
            self.assertIsNone(host.next())
        self.assertEqual(code, 0)

    def test_sigterm_ends_it_at_once(self):
        with Host(SPHINX) as host:
            host.next()
            host.give("long", input=self.long, output_dir=self.path("never"))
            self.assertEqual(host.next()["event"], "progress")
            asked = time.monotonic()
            host.process.send_signal(signal.SIGTERM)
            self.assertEqual(host.process.wait(PATIENCE_S), -signal.SIGTERM)
            self.assertLess(time.monotonic() - asked, 2.0)
            self.assertIsNone(self.ffmpeg_of(host.process.pid, within_s=5))
        self.assertFalse(os.path.exists(self.path("never")))

    def ffmpeg_of(self, group, within_s):
        """A process still in the host's group; ffmpeg ends by itself when nobody reads."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return None
            time.sleep(0.02)
        return group

    def test_cancel_stops_at_the_next_segment(self):
        with Host(SPHINX) as host:
            host.next()
            host.give("long", input=self.long, output_dir=self.path("cancelled"))
            first = host.next()
            self.assertLess(first["percent"], 50)
            host.say({"cancel": {"task_id": "long", "attempt": 1}})
            progress, answer = host.answer("long")
            self.assertEqual((answer["event"], answer["class"]), ("error", "cancelled"))
            self.assertFalse(os.path.exists(self.path("cancelled")))
            self.assertEqual(host.result("next", input=self.media)["loads"], 1)

    def test_a_model_that_is_not_there(self):
        with Host(SPHINX, env={"GPUSPOOL_MODEL": "/no/such/model"}) as host:
            event = host.next()
            self.assertEqual((event["event"], event["class"], event["code"]), ("error", "bad_input", "model_not_found"))
            self.assertIn("/no/such/model", event["message"])
            self.assertIsNone(host.next())
            self.assertEqual(host.process.wait(PATIENCE_S), 1)

    def test_the_model_of_the_environment_or_of_the_command_line(self):
        for options in ({"env": {"GPUSPOOL_MODEL": "en-us"}}, {"env": {"GPUSPOOL_MODEL": ""}}):
            with self.subTest(options), Host(SPHINX, **options) as host:
                self.assertEqual(host.next()["model"], "en-us")
        folder = "/usr/share/pocketsphinx/model/en-us"
        with Host(SPHINX, "--model", folder, env={"GPUSPOOL_MODEL": "en-us"}) as host:
            self.assertEqual(host.next()["model"], folder)

    def test_without_ffmpeg(self):
        with Host(SPHINX, env={"PATH": self.folder}) as host:
            event = host.next()
            self.assertEqual((event["class"], event["code"]), ("crash", "missing_dependency"))
            self.assertIn("apt-get install ffmpeg", event["message"])
            self.assertEqual(host.process.wait(PATIENCE_S), 1)

    def test_a_listener_that_goes_away_ends_it(self):
        with subprocess.Popen(
            [sys.executable, SPHINX, "--host"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as host:
            self.assertEqual(json.loads(host.stdout.readline())["event"], "ready")
            host.stdout.close()
            host.stdin.write(json.dumps({"task_id": "x", "attempt": 1, "args": {"input": self.media}}).encode() + b"\n")
            host.stdin.flush()
            self.assertEqual(host.wait(PATIENCE_S), 0)
