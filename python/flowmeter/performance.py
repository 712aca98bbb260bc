"""What does an interface's meter say while it goes on?"""

import contextlib
import json
import threading


@contextlib.contextmanager
def reported(run, seconds):
    """Prints what a run has counted every so many seconds, as NFStream does."""
    ended = threading.Event()
    reports = run.reports

    def report():
        while not ended.wait(seconds):
            counted = reports.ask()
            if counted is None:
                return
            print(json.dumps(_as_nfstream(json.loads(counted))), flush=True)

    printer = threading.Thread(target=report, name="flowmeter-report", daemon=True)
    printer.start()
    try:
        yield
    finally:
        ended.set()


def _as_nfstream(report):
    return {
        "flows_expired": report["flows_expired"],
        "packets_processed": report["packets_processed"],
        "packets_ignored": report["packets_ignored"],
        "packets_dropped_filtered_by_kernel": report["packets_lost"],
        # The kernel meters, on every processor, into one table.
        "meters_packets_processing_balance": [report["packets_processed"]],
    }
