// The leaderboard's page: reads the responses of the application (or of the file) and draws them.
//
// Names and texts come from files that containers wrote. They are only inserted as text: `make` creates nodes without
// HTML, and the charts draw their texts on a canvas.
"use strict";

// ---- reading -------------------------------------------------------------------------------------------------------

const answers = (() => {
  const element = document.getElementById("answers");
  return element === null ? null : JSON.parse(element.textContent);
})();

class RequestError extends Error {}

async function request(address) {
  if (answers !== null) {
    if (address in answers) return answers[address];
    throw new RequestError("This file does not contain it.");
  }
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin", headers: { Accept: "application/json" } });
  } catch {
    throw new RequestError("Airflow is unreachable. Check that its API server is running.");
  }
  if (response.status === 401) throw new RequestError("You are signed out. Sign in to Airflow again, and reload this page.");
  const content = await response.json().catch(() => null);
  if (!response.ok) {
    const detail = content !== null && typeof content.detail === "string" ? content.detail : `Airflow answered ${response.status}.`;
    throw new RequestError(detail);
  }
  return content;
}

const runAddress = (run, ...more) => ["api/runs", run.round, run.run, ...more].map((part, place) =>
  place === 0 ? part : encodeURIComponent(part)).join("/");

// ---- texts and numbers ---------------------------------------------------------------------------------------------

const NONE = "–";
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const digits = (count) => (value) => value.toLocaleString("en", { minimumFractionDigits: count, maximumFractionDigits: count });
const signed = (count) => (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + digits(count)(Math.abs(value));
const percent = (value) => `${(100 * value).toLocaleString("en", { maximumFractionDigits: 0 })} %`;
const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });

