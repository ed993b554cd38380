"""Rooms for the tests of the scripts: a host that is spoken to, and media that is made on the spot."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SCRIPTS = os.path.join(ROOT, "scripts")
SPHINX = os.path.join(SCRIPTS, "sphinx_transcribe.py")
WHISPER = os.path.join(SCRIPTS, "whisper_transcribe.py")
MAKER = os.path.join(SCRIPTS, "make_speech_videos")
SETUP = os.path.join(SCRIPTS, "setup")
TOOLS_PYTHON = os.path.join(ROOT, ".tools", "bin", "python")

if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

# Long enough for a loaded machine; nothing waits this long unless it hangs.
PATIENCE_S = 120


class Host:
    """A script host, as a worker has it: JSON lines in, JSON lines out."""

    def __init__(self, script, *arguments, python=sys.executable, env=None):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GPUSPOOL_", "CUDA_"))}
        self.process = subprocess.Popen(
            [python, script, "--host", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment | (env or {}), start_new_session=True,
        )  # fmt: skip
        self._lines = queue.Queue()
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_log)]
        self.log = b""
        self.checkpoints = []  # states of the task in hand
        for reader in self._readers:
            reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(json.loads(line))  # a line that is no JSON breaks the protocol: the test then times out
        self._lines.put(None)

    def _read_log(self):
        self.log = self.process.stderr.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                pipe.close()
            except BrokenPipeError:
                pass

    def next(self):
        """The next event, or None when the host has closed its output."""
        return self._lines.get(timeout=PATIENCE_S)

    def say(self, message):
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def give(self, task_id, attempt=1, checkpoint=None, **args):
        task = {"task_id": task_id, "attempt": attempt, "args": args}
        self.say(task if checkpoint is None else task | {"checkpoint": checkpoint})

    def answer(self, task_id, attempt=1):
        """The progress events and the last event of a task; its checkpoints are kept."""
        progress, self.checkpoints = [], []
        while event := self.next():
            assert (event["task_id"], event["attempt"]) == (task_id, attempt), event
            if event["event"] == "checkpoint":
                self.checkpoints.append(event["state"])
                continue
            if event["event"] != "progress":
                return progress, event
            progress.append(event)
        raise AssertionError(f"the host ended before it answered {task_id}")

    def run(self, task_id, **args):
        self.give(task_id, **args)
        return self.answer(task_id)

    def result(self, task_id, **args):
        _, event = self.run(task_id, **args)
        assert event["event"] == "result", event
        return event["result"]

    def error(self, task_id, **args):
        _, event = self.run(task_id, **args)
        assert event["event"] == "error", event
        return event["class"], event["code"], event["message"]

    def close(self):
        """Ends stdin and returns the exit code."""
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)


class Workplace(unittest.TestCase):
    """A folder that goes away after each test class, and media in it."""

    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls._folder.cleanup)
        cls.folder = cls._folder.name

    @classmethod
    def path(cls, *parts):
        return os.path.join(cls.folder, *parts)

    @classmethod
    def videos(cls, name, *arguments):
        """Videos of speech and their keywords: {absolute path: [word, word]}."""
        done = subprocess.run(
            [MAKER, cls.path(name), "--keywords", *arguments], capture_output=True, text=True, check=True
        )
        return {cls.path(name, path): words for path, words in json.loads(done.stdout).items()}

    @classmethod
    def ffmpeg(cls, name, *arguments):
        path = cls.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments, path], check=True)
        return path

    @classmethod
    def silence(cls, name="silence.wav", seconds=2):
        return cls.ffmpeg(name, "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", str(seconds))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def touch(path, ahead_s):
    """Makes `path` look changed, `ahead_s` after now."""
    at = time.time() + ahead_s
    os.utime(path, (at, at))


def assert_rises(test, progress):
    """Progress only rises, and ends at the end."""
    test.assertTrue(progress)
    for before, after in zip(progress, progress[1:]):
        test.assertLessEqual(before["media_s"], after["media_s"])
        test.assertLess(before["percent"], after["percent"])
    test.assertEqual(progress[-1]["percent"], 100.0)
    test.assertEqual(progress[-1]["media_s"], progress[-1]["total_s"])
