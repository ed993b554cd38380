"""Twelve videos of speech, transcribed for real on three simulated GPUs."""

import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest

from machine import PATH, PATIENCE_S, ROOT, Machine, read


class TwelveVideos(Machine):
    GPUS = "simulated:24576,12227,8192"

    def setUp(self):
        super().setUp()
        media = tempfile.TemporaryDirectory(prefix="gpuspool-videos-")
        self.addCleanup(media.cleanup)
        self.media = media.name
        maker = os.path.join(ROOT, "scripts", "make_speech_videos")
        made = subprocess.run(
            [maker, self.media, "--count", "12", "--keywords"], capture_output=True, text=True, check=True
        )
        self.keywords = json.loads(made.stdout)

    def submit(self, *words):
        program = shutil.which("submit_batch", path=PATH)
        command = [program, "--spool", self.spool, "--config", os.path.join(ROOT, "config.json")]
        command += ["transcribe", self.media, "--script", "sphinx_transcribe", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def complete(self):
        folder = os.path.join(self.spool, "tasks", "complete")
        return [read(os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name.endswith(".json")]

    def test_each_says_what_was_spoken_on_every_gpu_with_one_load_each_and_none_twice(self):
        self.assertEqual(len(self.keywords), 12)
        names = [os.path.basename(path) for path in self.keywords]
        self.assertLess(len(set(names)), 12, "two files of one name in different folders")

        program = shutil.which("submit_batch", path=PATH)
        command = [program, "--spool", self.spool, "--config", os.path.join(ROOT, "config.json")]
        command += ["transcribe", self.media, "--script", "sphinx_transcribe", "--wait"]
        batch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(batch.kill)
        progress = {}
        loads = {}
        deadline = time.monotonic() + PATIENCE_S
        while batch.poll() is None:
            self.assertLess(time.monotonic(), deadline, self.words_of_the_brain())
            picture = self.picture()
            for key, gpu in picture["gpus"].items():
                for slot in gpu["slots"]:
                    progress.setdefault(slot["task_id"], []).append(slot["progress"] or 0)
                for resident in gpu["residents"]:
                    loads[key] = max(loads.get(key, 0), resident["loads"])
        self.assertEqual(batch.returncode, 0, batch.stdout.read())
        batch.stdout.close()

        for video, words in self.keywords.items():
            with open(os.path.join(self.media, os.path.splitext(video)[0] + ".txt"), encoding="utf-8") as file:
                heard = file.read().lower()
            for word in words:
                self.assertIn(word.lower(), heard, video)
        records = self.complete()
        self.assertEqual(len(records), 12)
        self.assertEqual({record["assigned_gpu"] for record in records}, {"0", "1", "2"})
        self.assertEqual(loads, {"0": 1, "1": 1, "2": 1}, "one model load for each GPU")
        self.assertTrue(any(any(values) for values in progress.values()), "some progress was seen")
        for task, values in progress.items():
            self.assertEqual(values, sorted(values), f"the progress of {task} only rises")

        again = self.submit("--wait")
        self.assertEqual(again.returncode, 0, again.stdout + again.stderr)
        self.assertEqual(len(self.complete()), 12, "nothing is redone")


if __name__ == "__main__":
    unittest.main()