function duration(seconds) {
  if (seconds < 10) return `${digits(1)(seconds)} s`;
  if (seconds < 60) return `${whole(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  if (minutes < 60) return `${minutes} min`;
  return `${whole(Math.floor(minutes / 60))} h ${String(minutes % 60).padStart(2, "0")} min`;
}

const written = (value, format) => (value === null || value === undefined ? NONE : format(value));

// ---- nodes ---------------------------------------------------------------------------------------------------------

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "color") node.style.backgroundColor = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child); // a string becomes text, never HTML
  }
  return node;
}

function scrollable(label, ...children) {
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, ...children);
}

function section(title, ...children) {
  const heading = make("h2", { id: `s-${title.toLowerCase().replace(/[^a-z]+/g, "-")}` }, title);
  return make("section", { "aria-labelledby": heading.id }, heading, ...children);
}

function chooser(label, options, chosen, changed) {
  const select = make("select", { onchange: (event) => changed(event.target.value) },
    options.map(([value, words]) => make("option", { value, selected: value === chosen }, words)));
  return make("label", {}, label, select);
}

// A sortable table; columns are {key, title, of, format, number, lower, wide, cell, about}.
function sortableTable(label, columns, rows, { sorted = null, rowOf = () => ({}), heading = null } = {}) {
  const body = make("tbody");
  const heads = new Map();
  let state = sorted;

  function fill() {
    const column = columns.find((candidate) => candidate.key === state?.key);
    const ordered = [...rows];
    if (column !== undefined) {
      const direction = state.descending ? -1 : 1;
      ordered.sort((first, second) => {
        const [a, b] = [column.of(first), column.of(second)];
        const [noA, noB] = [a === null || a === undefined, b === null || b === undefined];
        if (noA || noB) return noA - noB; // unknown values come last in both directions
        return direction * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
      });
    }
    body.replaceChildren(...ordered.map((row) => make("tr", rowOf(row), columns.map((one) => {
      const first = one.key === heading;
      const plain = () => written(one.of(row), one.format ?? String);
      const content = one.cell ? one.cell(row) : first ? breakable(plain()) : plain();
      return make(first ? "th" : "td", {
        class: [one.number && "number", one.wide && "wide", first && "sticky"].filter(Boolean).join(" ") || null,
        scope: first ? "row" : null,
      }, content);
    }))));
    for (const [key, head] of heads) {
      if (key === state?.key) head.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  const head = make("tr", {}, columns.map((column) => {
    const button = make("button", {
      type: "button",
      title: column.about,
      onclick: () => {
        const better = Boolean(column.number) && !column.lower;
        state = state?.key === column.key
          ? { key: column.key, descending: !state.descending }
          : { key: column.key, descending: better };
        fill();
      },
    }, column.title);
    const cell = make("th", {
      scope: "col",
      class: [column.number && "number", column.key === heading && "sticky"].filter(Boolean).join(" ") || null,
    }, button);
    heads.set(column.key, cell);
    return cell;
  }));
  fill();
  return scrollable(label, make("table", { "aria-label": label }, make("thead", {}, head), body));
}

// ---- charts --------------------------------------------------------------------------------------------------------

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const PALETTES = {
  light: ["#0b62c4", "#c2410c", "#15803d", "#9333ea", "#b91c5c", "#0e7490", "#a16207", "#4b5563", "#dc2626", "#4d7c0f"],
  dark: ["#77b3ff", "#fb9a5b", "#6fd195", "#c99bff", "#ff8fb8", "#5fd3e6", "#e8c15a", "#b6c0cd", "#ff8a80", "#b5d66a"],
};
const DASHES = ["solid", "dashed", "dotted"];
const colour = (place) => {
  if (place < 0) return token("--quiet"); // a reference
  const palette = PALETTES[dark.matches ? "dark" : "light"];
  return palette[place % palette.length];
};
const dash = (place) => place < 0 ? "dashed" : DASHES[Math.floor(place / PALETTES.light.length) % DASHES.length];
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Colours from cold to warm, for ordered values.
function ramp(share) {
  const stops = dark.matches ? [[94, 129, 244], [120, 200, 170], [255, 208, 90]] : [[52, 73, 180], [38, 150, 130], [222, 150, 10]];
  const place = Math.min(Math.max(share, 0), 1) * 2;
  const [low, part] = [Math.min(Math.floor(place), 1), place - Math.min(Math.floor(place), 1)];
  return `rgb(${stops[low].map((value, channel) => Math.round(value + part * (stops[low + 1][channel] - value))).join(",")})`;
}

const charts = new Set();

// Draws when it becomes visible, and again when its size or the colours change.
class Chart {
  constructor(label, options, kind = "") {
    this.node = make("div", { class: `chart ${kind}`.trim(), role: "img", "aria-label": label });
    this.options = options;
    this.chart = null;
    this.seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      this.seen.disconnect();
      this.draw();
    }, { rootMargin: "200px" });
    this.seen.observe(this.node);
    this.sized = new ResizeObserver(() => this.chart?.resize());
    this.sized.observe(this.node);
    charts.add(this);
  }

  draw() {
    const options = this.options(this.node.clientWidth < 520);
    if (this.chart === null) this.chart = echarts.init(this.node, null, { renderer: "canvas" });
    this.chart.setOption({ ...common(), ...options }, { notMerge: true });
    this.node.dataset.drawn = String(Number(this.node.dataset.drawn ?? 0) + 1);
  }

  again(label = null) {
    if (label !== null) this.node.setAttribute("aria-label", label);
    if (this.chart !== null) this.draw();
  }

  forget() {
    this.seen.disconnect();
    this.sized.disconnect();
    this.chart?.dispose();
    charts.delete(this);
  }
}

dark.addEventListener("change", () => charts.forEach((chart) => chart.again()));

function common() {
  return {
    animation: false,
    textStyle: { color: token("--text"), fontFamily: getComputedStyle(document.body).fontFamily },
    grid: { left: 8, right: 16, top: 36, bottom: 34, containLabel: true },
  };
}

function tooltip(more = {}) {
  return {
    renderMode: "richText", // drawn, so that a name cannot become HTML
    confine: true,
    backgroundColor: token("--raised"),
    borderColor: token("--line"),
    textStyle: { color: token("--text") },
    ...more,
  };
}

function axis(name, more = {}) {
  return {
    name,
    nameLocation: "middle",
    nameGap: 26,
    nameTextStyle: { color: token("--quiet") },
    axisLabel: { color: token("--quiet"), hideOverlap: true },
    axisLine: { lineStyle: { color: token("--line") } },
    axisTick: { lineStyle: { color: token("--line") } },
    splitLine: { lineStyle: { color: token("--line"), opacity: 0.5 } },
    ...more,
  };
}

const upright = (name, more = {}) => axis(name, { nameLocation: "end", nameGap: 12, nameTextStyle: { color: token("--quiet"), align: "left" }, ...more });

// ---- the page ------------------------------------------------------------------------------------------------------

const board = document.getElementById("board");
const picker = document.getElementById("run");
let runs = [];
let requested = 0; // number of the last request: late responses to earlier ones are dropped

function remember(run, model) {
  if (answers !== null) return;
  const query = new URLSearchParams({ round: run.round, run: run.run });
  if (model) query.set("model", model);
  history.replaceState(null, "", `?${query}`);
}

function show(...children) {
  [...charts].filter((chart) => board.contains(chart.node)).forEach((chart) => chart.forget());
  board.replaceChildren(...children);
  board.setAttribute("aria-busy", "false");
}

const notice = (bad, ...children) => make("div", { class: bad ? "notice bad" : "notice", role: bad ? "alert" : null }, ...children);

// shown where there is more than one
const stableOf = (run) => (run.stable !== "tournament" || new Set(runs.map((each) => each.stable)).size > 1 ? run.stable : null);

function runWords(run) {
  const facts = [stableOf(run), run.source, run.version, run.feature_set && `${run.feature_set} features`, run.target, run.era && `era ${run.era}`];
  return [run.run.slice(0, 6), ...facts.filter(Boolean)].join(" · ") + (run.models === null ? " · not evaluated" : "");
}

function fillPicker() {
  const rounds = new Map();
  for (const run of runs) rounds.set(run.round, [...(rounds.get(run.round) ?? []), run]);
  picker.replaceChildren(...[...rounds].map(([round, ofRound]) => make("optgroup", { label: `Round ${round}` },
    ofRound.map((run) => make("option", { value: `${run.round}/${run.run}` }, `${round}: ${runWords(run)}`)))));
  picker.disabled = runs.length === 0;
}

async function showRun(run, model = null) {
  const mine = ++requested;
  board.setAttribute("aria-busy", "true");
  picker.value = `${run.round}/${run.run}`;
  remember(run, model);
  try {
    const found = await request(runAddress(run));
    if (mine !== requested) return;
    document.title = `Round ${found.round} – Numerai leaderboard`;
    show(...sections(found, model));
    document.querySelector("tr.marked")?.scrollIntoView({ block: "center" });
  } catch (error) {
    if (mine === requested) show(notice(true, make("p", {}, error instanceof RequestError ? error.message : `The page failed: ${error}`)));
    if (!(error instanceof RequestError)) throw error;
  }
}

function sections(found, model) {
  // a model's colour is its index among the models, independent of the table's sorting
  const places = new Map();
  let next = 0;
  for (const row of found.models) places.set(row.model, row.kind === "reference" ? -1 : next++);
  const context = { found, model, places, chosen: firstChosen(found, model) };
  return [
    ...notices(found, model),
    facts(found),
    scores(context),
    ...curves(context),
    correlations(found),
    embeddings(found),
    drift(found),
    ...searches(found),
    ensemble(found),
    tasks(found),
  ].filter((part) => part !== null);
}

function firstChosen(found, model) {
  const chosen = new Set(found.models.filter((row) => row.kind !== "reference").slice(0, 5).map((row) => row.model));
  if (model !== null && found.models.some((row) => row.model === model)) chosen.add(model);
  return chosen;
}

const COMPARISONS = {
  example_predictions: "Example predictions",
  example_validation: "Example predictions, validation rows",
  example_live: "Example predictions, live rows",
  meta_model: "Meta model",
  benchmark_models: "Benchmark models",
  benchmark_validation: "Benchmark models, validation rows",
  benchmark_live: "Benchmark models, live rows",
};

function notices(found, model) {
  const shown = [];
  if (!found.evaluated) {
    const there = found.models.length === 0
      ? "No model has produced results yet."
      : `${plural(found.models.length, "model")} produced predictions or a report; the scores below are from the models' reports.`;
    shown.push(notice(false, make("p", {}, "This run has not been evaluated. ", there)));
  }
  if (found.missing.length > 0) {
    shown.push(notice(false, make("p", {}, "Missing (the task has not succeeded, or was not selected):"),
      make("ul", {}, found.missing.map(([what, by]) => make("li", {}, `${what} – `, make("code", {}, by))))));
  }
  const left = Object.entries(found.left_out);
  if (left.length > 0) {
    shown.push(notice(true, make("p", {}, "Excluded from the evaluation:"),
      make("ul", {}, left.map(([name, why]) => make("li", {}, `${name}: ${why}`)))));
  }
  const unavailable = Object.entries(found.unavailable_comparisons);
  if (unavailable.length > 0) {
    shown.push(notice(false, make("p", {}, "Comparisons not available for this run, or only in part:"),
      make("ul", {}, unavailable.map(([name, why]) => make("li", {}, `${COMPARISONS[name] ?? name}: ${why}`)))));
  }
  if (found.problems.length > 0) {
    shown.push(notice(true, make("p", {}, "Could not be read:"), make("ul", {}, found.problems.map((why) => make("li", {}, why)))));
  }
  if (model !== null && !found.models.some((row) => row.model === model)) {
    shown.push(notice(false, make("p", {}, `${model} is not on this run's leaderboard: it has no predictions.`)));
  }
  return shown;
}

