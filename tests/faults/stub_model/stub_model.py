"""A model that takes some time: it logs ten lines a second, writes half a file at once and the rest at the end.

With MODEL it fits, unless that directory has a finished fit, loads the fit and predicts; each of the three takes its
time and has its own lines. Its output depends on seed and operation only, so that runs with and without faults can be
compared.
"""

import hashlib
import json
import os
import random
import time
from pathlib import Path

OPERATION = os.environ["OPERATION"]
LIVE_IDS = os.environ["IDS"].split(",")
VALIDATION_IDS = os.environ["VALIDATION_IDS"].split(",") if "VALIDATION_IDS" in os.environ else []
TICKS, LATER_TICKS = int(os.environ["TICKS"]), int(os.environ.get("LATER_TICKS", "0"))


def tick(count: int, phase: str = "") -> None:
    for number in range(count):
        print(f"{OPERATION} {phase}{number:03d}")
        time.sleep(0.1)


def write(path: Path, content: str, ticks: int = 0, phase: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.part")
    half.write_text(content[: len(content) // 2], encoding="ascii")
    tick(ticks, phase)
    half.write_text(content, encoding="ascii")
    half.rename(path)
    manifest = {
        "file": path.name,
        "sha256": hashlib.sha256(content.encode("ascii")).hexdigest(),
        "bytes": len(content),
        "inputs": os.environ.get("INPUTS"),
    }
    path.with_name(f"{path.name}.manifest.json").write_text(json.dumps(manifest), encoding="ascii")


def rows(ids: list[str], kind: str) -> str:
    generator = random.Random(os.environ["SEED"] + OPERATION + kind)
    return "".join(f"{row_id},{round(generator.uniform(0.1, 0.9), 6)}\n" for row_id in ids)


def predictions(ids: list[str], kind: str) -> str:
    return "id,prediction\n" + rows(ids, kind)


def fit(model: Path) -> None:
    if "PREDICTING" in os.environ:
        write(model / "validation.csv", predictions(VALIDATION_IDS, "validation"), TICKS)
    else:
        write(model / os.environ["LEAVES"], rows(LIVE_IDS, "leaves"), TICKS)
    write(model / "report.json", "{}")
    (model / "model.json").write_text("{}", encoding="ascii")


def main() -> None:
    """Fit, if it must, and predict."""
    if "MODEL" in os.environ:
        model = Path(os.environ["MODEL"])
        if not (model / "model.json").exists():
            fit(model)
        if "PREDICTING" in os.environ:
            tick(LATER_TICKS, "loading ")
            content = predictions(LIVE_IDS, "live")
            write(Path(os.environ["PREDICTING"]), content, LATER_TICKS, "predicting ")
    elif "PREDICTING" in os.environ:
        write(Path(os.environ["PREDICTING"]), predictions(VALIDATION_IDS + LIVE_IDS, "all"), TICKS)
    else:
        write(Path(os.environ["STORING"], os.environ["LEAVES"]), rows(LIVE_IDS, "leaves"), TICKS)
        write(Path(os.environ["REPORTING"]), "{}")


main()
