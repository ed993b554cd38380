"""How often the disk is asked to keep something, for a hundred tasks at each durability level; strace counts.

    scripts/setup --need strace && cargo build && python3 -m unittest discover -s tests/durability

`process` trusts the kernel: no task costs a sync. `power` trusts only what was synced: no submit and no finish goes
without, but those that come at the same time share what can be shared. Every sync is made to take as long as on a
turning disk, so that sharing shows on any disk and under any load. The programs are found as in `tests/embedded`.
"""

import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), os.path.join(TARGET, "debug"), os.path.join(TARGET, "release")]
)
HOST = os.path.join(ROOT, "tests", "fixtures", "scripts", "warm_host.py")

SUBMITTED, DROPPED = 100, 10
TASKS = [f"submitted-{number:03}" for number in range(SUBMITTED)]
TASKS += [f"dropped-{number:03}" for number in range(DROPPED)]
# What one sync takes at least: as on a turning disk.
SYNC_US = 20_000
# Syncs of a start and an end that no task is to blame for: the epoch, the first picture, two births and two burials
# of a worker's folder, what was learned. Seventeen at most were seen.
BESIDES_MAX = 30
# Names and logs that a finish needs on the disk, beside its record: the outbox, the orders, `complete`, `processing`.
# One of each for every task if nothing were shared. Of finishes at the same time a quarter of that is allowed; a
# twentieth is usual. (One after the other they share less, the less the busier the machine.)
SHARED = ("outbox folder", "orders", "complete", "processing")
SHARED_MAX = len(SHARED) * len(TASKS) // 4
# A script of one task a process that ends when it gets a line through the gate.
GATED = """#!/bin/sh
echo >> '{began}'
read -r line < '{gate}'
echo '{{}}'
"""

# Long enough for a loaded machine; nothing waits this long unless it hangs.
PATIENCE_S = 60
LOOK_EVERY_S = 0.02

CALL = re.compile(r"\b(?P<call>fsync|fdatasync|syncfs)\(\d+<(?P<path>[^>]*?)(?: \(deleted\))?>")
# Which room of the spool a synced path is in; the first that fits.
ROOMS = [
    ("staged file", re.compile(r"tasks/\.stage/.+")),
    ("queue", re.compile(r"tasks/[^/]+_queue/priority_\d")),
    ("record", re.compile(r"workers/[^/]+/outbox/(?P<task>.+)\.\d+\.json")),
    ("outbox folder", re.compile(r"workers/[^/]+/outbox")),
    ("orders", re.compile(r"workers/[^/]+/orders\.jsonl")),
    ("reports", re.compile(r"workers/[^/]+/reports\.jsonl")),
    ("complete", re.compile(r"tasks/complete")),
    ("processing", re.compile(r"tasks/processing")),
    ("another of tasks", re.compile(r"tasks/.*")),
    ("besides", re.compile(r".*")),
]


class Sync:
    """One call, by the room and, where its file is of one task, the task."""

    def __init__(self, call, path):
        self.call = call
        for self.room, pattern in ROOMS:
            found = pattern.fullmatch(path)
            if found:
                self.task = found.groupdict().get("task")
                return


