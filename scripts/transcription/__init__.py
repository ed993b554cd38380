"""What every transcription script shares, whichever recogniser it uses.

    stdin ─► host ─┐                                   ┌─► media    (ffmpeg → samples)
                   ├─► arguments ─► job ─► recogniser ─┤
    shell ─► command_line ─┘          └─► outputs (txt, srt, vtt, json)

- ``host``          one JSON object a line: how a worker speaks to a loaded script
- ``command_line``  how a person speaks to it
- ``arguments``     what a task may ask for, checked before anything is opened
- ``media``         a media file becomes 16 kHz mono samples
- ``outputs``       transcripts become files, whole or not at all
- ``job``           one task from its arguments to its result

Not here: any recogniser. Each script brings its own, a ``Recogniser``. Standard library only.
"""