function facts(found) {
  const run = found.metadata;
  const rows = (side) => (run[side].rows === null ? null : `${whole(run[side].rows)} in ${written(run[side].eras, (eras) => plural(eras, "era"))}`);
  const listed = [
    ["Round", found.round],
    ["Stable", stableOf(run)],
    ["Source", run.source],
    ["Version", run.version],
    ["Features", run.features === null ? null : `${whole(run.features)} (${run.feature_set ?? "set unknown"})`],
    ["Target", run.target],
    ["Walk-forward era", run.era],
    ["Training rows", rows("training")],
    ["Validation rows", rows("validation")],
    ["Live rows", run.live.rows === null ? null : whole(run.live.rows)],
    ["Tournament rows", rows("tournament")],
    ["Scored on", found.rows === null ? null : `${whole(found.rows)} rows in ${written(found.eras, (eras) => plural(eras, "era"))}`],
    ["Benchmark of BMC", found.benchmark],
    ["Every n-th era", run.every_nth_era === 1 ? null : run.every_nth_era],
    ["Seed", run.seed],
    ["Directory", `rounds/${found.round}/${found.run}`],
  ].filter(([, value]) => value !== null && value !== undefined);
  return section("The run", make("dl", { class: "facts" }, listed.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, String(value))))));
}