class Machine:
    """A spool, a brain on one simulated GPU, and a warm host; strace counts."""

    def __init__(self, test, durability):
        self.test = test
        scratch = tempfile.TemporaryDirectory(prefix="gpuspool-syncs-")
        test.addCleanup(scratch.cleanup)
        self.folder = scratch.name
        self.spool = os.path.join(self.folder, "spool")
        config = os.path.join(self.folder, "config.json")
        self.gate = Gate(self.folder)
        test.addCleanup(self.gate.close)
        scripts = {"warm": {"path": HOST, "host": "warm"}, "gated": {"path": self.gate.script, "host": "once"}}
        timing = {"orphan_ttl_s": 10, "kill_grace_s": 0.5, "cooling_s": 0.05}
        write(config, {"durability": durability, "scripts": scripts, "timing": timing, "cpu_slots": len(TASKS)})
        self.environment = os.environ | {"GPUSPOOL_SPOOL": self.spool, "GPUSPOOL_CONFIG": config}
        self.log = open(os.path.join(self.folder, "brain.log"), "w+", encoding="utf-8")
        test.addCleanup(self.log.close)
        command = self.traced("brain", "--gpus", "simulated:8192")
        streams = {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log}
        self.brain = subprocess.Popen(command, env=self.environment, start_new_session=True, **streams)
        test.addCleanup(self.end)
        self.wait_for("the worker is seen", lambda: self.picture() and self.picture()["gpus"]["0"]["worker_pid"])

    def traced(self, name, *words):
        return [
            "strace", "-f", "-y", "-qq", "--seccomp-bpf", "-e", "trace=fsync,fdatasync,syncfs", "-e", "signal=none",
            "-e", f"inject=fsync,fdatasync,syncfs:delay_exit={SYNC_US}", "-o", self.trace(name), program(name), *words,
        ]  # fmt: skip

    def trace(self, name):
        return os.path.join(self.folder, f"{name}.trace")

    def syncs(self, name):
        """All syncs of a program and of what it started, in their order."""
        with open(self.trace(name), encoding="utf-8", errors="replace") as trace:
            calls = [CALL.search(line) for line in trace]
        return [Sync(call["call"], os.path.relpath(call["path"], self.spool)) for call in calls if call]

    def submit(self, tasks):
        """Many in one call."""
        files = [os.path.join(self.folder, f"{task['task_id']}.json") for task in tasks]
        for task, path in zip(tasks, files):
            write(path, task)
        command = self.traced("gpuspool", "submit", *files)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S)
        self.test.assertEqual(done.returncode, 0, done.stderr)

    def drop(self, task):
        """As `mv` does."""
        name = f"{task['task_id']}.json"
        outside = os.path.join(self.folder, name)
        write(outside, task)
        os.rename(outside, os.path.join(self.spool, "tasks", "script_queue", "priority_3", name))

    def complete(self):
        names = os.listdir(os.path.join(self.spool, "tasks", "complete"))
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def picture(self):
        try:
            with open(os.path.join(self.spool, "gpu_state.json"), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    def wait_for(self, what, look):
        deadline = time.monotonic() + PATIENCE_S
        while not look():
            self.test.assertIsNone(self.brain.poll(), f"the brain ended before {what}: {self.words()}")
            self.test.assertLess(time.monotonic(), deadline, f"it never came to: {what}: {self.words()}")
            time.sleep(LOOK_EVERY_S)

    def words(self):
        with open(self.log.name, encoding="utf-8") as log:
            return log.read()[-2000:]

    def end(self):
        """Frees the machine; strace ends with the last process that it follows."""
        if self.brain.poll() is None:
            command = [program("gpuspool"), "down", "--now"]
            subprocess.run(command, env=self.environment, capture_output=True, timeout=PATIENCE_S)
        try:
            self.brain.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.brain.pid, 9)
            self.brain.wait()
            raise


class Gate:
    """Lets waiting scripts end, all at the same time."""

    def __init__(self, folder):
        gate, self.log, self.script = (os.path.join(folder, name) for name in ("gate", "began.log", "gated.sh"))
        os.mkfifo(gate)
        # Open for both: who waits at it neither waits for a writer nor sees its end.
        self.pipe = os.open(gate, os.O_RDWR)
        with open(self.script, "w", encoding="utf-8") as file:
            file.write(GATED.format(began=self.log, gate=gate))
        os.chmod(self.script, 0o755)

    def waiting(self):
        try:
            return os.path.getsize(self.log)
        except FileNotFoundError:
            return 0

    def open(self, count):
        os.write(self.pipe, b"\n" * count)

    def close(self):
        os.close(self.pipe)


