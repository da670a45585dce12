"""A model that takes some time: it logs ten lines a second, writes half a file at once and the rest at the end.

Its output depends on seed and operation only, so that runs with and without faults can be compared.
"""

import hashlib
import json
import os
import random
import time
from pathlib import Path

OPERATION, IDS = os.environ["OPERATION"], os.environ["IDS"].split(",")
TICKS = int(os.environ["TICKS"])


def write(path: Path, content: str) -> None:
    path.parent.mkdir(exist_ok=True)
    half = path.with_name(f".{path.name}.part")
    half.write_text(content[: len(content) // 2], encoding="ascii")
    for tick in range(TICKS):
        print(f"{OPERATION} {tick:03d}")
        time.sleep(0.1)
    half.write_text(content, encoding="ascii")
    half.rename(path)
    manifest = {
        "file": path.name,
        "sha256": hashlib.sha256(content.encode("ascii")).hexdigest(),
        "bytes": len(content),
        "inputs": os.environ.get("INPUTS"),
    }
    path.with_name(f"{path.name}.manifest.json").write_text(json.dumps(manifest), encoding="ascii")


generator = random.Random(os.environ["SEED"] + OPERATION)
rows = [f"{row_id},{round(generator.uniform(0.1, 0.9), 6)}\n" for row_id in IDS]
if "PREDICTING" in os.environ:
    write(Path(os.environ["PREDICTING"]), "id,prediction\n" + "".join(rows))
else:
    write(Path(os.environ["STORING"], os.environ["LEAVES"]), "".join(rows))
    TICKS = 0
    write(Path(os.environ["REPORTING"]), "{}")