const RECENT = "the last 52 weeks";
const SCORES = [
  { key: "payout", title: "Payout", format: signed(4), about: "Payout score of the round, mean over the eras that have all of its parts; more is better" },
  { key: "payout_52_weeks", title: "Payout, 52 w", format: signed(4), about: `Payout score, mean over ${RECENT}` },
  { key: "corr", title: "CORR", format: signed(4), about: "Mean over the eras of Numerai's correlation; more is better" },
  { key: "corr_52_weeks", title: "CORR, 52 w", format: signed(4), about: `CORR, mean over ${RECENT}` },
  { key: "corr_std", title: "Std", format: digits(4), lower: true, about: "Standard deviation of CORR over the eras" },
  { key: "sharpe", title: "Sharpe", format: signed(2), about: "Mean of CORR over its standard deviation" },
  { key: "max_drawdown", title: "Drawdown", format: digits(4), lower: true, about: "The deepest fall of cumulative CORR below its highest point" },
  { key: "positive_eras", title: "Eras > 0", format: percent, about: "Share of eras with a positive CORR" },
  { key: "mmc", title: "MMC", format: signed(4), about: "Contribution beyond Numerai's meta model, mean over the eras that it has" },
  { key: "mmc_52_weeks", title: "MMC, 52 w", format: signed(4), about: `MMC, mean over ${RECENT}` },
  { key: "bmc", title: "BMC", format: signed(4), about: "Contribution beyond the benchmark model" },
  { key: "bmc_52_weeks", title: "BMC, 52 w", format: signed(4), about: `BMC, mean over ${RECENT}` },
  { key: "fnc", title: "FNC", format: signed(4), about: "Feature neutral correlation: CORR of the predictions without their linear part" },
  { key: "fnc_52_weeks", title: "FNC, 52 w", format: signed(4), about: `FNC, mean over ${RECENT}` },
  { key: "meta_model_correlation", title: "Meta model", format: signed(3), about: "Rank correlation with Numerai's meta model, mean over the eras that it has" },
  { key: "meta_model_correlation_52_weeks", title: "Meta model, 52 w", format: signed(3), about: `Rank correlation with the meta model, mean over ${RECENT}` },
  { key: "correlation", title: "Correlation", format: signed(4), about: "Rank correlation, mean over the validation eras, as the model itself reported it" },
  { key: "feature_exposure", title: "Exposure", format: digits(3), lower: true, about: "Largest correlation with a single feature, mean over the eras; less is better" },
  { key: "feature_exposure_52_weeks", title: "Exposure, 52 w", format: digits(3), lower: true, about: `Exposure, mean over ${RECENT}` },
  { key: "logloss", title: "Logloss", format: digits(5), lower: true, about: "On targets of 0 and 1, in nats; a coin toss has 0.69315" },
  { key: "consistency", title: "Consistency", format: percent, about: "Share of eras with a logloss better than a coin toss; 75 % passed in 2018" },
  { key: "concordance", title: "Concordance", format: digits(3), lower: true, flag: "concordant", flagged: "differs", about: "Largest difference between the distributions of predictions on validation, test and live rows" },
  { key: "originality", title: "Originality", format: digits(3), lower: true, flag: "original", flagged: "near copy", about: "Rank correlation with the most similar model; from 0.95 on a near copy" },
  { key: "seconds", title: "Time", format: duration, lower: true, about: "Seconds of work in the model's container" },
];

// The score by which models are ranked, its eras, and why it is not the payout score.
function rankedBy(found) {
  const { formula, eras, first, last, fallback } = found.ranking;
  const on = `on targets ${found.target === "binary" ? "of 0 and 1" : "of several grades"}`;
  if (found.sorted_by === "payout") {
    return `Best first by the payout score, ${formula ?? "unknown"}, ${on}, over the ${plural(eras, "era")} with all of its parts (${first ?? "?"} to ${last ?? "?"}).`;
  }
  const score = found.sorted_by === "logloss" ? "logloss" : "mean CORR";
  return `Best first by ${score}, ${on}${fallback === null ? "" : `, and not by the payout score: ${fallback}`}.`;
}

