"""Do the examples in the documentation run? The arguments are the document and a capture."""

import os
import re
import shutil
import sys
import tempfile

DOCUMENT, CAPTURE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])

with open(DOCUMENT, encoding="utf-8") as file:
    examples = re.findall(r"^```python\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL)
assert len(examples) >= 3, "the document has no examples"
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    shutil.copy(CAPTURE, "capture.pcap")
    for number, example in enumerate(examples):
        exec(compile(example, f"{DOCUMENT}, example {number}", "exec"), {"__name__": "__main__"})
    assert os.path.exists("flows.parquet")
print(f"{len(examples)} examples run")
