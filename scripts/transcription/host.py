"""How a worker speaks to a loaded script: one JSON object a line.

    in   {"task_id":"…","attempt":1,"args":{…},"checkpoint":…}
         {"cancel":{"task_id":"…","attempt":1}}  {"yield":{"task_id":"…","attempt":1}}
    out  {"event":"ready","yields":true}  {"event":"progress",…}  {"event":"checkpoint","state":…}
         {"event":"result",…}  {"event":"error",…}  {"event":"yielded","state":…}

The model is loaded once, before `ready`. Tasks run one after the other. The end of stdin lets what was
received finish and then ends the host; SIGTERM ends it at once (outputs appear by rename, so nothing
half-written stays). Standard error is a free log; standard output belongs to the protocol alone.
"""

import json
import os
import queue
import signal
import sys
import threading
import traceback

from . import job
from .failure import BAD_INPUT, classify
from .partial import Left


class Channel:
    """The protocol's own standard output. Libraries that print get standard error instead."""

    def __init__(self):
        sys.stdout.flush()
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def say(self, event, **fields):
        line = json.dumps({"event": event} | fields, ensure_ascii=False)
        with self._lock:
            try:
                self._file.write(line + "\n")
                self._file.flush()
            except BrokenPipeError:
                # Nobody listens any more: the worker is gone, and so is every use of this process.
                os._exit(0)


class Inbox:
    """Tasks in the order they came, and cancels and yields, which must be heard while a task runs."""

    def __init__(self, channel):
        self._channel = channel
        self._tasks = queue.Queue()
        self._cancels = set()
        self._yields = set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in sys.stdin.buffer:
            if line.strip():
                self._take(line)
        self._tasks.put(None)

    def _take(self, line):
        try:
            message = json.loads(line)
            if isinstance(message.get("cancel"), dict):
                self._cancels.add(key(message["cancel"]))
                return
            if isinstance(message.get("yield"), dict):
                self._yields.add(key(message["yield"]))
                return
            key(message)
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            self._channel.say("error", task_id=None, attempt=None, **{"class": BAD_INPUT}, code="bad_request",
                              message=f"not a task, a cancel or a yield: {line[:200]!r} ({error!r})")  # fmt: skip
            return
        self._tasks.put(message)

    def tasks(self):
        while (message := self._tasks.get()) is not None:
            yield message

    def is_cancelled(self, task):
        return key(task) in self._cancels

    def is_to_leave(self, task):
        return key(task) in self._yields

    def forget(self, task):
        self._cancels.discard(key(task))
        self._yields.discard(key(task))


def key(message):
    return (str(message["task_id"]), int(message["attempt"]))


def serve(recogniser):
    """Runs the host until stdin ends; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    channel = Channel()
    try:
        recogniser.start()
    except Exception as error:
        failure = classify(error)
        if failure is not error:
            traceback.print_exc()
        code = failure.code if failure is error else "model_load_failed"
        channel.say("error", **{"class": failure.kind}, code=code, message=failure.message)
        return 1
    inbox = Inbox(channel)
    channel.say("ready", model=recogniser.model, script=recogniser.name, yields=True)
    for task in inbox.tasks():
        attend(recogniser, channel, inbox, task)
        inbox.forget(task)
    return 0


def attend(recogniser, channel, inbox, task):
    """Answers one task with exactly one `result`, `error` or `yielded`."""
    names = {"task_id": task["task_id"], "attempt": task["attempt"]}

    def tell(media_s, total_s, percent):
        channel.say("progress", **names, media_s=media_s, total_s=total_s, percent=percent)

    ear = job.Ear(
        tell,
        cancelled=lambda: inbox.is_cancelled(task),
        checkpoint=task.get("checkpoint"),
        keep=lambda state: channel.say("checkpoint", **names, state=state),
        asked=lambda: inbox.is_to_leave(task),
    )
    try:
        result = job.run(recogniser, task.get("args", {}), ear)
    except Left as left:
        channel.say("yielded", **names, state=left.state)
    except Exception as error:
        failure = classify(error)
        if failure is not error:
            traceback.print_exc()
        channel.say("error", **names, **{"class": failure.kind}, code=failure.code, message=failure.message)
    else:
        channel.say("result", **names, result=result)