function scores({ found, model, places }) {
  if (found.models.length === 0) return section("Scores", make("p", { class: "quiet" }, "There is no model to show."));
  const columns = [
    { key: "model", title: "Model", of: (row) => row.model, cell: (row) => named(row.model, places.get(row.model)) },
    { key: "rank", title: "Rank", of: (row) => row.rank, number: true, lower: true, format: whole },
    { key: "kind", title: "Kind", of: (row) => row.kind },
    ...SCORES.filter((score) => found.models.some((row) => (row[score.key] ?? null) !== null)).map((score) => ({
      ...score,
      about: score.key.startsWith("bmc") && found.benchmark !== null ? `${score.about} (${found.benchmark})` : score.about,
      number: true,
      of: (row) => row[score.key] ?? null,
      cell: score.flag && ((row) => [
        row[score.flag] === false ? make("span", { class: "flag", title: score.key === "originality" ? row.most_like : null }, score.flagged) : null,
        written(row[score.key], score.format),
      ]),
    })),
  ].filter((column) => column.key !== "rank" || found.evaluated);
  const sorted = found.evaluated ? { key: "rank", descending: false } : { key: "model", descending: false };
  const words = found.evaluated
    ? `${rankedBy(found)} A heading sorts by its column.`
    : "As the models reported them. A heading sorts by its column.";
  return section("Scores", make("p", { class: "quiet" }, words), sortableTable("Scores of the models", columns, found.models, {
    sorted,
    heading: "model",
    rowOf: (row) => ({
      class: [row.model === model && "marked", row.kind === "reference" && "reference"].filter(Boolean).join(" ") || null,
      "aria-current": row.model === model ? "true" : null,
    }),
  }));
}

const swatch = (place) => make("span", { class: "swatch", color: colour(place), "aria-hidden": "true", "data-place": place });

const named = (name, place) => [swatch(place), ...breakable(name)];

// A name may be broken after an underscore.
function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part) => [part, make("wbr")]);
}

dark.addEventListener("change", () => document.querySelectorAll("[data-place]").forEach((node) => {
  node.style.backgroundColor = colour(Number(node.dataset.place));
}));

function curves({ found, places, chosen }) {
  const scored = found.models.filter((row) => found.series.corr[row.model]?.some((corr) => corr !== null));
  const spread = found.models.filter((row) => found.distributions[row.model] !== undefined);
  if (scored.length === 0 && spread.length === 0) {
    return [section("CORR over the eras", make("p", { class: "quiet" }, "There is nothing to draw: it comes with the evaluation, on rows whose target is known."))];
  }
  const state = { part: "validation" };
  const parts = ["validation", "test", "live"].filter((part) => spread.some((row) => found.distributions[row.model][part]));
  if (!parts.includes(state.part)) state.part = parts[0];

  const ofChosen = (rows) => rows.filter((row) => chosen.has(row.model));
  const line = (row, data, more = {}) => {
    const place = places.get(row.model);
    return {
      type: "line", name: row.model, data, showSymbol: false, connectNulls: true,
      lineStyle: { color: colour(place), width: 2, type: dash(place) }, itemStyle: { color: colour(place) }, ...more,
    };
  };
  const cumulative = new Chart("", (narrow) => ({
    grid: { ...common().grid, top: 30 },
    tooltip: tooltip({ trigger: "axis", valueFormatter: (value) => written(value, signed(4)), order: "valueDesc" }),
    xAxis: axis("era", { type: "category", data: found.series.eras, boundaryGap: false }),
    yAxis: upright("cumulative CORR", { type: "value", splitNumber: narrow ? 4 : 6 }),
    series: ofChosen(scored).map((row) => {
      let sum = 0;
      return line(row, found.series.corr[row.model].map((corr) => (corr === null ? null : (sum += corr))));
    }),
  }));
  const distribution = new Chart("", () => ({
    grid: { ...common().grid, top: 30 },
    tooltip: tooltip({ trigger: "item" }),
    xAxis: axis("prediction", { type: "value", scale: true }),
    yAxis: upright("density", { type: "value" }),
    series: ofChosen(spread).filter((row) => found.distributions[row.model][state.part]).map((row) => {
      const { edges, [state.part]: counts } = found.distributions[row.model];
      const rows = counts.reduce((sum, count) => sum + count, 0) || 1;
      const heights = counts.map((count, bin) => [edges[bin], count / rows / (edges[bin + 1] - edges[bin] || 1)]);
      return line(row, [[edges[0], 0], ...heights, [edges[edges.length - 1], 0]], { step: "end" });
    }),
  }));
  const label = () => {
    const names = [...chosen].join(", ") || "no model";
    cumulative.again(`Cumulative CORR per era of ${names}`);
    distribution.again(`Distribution of the predictions on ${state.part} rows of ${names}`);
  };
  label();

  const boxes = found.models.map((row) => {
    const box = make("input", {
      type: "checkbox", name: "model", value: row.model, checked: chosen.has(row.model),
      onchange: (event) => { event.target.checked ? chosen.add(row.model) : chosen.delete(row.model); label(); },
    });
    return make("label", {}, box, swatch(places.get(row.model)), row.model);
  });
  const all = (checked) => make("button", {
    type: "button",
    onclick: () => {
      boxes.forEach((box) => { box.querySelector("input").checked = checked; });
      chosen.clear();
      if (checked) found.models.forEach((row) => chosen.add(row.model));
      label();
    },
  }, checked ? "All" : "None");

  return [
    section("Models in the charts", make("fieldset", {}, make("legend", {}, "Drawn in the two charts below"),
      make("div", { class: "choices" }, boxes, all(true), all(false)))),
    make("div", { class: "columns" },
      section("CORR over the eras", scored.length === 0
        ? make("p", { class: "quiet" }, "No row has a known target, so there are no scores.") : cumulative.node),
      section("Predictions", parts.length === 0
        ? make("p", { class: "quiet" }, "The evaluation has no distributions.")
        : [make("div", { class: "bar" }, chooser("Rows", parts.map((part) => [part, part]), state.part, (part) => { state.part = part; label(); })), distribution.node])),
  ];
}

