"""The examples of scripts/README.md do what is said there."""

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import unittest

from support import PATIENCE_S, ROOT, Host


def examples():
    with open(os.path.join(ROOT, "scripts", "README.md"), encoding="utf-8") as page:
        return re.findall(r"^```python\n(.*?)^```$", page.read(), flags=re.DOTALL | re.MULTILINE)


class Examples(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name

    def script(self, number):
        path = os.path.join(self.folder, f"example-{number}.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(examples()[number])
        os.chmod(path, stat.S_IRWXU)
        return path

    def test_a_program_that_runs_once_for_each_task(self):
        notes = os.path.join(self.folder, "notes.txt")
        with open(notes, "w", encoding="utf-8") as file:
            file.write("three short words\n")
        self.assertEqual(self.run_once(0, input=notes)[-1], {"words": 3})

    def run_once(self, number, **args):
        """What a program that runs once says, as far as it is JSON."""
        done = subprocess.run(
            [self.script(number)],
            input=json.dumps(args) + "\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def test_a_program_that_goes_on_from_each_of_its_checkpoints(self):
        *said, result = self.run_once(2, numbers=[1, 2, 3])
        self.assertEqual(result, {"sum": 6})
        self.assertEqual([event["event"] for event in said], ["checkpoint"] * 3)
        for event in said:
            self.assertEqual(self.run_once(2, numbers=[1, 2, 3], checkpoint=event["state"])[-1], result)

    def test_a_host_that_serves_many_tasks(self):
        with Host(self.script(1), python=sys.executable) as host:
            self.assertEqual(host.next(), {"event": "ready"})
            self.assertEqual(host.result("one", text="three short words"), {"words": 3})
            self.assertEqual(host.result("two", text="two words"), {"words": 2})
            self.assertEqual(host.close(), 0)


if __name__ == "__main__":
    unittest.main()
