"""The page ``docs/results/scale.md`` from the measurements of ``benchmarks/scale.py``: tables, exponents, schedules."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numerai_pipeline.models.registry import Registry

_UNPACK, _LAST = "unzip", "evaluate"
# a machine on paper: how many of them, and their cores
_MACHINES = ((1, 2), (1, 8), (1, 32), (4, 8))
_FEATURES = {"small": 42, "medium": 780, "all": 3_555}


class Cost(NamedTuple):
    """What a task needs: seconds that one core works alone, and seconds of work that all its cores share."""

    serial: float
    parallel: float

    @classmethod
    def of(cls, measured: Mapping[str, float], factor: float = 1.0) -> Cost:
        """Derive it from seconds and processor seconds on a number of cores (Amdahl's law), times a factor.

        With c cores, seconds = serial + parallel / c and processor seconds = serial + parallel.
        """
        seconds, worked = measured["seconds"], measured["processor_seconds"]
        cores = measured["cores"]
        if cores == 1:
            # not measured on more cores: all of it counts as serial
            return cls(seconds * factor, 0.0)
        parallel = min(max((worked - seconds) * cores / (cores - 1), 0.0), seconds * cores)
        return cls((seconds - parallel / cores) * factor, parallel * factor)

    def seconds(self, cores: int) -> float:
        """Return its duration on a number of cores."""
        return self.serial + self.parallel / cores


def schedule(durations: Mapping[str, float], cores: Mapping[str, int], registry: Registry, pools: list[int]) -> float:
    """Return the duration of a run: each task starts when its upstream tasks are done and a machine has its cores free.

    Of several ready tasks, the one with the longest chain of tasks after it starts first.
    """
    upstream = {name: [each for each in registry.upstream(name) if each in durations] for name in durations}
    chain: dict[str, float] = {}
    for name in reversed(list(durations)):
        after = [chain[other] for other in durations if name in upstream[other]]
        chain[name] = durations[name] + max(after, default=0.0)
    free, running = list(pools), {}  # type: ignore[var-annotated]
    done: set[str] = set()
    waiting, now = set(durations), 0.0
    while waiting or running:
        for name in sorted(waiting, key=lambda each: -chain[each]):
            machine = int(np.argmax(free))
            need = min(cores[name], max(pools))
            if all(each in done for each in upstream[name]) and free[machine] >= need:
                free[machine] -= need
                running[name] = (now + durations[name], machine, need)
                waiting.discard(name)
        name, (now, machine, need) = min(running.items(), key=lambda item: item[1][0])
        free[machine] += need
        del running[name]
        done.add(name)
    return now


def longest_chain(durations: Mapping[str, float], registry: Registry) -> tuple[float, list[str]]:
    """Return the seconds and the tasks of the longest chain of a run."""
    best: dict[str, tuple[float, list[str]]] = {}
    for name in durations:
        before = [best[each] for each in registry.upstream(name) if each in best]
        seconds, tasks = max(before, default=(0.0, []))
        best[name] = (seconds + durations[name], [*tasks, name])
    return max(best.values())


def write_page(results: Mapping[str, Any], registry: Registry) -> str:
    """Write the page."""
    lines = ["# Time and memory at the tournament's size", ""]
    lines += _text(
        "Made by `benchmarks/scale.py`; do not edit. Each task's container ran one after the other, as a pipeline run"
        " starts it, on the tables of a practice season with as many eras, rows and features as Numerai's v5.3 in July"
        " 2026. Other work on the machine may have slowed them; it hardly affects *processor s*, the time of all cores."
        " A fit here is everything that the first run of a week does: fit, predictions of the validation table, final"
        " fit, predictions of 6,700 live rows. *MiB* is the peak of anonymous memory and tmpfs of the container,"
        " sampled once a second."
    )
    for feature_set in _FEATURES:
        lines += _sizes(results.get("sizes", {}), feature_set, registry)
    if "run" in results:
        lines += _run(results["run"], registry)
    lines += _on_paper(results.get("sizes", {}), registry)
    return "\n".join(lines) + "\n"


def _text(text: str) -> list[str]:
    return textwrap.wrap(text, 120)


def _sections(sizes: Mapping[str, Any], feature_set: str) -> list[dict[str, Any]]:
    found = [section for section in sizes.values() if section["feature_set"] == feature_set]
    return sorted(found, key=_total)


def _total(section: Mapping[str, Any]) -> int:
    rows: Mapping[str, int] = section["rows"]
    return rows["training"] + rows["validation"]


def _sizes(sizes: Mapping[str, Any], feature_set: str, registry: Registry) -> Iterator[str]:
    sections = _sections(sizes, feature_set)
    if not sections:
        return
    largest = sections[-1]
    yield from ("", f"## Feature set {feature_set}", "")
    shown = [f"{each['rows']['training']:,} + {each['rows']['validation']:,}" for each in sections]
    about = f"On {largest['machine']}; searches had {largest['automl_minutes']} minutes. Rows: training + validation."
    if any(each["every_nth_era"] > 1 for each in sections):
        about += " Every fourth era only, at its full size; the schedules below are computed from the exponents."
    yield from _text(about)
    yield ""
    yield "| task | " + " | ".join(f"{rows}, s" for rows in shown) + " | exponent | processor s | MiB | limit |"
    yield "|---|" + "---:|" * (len(sections) + 4)
    for spec in registry:
        cells = [_seconds(section["tasks"].get(spec.name)) for section in sections]
        found = largest["tasks"].get(spec.name)
        if found is None and not any(cells):
            continue
        exponent = _exponent(sections, spec.name)
        power = "" if exponent is None or spec.search_parts else f"{exponent:.2f}"
        last = (
            ["", "", ""]
            if found is None
            else [f"{found['processor_seconds']:,.0f}", f"{found['memory']:,.0f}", f"{found['limit']:,}"]
        )
        yield f"| `{spec.name}` | " + " | ".join([*cells, power, *last]) + " |"
    yield from ("", *_text("The exponent is that of the rows in the seconds, fitted to all sizes of a task."))


def _seconds(measured: Mapping[str, Any] | None) -> str:
    if measured is None:
        return ""
    failed = f" (exit code {measured['exit_code']})" if measured["exit_code"] else ""
    return f"{measured['seconds']:,.0f}{failed}"


def _exponent(sections: list[dict[str, Any]], task: str) -> float | None:
    """Fit log seconds against log rows."""
    points = [
        (_total(section), section["tasks"][task]["seconds"])
        for section in sections
        if task in section["tasks"] and not section["tasks"][task]["exit_code"]
    ]
    if len(points) < 2:
        return None
    rows, seconds = np.log(np.array(points)).T
    return float(np.polyfit(rows, seconds, 1)[0])


def _run(run: Mapping[str, Any], registry: Registry) -> Iterator[str]:
    tasks = run["tasks"]
    durations = {spec.name: tasks[spec.name]["seconds"] for spec in registry if spec.name in tasks}
    pool = int(run["machine"].split()[0])
    cores = {spec.name: spec.cores_of(pool) for spec in registry}
    ended = max(each["start"] + each["seconds"] for each in tasks.values())
    before = max((each["start"] + each["seconds"] for name, each in tasks.items() if name == _UNPACK), default=0.0)
    chain, names = longest_chain(durations, registry)
    work = sum(seconds * cores[name] for name, seconds in durations.items()) / pool
    ideal = before + max(chain, work)
    yield from ("", "## A whole run", "")
    yield from _text(
        f"`make run` with the feature set small on {run['machine']}: {ended / 60:,.0f} min from the start of the run"
        f" to its last task, {ended / ideal:.2f} times the ideal schedule of {ideal / 60:,.0f} min. The ideal is the"
        f" {before:,.0f} s until the data is unpacked, and then the longer one of the longest chain ({chain / 60:,.0f}"
        f" min: {', '.join(names)}) and of the work of all tasks divided by the cores ({work / 60:,.0f} min)."
    )
    yield from ("", "| task | state | starts at, s | seconds |", "|---|---|---:|---:|")
    for name, each in sorted(tasks.items(), key=lambda item: item[1]["start"]):
        yield f"| `{name}` | {each['state']} | {each['start']:,.0f} | {each['seconds']:,.0f} |"


def _on_paper(sizes: Mapping[str, Any], registry: Registry) -> Iterator[str]:
    measured = {name: _whole_costs(sizes, name, registry) for name in _FEATURES}
    if len(measured["small"]) < len(registry.tasks):
        return  # a schedule needs every task
    yield from ("", "## On paper: more features, cores and machines", "")
    yield from _text(
        "Computed from the measurements above. A task's seconds on c cores are serial + parallel / c (Amdahl's law),"
        " from its seconds and processor seconds on the cores that it had; a task that was measured on one core"
        " counts as serial. A size that was measured on a part of the eras is extrapolated by the exponent of the"
        " rows, or in proportion to them where it was measured once. Machines share tasks as Celery's workers do: a"
        " task runs on one machine, with its share of that machine's cores. *Bottleneck* is the longest chain where"
        " it takes more than nine tenths of the run, and otherwise the cores."
    )
    heads = [f"{count} x {cores} cores" if count > 1 else f"{cores} cores" for count, cores in _MACHINES]
    yield from ("", "| feature set | tasks | " + " | ".join(heads) + " |", "|---|---:|" + "---|" * len(heads))
    for feature_set, costs in measured.items():
        if not costs:
            continue
        cells = []
        for count, machine_cores in _MACHINES:
            cores = {spec.name: spec.cores_of(machine_cores) for spec in registry}
            durations = {name: cost.seconds(cores[name]) for name, cost in costs.items()}
            whole = schedule(durations, cores, registry, [machine_cores] * count)
            chain, names = longest_chain(durations, registry)
            bottleneck = f"`{max(names, key=lambda name: durations[name])}`" if chain > 0.9 * whole else "cores"
            cells.append(f"{whole / 60:,.0f} min ({bottleneck})")
        yield f"| {feature_set} | {len(costs)} | " + " | ".join(cells) + " |"


def _whole_costs(sizes: Mapping[str, Any], feature_set: str, registry: Registry) -> dict[str, Cost]:
    """Return the costs of the tasks at the full size of a feature set, in topological order."""
    sections = _sections(sizes, feature_set)
    full = max((_total(section) for section in _sections(sizes, "small")), default=0)
    costs = {}
    for spec in registry:
        known = [section for section in sections if not section["tasks"].get(spec.name, {"exit_code": 1})["exit_code"]]
        if not known:
            continue
        ratio = full / _total(known[-1])
        exponent = 0.0 if spec.search_parts else _exponent(sections, spec.name) or 1.0
        costs[spec.name] = Cost.of(known[-1]["tasks"][spec.name], math.pow(ratio, exponent))
    return costs
