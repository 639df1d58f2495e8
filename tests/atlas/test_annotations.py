"""Notes that were acknowledged are kept, whatever ends the process."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sememe.atlas.annotations import NOTE_LENGTH, TAGS, Annotations
from sememe.errors import SememeError, UsageError


def opened(path: Path) -> Annotations:
    return Annotations(path / "annotations.sqlite", "d")


def test_notes_come_back(tmp_path: Path) -> None:
    notes = opened(tmp_path)
    notes.put(3, "a <b> \u202e note\nof lines", ["sea", " sea ", "ship"])
    notes.put(9, "", ["sea"])
    notes.put(3, "another", ["sea", "boat"])
    notes.close()
    notes = opened(tmp_path)
    found = notes.get(3)
    assert found is not None
    assert (found.note, found.tags) == ("another", ("sea", "boat"))
    assert notes.get(4) is None
    assert {item.feature for item in notes.all()} == {3, 9}
    assert notes.tags() == {"sea": 2, "boat": 1}
    assert sorted(notes.features("boat")) == [3]
    assert sorted(notes.features()) == [3, 9]
    assert notes.delete(3)
    assert not notes.delete(3)
    notes.put(9, "", [])
    assert notes.all() == []
    notes.close()


def test_wrong_notes_are_refused(tmp_path: Path) -> None:
    notes = opened(tmp_path)
    with pytest.raises(UsageError, match=f"note of {NOTE_LENGTH + 1} characters"):
        notes.put(1, "a" * (NOTE_LENGTH + 1), [])
    for tags in ([" "], ["a" * 65], list(map(str, range(TAGS + 1)))):
        with pytest.raises(UsageError, match="tags: expected at most"):
            notes.put(1, "", tags)
    assert notes.all() == []
    notes.close()


def test_notes_on_another_dictionary_are_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(SememeError, match="holds notes on dictionary d, this is e"):
        Annotations(tmp_path / "annotations.sqlite", "e")
    (tmp_path / "other").write_bytes(b"no database" * 100)
    with pytest.raises(SememeError, match="cannot be opened"):
        Annotations(tmp_path / "other", "d")


def test_threads_write_side_by_side(tmp_path: Path) -> None:
    notes = opened(tmp_path)

    def write(start: int) -> None:
        for number in range(start, start + 20):
            notes.put(number, f"note {number}", ["t"])

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {item.feature: item.note for item in notes.all()} == {
        number: f"note {number}" for start in (0, 100, 200) for number in range(start, start + 20)
    }
    notes.close()


WRITER = """
import sys
from pathlib import Path
from sememe.atlas.annotations import Annotations
notes = Annotations(Path(sys.argv[1]), "d")
start = int(sys.argv[2])
for number in range(start, start + 100_000):
    notes.put(number % 50, f"note {number}", [f"tag {number}"])
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "annotations.sqlite"
    start = 0
    for wait in (0.05, 0.2, 0.0, 0.1):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(start)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(wait)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = [start, *map(int, writer.stdout.read().split())]
        writer.stdout.close()
        writer.wait()
        last = acknowledged[-1]
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        notes = Annotations(path, "d")
        for number in range(max(last - 49, 0), last + 1):
            found = notes.get(number % 50)
            assert found is not None
            written = int(found.note.split()[1])
            # the one being written when it was killed may be there too
            assert written == number or written == last + 1
            assert found.tags == (f"tag {written}",)
        notes.close()
        database.close()
        start = last + 1