function correlations(found) {
  const data = found.correlations;
  if (data === null || data.models.length < 2) return null;
  // weak enough for readable numbers
  const tint = (value) => `rgba(${value < 0 ? "194, 65, 12" : "11, 98, 196"}, ${(0.55 * Math.min(value ** 2, 1)).toFixed(3)})`;
  const cell = (value) => make("td", { color: value === null ? null : tint(value) }, written(value, signed(2)));
  return section("Correlation between models",
    make("p", { class: "quiet" }, "Rank correlation of the predictions on all rows. Models that differ are worth combining."),
    scrollable("Correlation between models", make("table", { class: "matrix", "aria-label": "Correlation between models" },
      make("thead", {}, make("tr", {}, make("td", { class: "sticky" }), data.models.map((name) => make("th", { scope: "col" }, breakable(name))))),
      make("tbody", {}, data.models.map((name, place) => make("tr", {},
        make("th", { scope: "row", class: "sticky" }, breakable(name)), data.matrix[place].map(cell)))))));
}

function embeddings(found) {
  if (found.embeddings.length === 0) return null;
  const words = (name) => {
    const [, perplexity, products, solid] = /^perplexity_0*(\d+)(_polynomial)?(_3d)?$/.exec(name) ?? [null, name];
    return `perplexity ${perplexity}, ${products ? "features and their products" : "features"}${solid ? ", two of three axes" : ""}`;
  };
  const state = { name: found.embeddings.find((name) => name === "perplexity_30") ?? found.embeddings[0], by: "target", points: null, rows: null };
  const status = make("p", { class: "quiet", role: "status" });
  const chart = new Chart("", (narrow) => ({
    grid: { left: 8, right: 8, top: narrow ? 60 : 40, bottom: 8 },
    legend: { top: 0, textStyle: { color: token("--text") }, itemHeight: 10, itemWidth: 14, itemGap: narrow ? 8 : 14, selectedMode: true },
    tooltip: tooltip({ trigger: "item", formatter: (point) => state.rows === null ? "" : described(point.value[2]) }),
    xAxis: { type: "value", show: false, scale: true },
    yAxis: { type: "value", show: false, scale: true },
    series: groups().map(({ name, rows, tint }) => ({
      type: "scatter", name, symbolSize: narrow ? 3 : 4, itemStyle: { color: tint, opacity: 0.75 },
      data: rows.map((row) => [state.points.x[row], state.points.y[row], row]),
    })),
  }), "embedding");

  function described(row) {
    return `era ${state.rows.eras[state.rows.era[row]]}\n${state.rows.parts[state.rows.part[row]]}\ntarget ${state.rows.target[row] ?? "unknown"}`;
  }

  function groups() {
    if (state.points === null || state.rows === null) return [];
    const there = state.points.x.map((x, row) => row).filter((row) => state.points.x[row] !== null && state.points.y[row] !== null);
    if (state.by === "split") {
      return state.rows.parts.map((name, place) => ({ name, tint: colour(place), rows: there.filter((row) => state.rows.part[row] === place) }));
    }
    if (state.by === "era") {
      const count = Math.min(6, state.rows.eras.length);
      const bin = (row) => Math.floor((state.rows.era[row] * count) / state.rows.eras.length);
      const bounds = (place) => {
        const ofBin = state.rows.eras.filter((_, era) => Math.floor((era * count) / state.rows.eras.length) === place);
        return ofBin.length === 1 ? `era ${ofBin[0]}` : `${ofBin[0]} to ${ofBin[ofBin.length - 1]}`;
      };
      return Array.from({ length: count }, (_, place) => ({
        name: bounds(place), tint: ramp(count === 1 ? 0 : place / (count - 1)), rows: there.filter((row) => bin(row) === place),
      }));
    }
    const values = [...new Set(state.rows.target.filter((target) => target !== null))].sort((a, b) => a - b);
    const known = values.length <= 7
      ? values.map((value) => ({ name: String(value), tint: ramp(values.length === 1 ? 0 : values.indexOf(value) / (values.length - 1)), rows: there.filter((row) => state.rows.target[row] === value) }))
      : Array.from({ length: 5 }, (_, place) => ({
        name: `${place / 5} to ${(place + 1) / 5}`, tint: ramp(place / 4),
        rows: there.filter((row) => state.rows.target[row] !== null && Math.min(Math.floor(state.rows.target[row] * 5), 4) === place),
      }));
    return [{ name: "unknown", tint: dark.matches ? "#5d6775" : "#a9b2be", rows: there.filter((row) => state.rows.target[row] === null) }, ...known].filter((group) => group.rows.length > 0);
  }

  let latest = 0;
  async function load() {
    const mine = ++latest;
    status.textContent = "Loading …";
    try {
      const rows = state.rows ?? await request(runAddress(found, "embeddings"));
      const points = await request(runAddress(found, "embeddings", state.name));
      if (mine !== latest) return;
      Object.assign(state, { rows, points });
      status.textContent = `${whole(points.x.filter((x) => x !== null).length)} rows, sampled evenly from all tables.`;
      update();
    } catch (error) {
      if (mine === latest) status.textContent = error instanceof RequestError ? error.message : `The embedding failed: ${error}`;
      if (!(error instanceof RequestError)) throw error;
    }
  }
  const update = () => chart.again(`Embedding of the rows by t-SNE, ${words(state.name)}, coloured by ${state.by}`);

  // loaded only when it is nearly visible
  const near = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    near.disconnect();
    load();
  }, { rootMargin: "400px" });
  near.observe(chart.node);
  update();
  return section("Embeddings of the rows",
    make("p", { class: "quiet" }, "t-SNE places rows with similar features near each other."),
    make("div", { class: "bar" },
      chooser("Embedding", found.embeddings.map((name) => [name, words(name)]), state.name, (name) => { state.name = name; load(); }),
      chooser("Coloured by", [["target", "target"], ["era", "era"], ["split", "split"]], state.by, (by) => { state.by = by; update(); })),
    status, chart.node);
}

