"""A worker process of this machine: `python -m mergepipe.executors.worker FD`, a socket to obey.

It gets a spec, or a segment, and tells what came of it, until the other side is gone.
"""

import errno
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from mergepipe.errors import MergepipeError
from mergepipe.executors.bench import Bench
from mergepipe.executors.crews import FEWER, Damaged, Failed, Heard, Lost, News
from mergepipe.executors.segments import NeedsRepair, Segment, WorkerSpec


def serve(line: Connection) -> None:
    """Obey until the line is closed."""
    # Ctrl-C reaches every process of the terminal; the coordinator says what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _end())
    bench = Bench()
    spec: WorkerSpec | None = None
    try:
        while True:
            message = line.recv()
            if isinstance(message, Segment):
                assert spec is not None
                line.send(news_of(bench, message, spec, line.send))
            elif message is None:
                bench.close()  # between one run and the next nothing is open
            else:
                spec = message
    except (EOFError, OSError):
        pass  # the coordinator is done, or gone
    finally:
        bench.close()


def _end() -> None:
    raise EOFError


def news_of(
    bench: Bench,
    segment: Segment,
    spec: WorkerSpec,
    tell: Callable[[Heard], None] = lambda heard: None,
) -> News:
    """What came of a segment, as it may travel.

    Errors of ours go as they are, others as text with where they came from. Memory that is not
    there may be there elsewhere, or later: that is the end of this worker, not of the merge.
    """
    try:
        bench.begin(spec)
        return bench.run(
            segment, lambda made_bytes, read: tell(Heard(segment.number, made_bytes, read))
        )
    except NeedsRepair:
        return Damaged(segment.number, bench.heard()[1])
    except (EOFError, BrokenPipeError):
        raise
    except MemoryError:
        return _out_of_memory(segment, bench)
    except MergepipeError as error:
        return Failed(segment.number, error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return _out_of_memory(segment, bench)
        text = "".join(traceback.format_exception(error))
        return Failed(segment.number, RuntimeError(f"a worker failed:\n{text}"))


def _out_of_memory(segment: Segment, bench: Bench) -> Lost:
    return Lost(segment.number, f"{bench.host} had no memory left", FEWER)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
