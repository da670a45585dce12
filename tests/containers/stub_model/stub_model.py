"""A minimal model image: it reads environment variables and CSV, and behaves as the variable MODE requires.

With the variable MODEL it fits once, unless that directory has a finished fit, and predicts the live rows with it.
Without, it is an image of 2018: it trains every time and predicts the validation and the live rows.

The ids are in variables, since it has no library for Parquet: VALIDATION_IDS, and IDS for the live rows (``a,b;c,d,e``
for tables of different lengths). Without IDS they are those of a CSV table.
"""

import csv
import hashlib
import json
import math
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

MODE = os.environ.get("MODE", "good")
MODEL = Path(os.environ["MODEL"]) if "MODEL" in os.environ else None
STORING = Path(os.environ["STORING"])
OUTPUT = os.environ.get("OUTPUT", "tsne/map.txt")


def live_ids() -> list[str]:
    if "IDS" not in os.environ:
        with Path(os.environ["TESTING"]).open(encoding="utf-8", newline="") as table:
            return [row["id"] for row in csv.DictReader(table)]
    tables = {text.count(",") + 1: text.split(",") for text in os.environ["IDS"].split(";")}
    if len(tables) == 1:
        return next(iter(tables.values()))
    rows = json.loads(Path(os.environ["TESTING"] + ".manifest.json").read_text(encoding="ascii"))["rows"]
    return tables[rows if MODEL else rows - len(validation_ids())]


def validation_ids() -> list[str]:
    return os.environ["VALIDATION_IDS"].split(",") if "VALIDATION_IDS" in os.environ else []


def predictions_of(ids: list[str], seed: str) -> list[float]:
    """Predict each row by itself, as a model does."""
    digests = (hashlib.sha256(f"{seed} {row_id}".encode()).digest() for row_id in ids)
    return [round(0.1 + 0.8 * int.from_bytes(digest[:4], "big") / 2**32, 6) for digest in digests]


def write(path: Path, ids: list[str], predictions: list[float], header: str = "id,prediction") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{row_id},{value}\n" for row_id, value in zip(ids, predictions, strict=False)]
    path.write_text(f"{header}\n{''.join(rows)}", encoding="ascii")


def write_output(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="ascii")
    finish(path)


def finish(path: Path) -> None:
    content = path.read_bytes()
    manifest = {
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "inputs": os.environ["INPUTS"],
    }
    path.with_name(path.name + ".manifest.json").write_text(json.dumps(manifest), encoding="ascii")


def wait_for_go() -> None:
    """Wait until the test creates a file in the container."""
    print("waiting", flush=True)
    began = time.monotonic()
    while not Path("/tmp/go").exists():  # noqa: S108 - a path of the container
        time.sleep(0.05)
        if time.monotonic() - began > 1:
            # a model reports its progress
            print("still waiting", flush=True)
            began = time.monotonic()


def combined(folder: str) -> str:
    """Average the predictions of all models in a folder."""
    sums: dict[str, list[float]] = {}
    files = sorted(path for path in (STORING / folder).glob("*.csv") if not path.name.startswith("ensemble_"))
    print(f"{folder} of: {', '.join(path.stem for path in files)}.")
    for path in files:
        with path.open(encoding="utf-8", newline="") as table:
            for row in csv.DictReader(table):
                sums.setdefault(row["id"], []).append(float(row["prediction"]))
    return "id,prediction\n" + "".join(f"{row_id},{sum(values) / len(values)}\n" for row_id, values in sums.items())


def fit(model: Path) -> None:
    """Make the fit, in the order of the contract: the file that completes it is the last one."""
    print(f"fitting on {os.environ['TRAINING']} and {os.environ['VALIDATION']}")
    state = model / "saved" / "state.json"
    state.parent.mkdir(exist_ok=True)
    state.write_text("half of", encoding="ascii")
    if MODE == "wait at fit":
        wait_for_go()
    state.write_text(json.dumps({"seed": os.environ["SEED"]}), encoding="ascii")
    if "PREDICTING" in os.environ:
        ids = validation_ids()
        values = predictions_of(ids, os.environ["SEED"])
        write(model / "validation.csv", ids, values[:-1] if MODE == "fit without a row" else values)
        if MODE != "fit without a row":
            finish(model / "validation.csv")
    elif MODE == "combine":
        write_output(model / "validation" / "ensemble_mean.csv", combined("validation"))
    elif MODE != "fit without output":
        write_output(model / OUTPUT, "{}")
    spoil(model)
    write_output(model / "report.json", json.dumps({"seconds": 1.5}))
    if MODE == "fit without end":
        return
    if MODE == "fit with a link as its end":
        (model / "model.json").symlink_to("report.json")
        return
    (model / "model.json").write_text("{}", encoding="ascii")


def spoil(model: Path) -> None:
    """Add what a fit must not have, or what is nobody's business."""
    if MODE == "fit with a link":
        (model / "saved" / "passwd").symlink_to("/etc/passwd")
    elif MODE == "fit with a linked folder":
        (model / "plots").symlink_to("/data/predictions")
    elif MODE == "fit with a pipe":
        os.mkfifo(model / "saved" / "pipe")
    elif MODE == "fit with a piped manifest":
        (model / "validation.csv.manifest.json").unlink()
        os.mkfifo(model / "validation.csv.manifest.json")
    elif MODE == "fit with more files":
        for name in ("run.json", "tasks/xgboost.json", "predictions/xgboost.csv", "submissions/mine.json"):
            write_output(model / name, "spoilt")
        write_output(model / "plots" / "svm.png", "a picture")