function drift(found) {
  const data = found.drift;
  if (data === null) return null;
  const roc = new Chart(`ROC of adversarial validation, area under the curve ${written(data.auc, digits(3))}`, () => ({
    tooltip: tooltip({ trigger: "axis", valueFormatter: (value) => written(value, digits(3)) }),
    legend: { top: 0, right: 0, icon: "rect", itemHeight: 3, itemWidth: 16, textStyle: { color: token("--text") }, data: ["validation or training?", "a coin toss"] },
    xAxis: axis("training rows classified as validation rows", { type: "value", min: 0, max: 1 }),
    yAxis: upright("", { type: "value", min: 0, max: 1 }),
    series: [
      { type: "line", name: "validation or training?", data: data.roc, showSymbol: false, lineStyle: { color: colour(0), width: 2 }, itemStyle: { color: colour(0) } },
      { type: "line", name: "a coin toss", data: [[0, 0], [1, 1]], showSymbol: false, lineStyle: { color: token("--quiet"), type: "dashed", width: 1 }, itemStyle: { color: token("--quiet") } },
    ],
  }), "square");
  const folds = data.auc_of_folds.filter((auc) => auc !== null).map(digits(3)).join(", ");
  const columns = [
    { key: "feature", title: "Feature", of: (row) => row.feature },
    { key: "importance", title: "Importance", number: true, of: (row) => row.importance, format: (value) => `${digits(1)(100 * value)} %`, about: "Its share in the classification of the tables" },
    { key: "shift", title: "Shift", number: true, of: (row) => row.shift, format: signed(3), about: "Mean in validation less mean in training, in standard deviations of the latter" },
    { key: "kolmogorov_smirnov", title: "KS", number: true, of: (row) => row.kolmogorov_smirnov, format: digits(3), about: "Largest difference between the two distribution functions" },
  ];
  return section("Drift: training against validation",
    make("p", {}, `Area under the curve: ${written(data.auc, digits(3))}${folds && ` (folds ${folds})`}. At 0.5 the two tables are alike.`),
    make("div", { class: "columns" },
      data.roc.length > 1 ? make("div", {}, roc.node) : make("p", { class: "quiet" }, "The report has no curve."),
      make("div", {}, sortableTable("Most drifting features", columns, data.features, { sorted: { key: "importance", descending: true }, heading: "feature" }))));
}

