"""Do scripts give with flowmeter what they give with NFStream?

Every script in `scripts/` is run on the capture that `traffic.py` makes, as it is and with the library's
name changed in its imports, in a folder of its own. What the two have printed and written must be equal:
texts and integers exactly, fractions to 1e-6. Arguments are further captures, for some of the scripts.
"""

import difflib
import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import traffic

SCRIPTS = Path(__file__).with_name("scripts")
LIBRARIES = ("nfstream", "flowmeter")

#: Seconds for a script. NFStream waits for ever when a plugin has failed.
TIMEOUT = 120

#: Scripts whose lines are compared without their order, and why.
UNORDERED = {
    "44_unsorted_rows": "NFStream's meters are processes, and flows come in the order in which those end them",
}

#: Scripts that show what flows and packets have, but nothing of nDPI, whose version differs.
FOR_ANY_CAPTURE = (
    "13_numpy_in_udps",
    "18_cut_after_packets",
    "19_cut_after_time",
    "30_flow_picture",
    "31_plugins_in_a_row",
    "35_accounting_modes",
    "38_timeouts",
    "40_active_and_idle",
    "41_packet_log",
)

#: What NFStream needs instead, and why.
FOR_NFSTREAM = {
    "27_pool": (
        ("from multiprocessing import Pool", "from multiprocessing.pool import ThreadPool as Pool"),
        "its meters are processes, which daemonic ones are not allowed to have",
    ),
}

#: An import of the library or of something in it.
IMPORT = re.compile(r"^(?:import nfstream$|from nfstream(?=[. ]))", re.MULTILINE)

#: A number with a point, but not a part of an address.
FLOAT = re.compile(r"(?<![\w.:])-?\d+\.\d+(?:e[+-]?\d+)?(?![\w.:])|(?<![\w.:])-?\d+e-\d+(?![\w.:])")


def text_for(library, script):
    """The script as a user of the library has it."""
    text = script.read_text()
    if not IMPORT.search(text):
        raise AssertionError("it does not import the library")
    if library == "nfstream":
        (old, new), _ = FOR_NFSTREAM.get(script.stem, (("", ""), None))
        return text.replace(old, new)
    forms = {"import nfstream": f"import {library} as nfstream", "from nfstream": f"from {library}"}
    return IMPORT.sub(lambda found: forms[found[0]], text)


def run(library, script, capture, folder):
    """What the script prints and writes, by the name of its file."""
    folder = folder / script.stem / library
    (folder / "work").mkdir(parents=True)
    program = folder / script.name
    program.write_text(text_for(library, script))
    with open(folder / "stderr", "w+") as stderr:
        child = subprocess.Popen(
            [sys.executable, program, capture],
            cwd=folder / "work",
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            said, _ = child.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            # Meters of NFStream may be left.
            end_session(child)
        stderr.seek(0)
        if child.returncode != 0:
            raise AssertionError(f"with {library} it fails ({child.returncode}):\n{stderr.read()}")
    files = [path for path in (folder / "work").rglob("*") if path.is_file()]
    written = {str(path.relative_to(folder / "work")): path.read_bytes().decode() for path in files}
    return {"what is printed": said.decode(), **written}


def end_session(child):
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def difference(theirs, ours, is_ordered):
    """How two texts differ, or None."""
    theirs, ours = (text.split("\n") for text in (theirs, ours))
    if not is_ordered:
        theirs, ours = sorted(theirs), sorted(ours)
    if len(theirs) == len(ours) and all(map(is_same, theirs, ours)):
        return None
    same = [our if is_same(their, our) else their for their, our in zip(theirs, ours)]
    lines = difflib.unified_diff(same + theirs[len(same) :], ours, *LIBRARIES, lineterm="", n=0)
    return "\n".join(line for line, _ in zip(lines, range(12)))


def is_same(theirs, ours):
    """Lines: all that is no fraction exactly, fractions to 1e-6."""
    if theirs == ours:
        return True
    if FLOAT.split(theirs) != FLOAT.split(ours):
        return False
    pairs = zip(map(float, FLOAT.findall(theirs)), map(float, FLOAT.findall(ours)))
    return all(abs(their - our) <= 1e-6 * max(1, abs(their)) for their, our in pairs)


def compare(script, capture, folder):
    """Runs a script with both libraries. Gives the lines that are the same."""
    theirs, ours = (run(library, script, capture, folder) for library in LIBRARIES)
    if theirs.keys() != ours.keys():
        raise AssertionError(f"files {sorted(ours)}, not {sorted(theirs)}")
    for name, text in theirs.items():
        found = difference(text, ours[name], script.stem not in UNORDERED)
        if found is not None:
            raise AssertionError(f"{name} differs:\n{found}")
    lines = sum(text.count("\n") for text in theirs.values())
    if lines == 0:
        raise AssertionError("there is nothing to compare")
    return lines


def jobs(folder, captures):
    """Each script with a capture, and a folder to work in."""
    scripts = sorted(SCRIPTS.glob("*.py"))
    hour = folder / "hour.pcap"
    traffic.write(hour)
    yield from ((script, hour, folder / "hour") for script in scripts)
    for number, capture in enumerate(captures):
        for script in scripts:
            if script.stem in FOR_ANY_CAPTURE:
                yield script, Path(capture).resolve(), folder / str(number)


def main():
    faults = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        todo = jobs(Path(folder), sys.argv[1:])
        running = [(script, capture, pool.submit(compare, script, capture, at)) for script, capture, at in todo]
        for script, capture, result in running:
            try:
                said = f"{result.result()} lines are the same"
            except AssertionError as error:
                said = str(error)
                faults += 1
            print(f"{script.stem}, {capture.name}: {said}", flush=True)
    if faults:
        sys.exit(f"{faults} of {len(running)} runs differ")


if __name__ == "__main__":
    main()