def do_at_start() -> None:
    if MODE == "bad data":
        print("training.parquet: column 'era' is missing (found: id)")
        sys.exit(65)
    if MODE == "bug":
        print("a division by zero")
        sys.exit(70)
    if MODE == "write inputs":
        Path(os.environ["TRAINING"]).write_text("spoilt", encoding="ascii")
    if MODE == "write predictions of another":
        (STORING / "predictions" / "svm.csv").write_text("spoilt", encoding="ascii")
    if MODE == "eat memory":
        eaten = bytearray(2**31)
        print(len(eaten))
    if MODE == "prepare after go":
        while not (STORING / "go").exists():
            time.sleep(0.1)
    if MODE == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)


def look_around() -> None:
    """Search for anything beyond the run: other networks, an engine, other files."""
    print(f"networks: {sorted(path.name for path in Path('/sys/class/net').iterdir())}")
    try:
        print(f"reached {socket.create_connection((os.environ['PROXY'], 2375), timeout=5)}")
    except OSError as error:
        print(f"not reached: {error.strerror}")
    print(f"sockets: {[str(path) for path in Path('/').glob('*/**/*.sock')]}")
    print(f"files: {sorted(str(path) for path in Path('/data').rglob('*') if path.is_file())}")
    print(f"above: {sorted(path.name for path in Path('/data/..').iterdir())}")


def look_at_rights() -> None:
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


def do_before_predictions() -> None:
    if MODE == "use preprocessed":
        prepared = STORING / OUTPUT
        print(f"prepared: {prepared.read_text(encoding='ascii')}")
        try:
            prepared.write_text("spoilt", encoding="ascii")
        except OSError as error:
            print(error.strerror)
    elif MODE == "peek":
        hidden = STORING / "targets.parquet"
        print(f"targets: {len(hidden.read_bytes()) if hidden.exists() else 'none'}")
    elif MODE == "look around":
        look_around()
    elif MODE == "look at rights":
        look_at_rights()
    elif MODE == "wait for file":
        while not (STORING / "go").exists():
            time.sleep(0.05)
    elif MODE in ("wait", "wait before predict"):
        wait_for_go()


def predict(path: Path, ids: list[str], seed: str) -> None:
    good = predictions_of(ids, seed)
    if MODE == "of 2018":
        write(path, ids, good, "id,probability")
    elif MODE == "one missing":
        write(path, ids, good[:-1])
    elif MODE == "constant":
        write(path, ids, [0.5] * len(ids))
    elif MODE == "not a number":
        write(path, ids, [*good[:-1], math.nan])
        finish(path)
    elif MODE == "half":
        # ends in the middle of writing, as by a bug in native code
        write(path, ids, good)
        content = path.read_text(encoding="ascii")
        path.write_text(content[: len(content) // 2], encoding="ascii")
        print("half of the predictions are written")
        sys.stdout.flush()
        os.abort()
    elif MODE != "nothing":
        write(path, ids, good)


def main() -> None:
    """Fit, if it must, and predict."""
    print(f"[ 50 %] {os.environ['OPERATION']} with seed {os.environ['SEED']}")
    if "WORD" in os.environ:
        print(f"word: {os.environ['WORD']}")
    do_at_start()
    seed = os.environ["SEED"]
    ids = live_ids() if "PREDICTING" in os.environ else []
    if MODEL is None:
        ids = validation_ids() + ids
    else:
        if not (MODEL / "model.json").exists():
            fit(MODEL)
        else:
            tables = [name for name in ("TRAINING", "VALIDATION") if name in os.environ]
            print(f"predicting with a finished fit; tables of a fit: {', '.join(tables) or 'none'}")
            print(f"mounted: {', '.join(sorted(path.name for path in STORING.iterdir()))}")
        if MODE not in ("fit with a link as its end", "fit without end"):
            seed = json.loads((MODEL / "saved" / "state.json").read_text(encoding="ascii"))["seed"]
    do_before_predictions()
    if "PREDICTING" in os.environ:
        predict(Path(os.environ["PREDICTING"]), ids, seed)
    elif MODE == "combine":
        write_output(STORING / "predictions" / "ensemble_mean.csv", combined("predictions"))
    elif MODEL is None and MODE != "nothing":
        # the outputs of a preprocessing task of 2018: files for later tasks, each with its manifest, and a report
        for path in (STORING / OUTPUT, Path(os.environ["REPORTING"])):
            write_output(path, "{}")


KNOWN = (
    *("good", "of 2018", "one missing", "constant", "not a number", "half", "nothing", "prepare", "prepare after go"),
    *("use preprocessed", "peek", "bad data", "bug", "write inputs", "write predictions of another", "eat memory"),
    *("look around", "look at rights", "wait", "wait for file", "wait at fit", "wait before predict", "hang"),
    *("combine", "fit without a row", "fit without output", "fit without end", "fit with a link"),
    *("fit with a link as its end", "fit with a linked folder", "fit with a pipe", "fit with a piped manifest"),
    "fit with more files",
)
if MODE not in KNOWN:
    print(f"MODE {MODE!r} is not known")
    sys.exit(64)
main()