class Syncs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("strace"):
            raise AssertionError("there is no strace: run scripts/setup --need strace")
        tried = subprocess.run(["strace", "-f", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True)
        if tried.returncode:
            raise AssertionError(f"strace may not trace here (in a container: allow ptrace): {tried.stderr}")

    def hundred(self, durability, at_once=False):
        """The syncs of the submits, and those of brain, worker and scripts."""
        machine = Machine(self, durability)
        how = {"script": "gated", "gpu_requirement": "none"} if at_once else {"script": "warm"}
        tasks = [{"task_id": name, **how} for name in TASKS]
        machine.submit(tasks[:SUBMITTED])
        for task in tasks[SUBMITTED:]:
            machine.drop(task)
        if at_once:
            machine.wait_for("all wait at the gate", lambda: machine.gate.waiting() >= len(TASKS))
            machine.gate.open(len(TASKS))
        machine.wait_for("all are complete", lambda: len(machine.complete()) >= len(TASKS))
        self.assertEqual(machine.complete(), set(TASKS))
        machine.end()
        submit, finish = machine.syncs("gpuspool"), machine.syncs("brain")
        show(f"`{durability}`, {'at the same time' if at_once else 'one after the other'}", submit, finish)
        return submit, finish

    def test_against_the_death_of_processes_no_task_costs_a_sync(self):
        submit, finish = self.hundred("process")
        self.assertEqual(rooms(submit), {})
        counts = rooms(finish)
        besides = counts.pop("besides")
        self.assertEqual(counts, {}, "syncs for tasks")
        self.assertLessEqual(besides, BESIDES_MAX)

    def test_against_a_power_cut_every_submit_and_every_finish_is_synced(self):
        submit, finish = self.hundred("power")
        self.assert_covered(submit, finish)

    def test_finishes_at_the_same_time_share_their_syncs(self):
        submit, finish = self.hundred("power", at_once=True)
        self.assert_covered(submit, finish)
        counts = rooms(finish)
        self.assertLess(sum(counts[room] for room in SHARED), SHARED_MAX, counts)

    def assert_covered(self, submit, finish):
        # A submit: its content, then its name; the names of all in one go.
        counts = rooms(submit)
        self.assertEqual(counts["staged file"], SUBMITTED)
        self.assertEqual(submit[-1].room, "queue", "names are synced after what they name")
        self.assertLess(len(submit) - SUBMITTED, 10, counts)

        # A finish: its record and its name in the outbox, then its name in `complete`.
        self.assertEqual({sync.task for sync in finish if sync.room == "record"}, set(TASKS))
        order = [sync.room for sync in finish]
        last_record = len(order) - 1 - order[::-1].index("record")
        self.assertIn("complete", order[last_record + 1 :], "the last end was not synced")
        counts = rooms(finish)
        for room in SHARED:
            self.assertGreater(counts[room], 0, f"{room} was never synced")
        self.assertLess(counts["record"], len(TASKS) + 10, "a record is synced once")
        self.assertEqual(counts["reports"], 0, "what a report says can be read from the outbox")
        self.assertLessEqual(counts["besides"], BESIDES_MAX)


def rooms(syncs):
    return collections.Counter(sync.room for sync in syncs)


def show(title, submit, finish):
    """The counts as a table: what the submits cost, then what brain and worker did."""
    calls = ("fsync", "fdatasync", "syncfs")
    lines = [f"{title}: {SUBMITTED} submits, {DROPPED} drops, {len(TASKS)} finishes"]
    lines.append(f"  {'':8}{'':18}" + "".join(f"{call:>11}" for call in calls))
    for who, syncs in (("submit", submit), ("finish", finish)):
        counts = collections.Counter((sync.room, sync.call) for sync in syncs)
        for room, _ in ROOMS:
            row = [counts[room, call] for call in calls]
            if any(row):
                lines.append(f"  {who:8}{room:18}" + "".join(f"{count:11}" for count in row))
        row = [sum(sync.call == call for sync in syncs) for call in calls]
        lines.append(f"  {who:8}{'all':18}" + "".join(f"{count:11}" for count in row))
    print("\n" + "\n".join(lines), file=sys.stderr, flush=True)


def write(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def program(name):
    found = shutil.which(name, path=PATH)
    if not found:
        raise AssertionError(f"there is no `{name}` on PATH or in {TARGET}; see the top of this file")
    return found


if __name__ == "__main__":
    unittest.main()
