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
        done = subprocess.run(
            [self.script(0)],
            input=json.dumps({"input": notes}) + "\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout.splitlines()[-1]), {"words": 3})

    def test_a_host_that_serves_many_tasks(self):
        with Host(self.script(1), python=sys.executable) as host:
            self.assertEqual(host.next(), {"event": "ready"})
            self.assertEqual(host.result("one", text="three short words"), {"words": 3})
            self.assertEqual(host.result("two", text="two words"), {"words": 2})
            self.assertEqual(host.close(), 0)


if __name__ == "__main__":
    unittest.main()
