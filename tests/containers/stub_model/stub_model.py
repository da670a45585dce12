"""A minimal model image: it reads environment variables and CSV, and behaves as the variable MODE requires.

The ids that it predicts are in the variable IDS, since it has no library for Parquet, or those of a CSV table.
"""

import csv
import hashlib
import json
import math
import os
import random
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

MODE = os.environ.get("MODE", "good")
if "IDS" in os.environ:
    IDS = os.environ["IDS"].split(",")
else:
    with Path(os.environ["TESTING"]).open(encoding="utf-8", newline="") as table:
        IDS = [row["id"] for row in csv.DictReader(table)]


def write(header: str, predictions: list[float]) -> None:
    rows = [f"{row_id},{value}\n" for row_id, value in zip(IDS, predictions, strict=False)]
    Path(os.environ["PREDICTING"]).write_text(f"{header}\n{''.join(rows)}", encoding="ascii")


def finish(path: Path) -> None:
    content = path.read_bytes()
    manifest = {
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "inputs": os.environ["INPUTS"],
    }
    path.with_name(path.name + ".manifest.json").write_text(json.dumps(manifest), encoding="ascii")


generator = random.Random(os.environ["SEED"])
good = [round(generator.uniform(0.1, 0.9), 6) for _ in IDS]
print(f"[ 50 %] {os.environ['OPERATION']} with seed {os.environ['SEED']}")
if "WORD" in os.environ:
    print(f"word: {os.environ['WORD']}")
if MODE == "good":
    write("id,prediction", good)
elif MODE == "of 2018":
    write("id,probability", good)
elif MODE == "one missing":
    write("id,prediction", good[:-1])
elif MODE == "constant":
    write("id,prediction", [0.5] * len(IDS))
elif MODE == "not a number":
    write("id,prediction", [*good[:-1], math.nan])
    finish(Path(os.environ["PREDICTING"]))
elif MODE == "half":
    # ends in the middle of writing, as by a bug in native code
    content = "id,prediction\n" + "".join(f"{row_id},{value}\n" for row_id, value in zip(IDS, good, strict=True))
    Path(os.environ["PREDICTING"]).write_text(content[: len(content) // 2], encoding="ascii")
    print("half of the predictions are written")
    os.abort()
elif MODE == "nothing":
    pass
elif MODE in ("prepare", "prepare after go"):
    while MODE == "prepare after go" and not Path(os.environ["STORING"], "go").exists():
        time.sleep(0.1)
    # the outputs of a preprocessing task: files for later tasks, each with its manifest, and a report
    for output in (os.environ["STORING"] + "/tsne/map.txt", os.environ["REPORTING"]):
        path = Path(output)
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}", encoding="ascii")
        finish(path)
elif MODE == "use preprocessed":
    prepared = Path(os.environ["STORING"], "tsne/map.txt")
    print(f"prepared: {prepared.read_text(encoding='ascii')}")
    write("id,prediction", good)
    prepared.write_text("spoilt", encoding="ascii")
elif MODE == "peek":
    hidden = Path(os.environ["STORING"], "targets.parquet")
    print(f"found {len(hidden.read_bytes())} bytes of targets")
    write("id,prediction", good)
elif MODE == "bad data":
    print("training.parquet: column 'era' is missing (found: id)")
    sys.exit(65)
elif MODE == "bug":
    print("a division by zero")
    sys.exit(70)
elif MODE == "write inputs":
    Path(os.environ["TRAINING"]).write_text("spoilt", encoding="ascii")
elif MODE == "write predictions of another":
    Path(os.environ["STORING"], "predictions/svm.csv").write_text("spoilt", encoding="ascii")
elif MODE == "eat memory":
    eaten = bytearray(2**31)
    print(len(eaten))
elif MODE == "look around":
    # anything beyond the run: other networks, an engine, other files
    print(f"networks: {sorted(path.name for path in Path('/sys/class/net').iterdir())}")
    try:
        print(f"reached {socket.create_connection((os.environ['PROXY'], 2375), timeout=5)}")
    except OSError as error:
        print(f"not reached: {error.strerror}")
    print(f"sockets: {[str(path) for path in Path('/').glob('*/**/*.sock')]}")
    print(f"files: {sorted(str(path) for path in Path('/data').rglob('*') if path.is_file())}")
    print(f"above: {sorted(path.name for path in Path('/data/..').iterdir())}")
    write("id,prediction", good)
elif MODE == "wait":
    # until the test creates a file in the container
    print("waiting", flush=True)
    while not Path("/tmp/go").exists():  # noqa: S108 - a path of the container
        time.sleep(0.1)
    write("id,prediction", good)
elif MODE == "look at rights":
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    shared = shutil.disk_usage("/dev/shm").total  # noqa: S108 - a path of the container
    print(f"rights {status['CapBnd'].strip()}, user {os.getuid()}, shared memory {shared}")
    for place in ("/etc/spoilt", "/tmp/own", "/dev/shm/own"):  # noqa: S108 - a path of the container
        try:
            Path(place).touch()
            print(f"can write {place}")
        except OSError as error:
            print(f"cannot write {place}: {error.strerror}")
    for address in ("1.1.1.1", "172.17.0.1"):
        try:
            socket.create_connection((address, 53), timeout=2).close()
            print(f"can reach {address}")
        except OSError as error:
            print(f"cannot reach {address}: {error.strerror}")
    write("id,prediction", good)
elif MODE == "wait for file":
    while not Path(os.environ["STORING"], "go").exists():
        time.sleep(0.05)
    write("id,prediction", good)
elif MODE == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)
else:
    print(f"MODE {MODE!r} is not known")
    sys.exit(64)
