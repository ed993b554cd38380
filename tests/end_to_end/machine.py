"""A spool of its own with the real programs on it, for the stories of this folder.

    scripts/embedded && cargo build && python3 -m unittest discover -s tests/end_to_end

`brain`, `gpuspool` and `gpuspool-embedded` are found on PATH, else in `target/debug` and `target/release`.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), os.path.join(TARGET, "debug"), os.path.join(TARGET, "release")]
)
# Long enough for a loaded machine; nothing waits this long unless it hangs.
PATIENCE_S = 120
LOOK_EVERY_S = 0.02


class Machine(unittest.TestCase):
    """A spool of its own, and a brain on simulated GPUs."""

    GPUS = "simulated:8192"
    SETTINGS = None  # those that are shipped

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="gpuspool-end-to-end-")
        self.addCleanup(scratch.cleanup)
        self.scratch = scratch.name
        self.spool = os.path.join(self.scratch, "spool")
        self.config = os.path.join(ROOT, "config.json")
        if self.SETTINGS is not None:
            self.config = os.path.join(self.scratch, "config.json")
            with open(self.config, "w", encoding="utf-8") as file:
                json.dump(self.SETTINGS, file)
        self.logs = open(os.path.join(self.scratch, "brain.log"), "w+", encoding="utf-8")
        self.addCleanup(self.logs.close)
        self.brain = self.start("brain", "--gpus", self.GPUS, stdout=self.logs, stderr=self.logs)
        self.addCleanup(self.end)
        self.wait_for("the first picture", lambda: self.gpu() and self.gpu()["worker_pid"])

    def start(self, name, *words, **options):
        program = shutil.which(name, path=PATH)
        self.assertIsNotNone(program, f"there is no `{name}` on PATH or in {TARGET}; see the top of this file")
        command = [program, "--spool", self.spool, "--config", self.config, *words]
        environment = os.environ | {"PATH": PATH}
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, **options)

    def end(self):
        if self.brain.poll() is None:
            self.start("gpuspool", "down", "--now", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait()
        try:
            self.brain.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.brain.kill()
            self.brain.wait()
            raise

    def words_of_the_brain(self):
        self.logs.flush()
        with open(self.logs.name, encoding="utf-8") as log:
            return log.read()[-2000:]

    def wait_for(self, what, look):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.assertIsNone(self.brain.poll(), f"the brain ended: {self.words_of_the_brain()}")
            found = look()
            if found:
                return found
            time.sleep(LOOK_EVERY_S)
        return self.fail(f"waited {PATIENCE_S} s for {what}: {self.words_of_the_brain()}\n{self.picture()}")

    def picture(self):
        return read(os.path.join(self.spool, "gpu_state.json"))

    def gpu(self):
        picture = self.picture()
        return picture and picture["gpus"].get("0")

    def drop(self, name, **task):
        queue = os.path.join(self.spool, "tasks", f"{'script' if 'script' in task else 'llm'}_queue", "priority_3")
        with open(os.path.join(queue, name), "w", encoding="utf-8") as file:
            json.dump(task, file)

    def ended(self, task_id):
        def look():
            for folder in ("complete", "failed"):
                record = read(os.path.join(self.spool, "tasks", folder, f"{task_id}.json"))
                if record:
                    return record
            return None

        return self.wait_for(f"the end of `{task_id}`", look)


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