function searches(found) {
  return found.searches.map((search) => {
    const seconds = search.trajectory.map(([when]) => when);
    const chart = new Chart(`Best ${search.measure} of ${search.model} over the time of its search`, () => ({
      grid: { ...common().grid, top: 30 },
      tooltip: tooltip({ trigger: "axis", valueFormatter: (value) => written(value, digits(6)) }),
      xAxis: axis("seconds", { type: "value", max: Math.max(...seconds, 1) * 1.05, axisLabel: { color: token("--quiet"), hideOverlap: true, formatter: (value) => whole(value), showMaxLabel: false } }),
      yAxis: upright(`best ${search.measure} so far`, { type: "value", scale: true }),
      series: [{ type: "line", name: search.measure, step: "end", data: search.trajectory, symbolSize: 6, lineStyle: { color: colour(0), width: 2 }, itemStyle: { color: colour(0) } }],
    }), "low");
    const score = { key: "score", title: search.measure, number: true, lower: true, of: (row) => row.score, format: digits(6) };
    const learner = { key: "learner", title: "Learner", of: (row) => row.learner };
    const settings = { key: "settings", title: "Settings", of: (row) => row.settings, wide: true };
    const having = (rows, columns) => columns.filter((column) => rows.some((row) => (column.of(row) ?? null) !== null));
    return section(`Search of ${search.model}`,
      make("dl", { class: "facts" }, [...search.facts, ...search.counts.map(([name, count]) => [name, whole(count)])].map(([name, value]) =>
        make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
      make("h3", {}, "Found"),
      search.found.length === 0 ? make("p", { class: "quiet" }, "Its report has no result.")
        : sortableTable(`Best models of ${search.model}`, having(search.found, [learner,
          { key: "weight", title: "Weight", number: true, of: (row) => row.weight, format: digits(2) }, score, settings]), search.found, { heading: "learner" }),
      search.trajectory.length > 1 ? [make("h3", {}, "Progress of the search"), chart.node] : null,
      search.tried.length === 0 ? null : make("details", {}, make("summary", {}, `The first ${plural(search.tried.length, "attempt")}`),
        sortableTable(`Trials of ${search.model}`, having(search.tried, [learner,
          { key: "outcome", title: "Outcome", of: (row) => row.outcome }, score,
          { key: "seconds", title: "Time", number: true, lower: true, of: (row) => row.seconds, format: duration }, settings]), search.tried, { heading: "learner" })));
  });
}

function ensemble(found) {
  const data = found.ensemble;
  if (data === null) return null;
  const columns = [
    { key: "model", title: "Model", of: (row) => row[0] },
    { key: "weight", title: "Weight", number: true, of: (row) => row[1], format: digits(3) },
  ];
  const fallback = data.fallback === null ? null : `Selected by ${data.objective ?? "another score"}, and not by the payout score: ${data.fallback}.`;
  const gain = data.gain === null ? null
    : `On the ${plural(data.eras, "era")} held out from its selection, it gains ${signed(5)(data.gain)} in ${data.objective ?? "its objective"} over ${data.best_model ?? "the best model"} alone; more is better.`;
  return section("Weights of the ensemble", data.equal_weights_because === null ? null : make("p", {}, data.equal_weights_because),
    fallback === null ? null : make("p", {}, fallback),
    gain === null ? null : make("p", {}, gain),
    sortableTable("Weights of the ensemble", columns, data.weights, { sorted: { key: "weight", descending: true }, heading: "model" }));
}

function tasks(found) {
  const rows = [...found.models.filter((row) => row.kind !== "reference"), ...found.other_tasks]
    .filter((row) => row.seconds !== null || row.image !== null);
  if (rows.length === 0) return null;
  const columns = [
    { key: "model", title: "Task", of: (row) => row.model },
    { key: "seconds", title: "Time", number: true, lower: true, of: (row) => row.seconds, format: duration },
    { key: "memory", title: "Memory, MiB", number: true, lower: true, of: (row) => row.memory, format: whole, about: "Peak memory" },
    { key: "image", title: "Image", of: (row) => row.image },
    { key: "fit", title: "Fit", of: (row) => row.fit },
    { key: "notes", title: "Notes", of: (row) => row.notes.join("; ") || null, wide: true },
  ];
  return section("Time, memory and images", sortableTable("Time, memory and images of the tasks", columns, rows, { sorted: { key: "seconds", descending: true }, heading: "model" }));
}

async function begin() {
  const home = document.getElementById("home");
  home.hidden = answers !== null || window.top !== window.self; // embedded in Airflow, or without Airflow
  const query = new URLSearchParams(location.search);
  try {
    runs = await request("api/runs");
    fillPicker();
    picker.selectedIndex = -1;
    let target = { round: query.get("round"), run: query.get("run") };
    if (query.has("dag_run")) target = await request(`api/dag-run?${new URLSearchParams({ dag: query.get("dag") ?? "", run: query.get("dag_run") })}`);
    if (runs.length === 0) {
      show(make("p", { class: "quiet" }, "There is no run yet. Trigger the DAG “Numerai tournament”: its runs appear here after their task unzip."));
      return;
    }
    const found = runs.find((run) => run.round === target.round && run.run === target.run);
    if (found === undefined && target.run !== null) {
      show(notice(true, make("p", {}, "This run does not exist; housekeeping may have removed it. Select another one above.")));
      return;
    }
    await showRun(found ?? runs[0], query.get("model"));
  } catch (error) {
    show(notice(true, make("p", {}, error instanceof RequestError ? error.message : `The page failed: ${error}`)));
    if (!(error instanceof RequestError)) throw error;
  }
}

picker.addEventListener("change", () => {
  const [round, run] = picker.value.split("/");
  showRun({ round, run });
});
// the script may run before the page is complete
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
else begin();
