// The page: one picture in, one answer out. State lives in `state`; every change ends in draw functions.

import { Problem, classify, isReady, listModels, useKey, writeCurl } from "./api.js";

// Whose they are; samples/README.md says more. The last one is hard for a model of 32 pixels.
const SAMPLES = {
  cat: "Stefan van der Walt, CC0",
  deer: "Ryan Hagerty, US Fish and Wildlife Service, public domain",
  dog: "Aitzol Berasategi, CC BY 4.0",
};
const POLICIES = {
  center: "Once, at the centre",
  mirror: "The centre and its mirror image",
  ten_crop: "Ten crops",
  dense: "Everywhere at one scale",
  multi_scale: "Everywhere at five scales",
  adaptive: "Once, and again when unsure",
};
const HEALTH_POLL_MS = 5000;

const at = (id) => document.getElementById(id);
const state = { file: null, name: "cat.jpg", models: [], asking: null, seen: {} };

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function options() {
  return { model: at("model").value, tta: at("tta").value, wantsMap: at("wants-map").checked };
}

const percent = (share) => (share < 0.00005 ? "< 0.01 %" : `${(100 * share).toFixed(share >= 0.0995 ? 1 : 2)} %`);
const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

// --- asking ---

async function look() {
  drawCurl();
  if (!state.file) return;
  state.asking?.abort();
  const asking = (state.asking = new AbortController());
  at("answer").classList.add("is-busy");
  at("answer").setAttribute("aria-busy", "true");
  try {
    const started = performance.now();
    const answer = await classify(state.file, options(), asking.signal);
    drawAnswer(answer, performance.now() - started);
  } catch (error) {
    if (error.name === "AbortError") return;
    drawProblem(error instanceof Problem ? error : new Problem(0, "The page failed", String(error)));
  } finally {
    if (state.asking === asking) {
      at("answer").classList.remove("is-busy");
      at("answer").removeAttribute("aria-busy");
    }
  }
}

function take(file) {
  if (!file) return;
  state.file = file;
  state.name = file.name || "picture.png";
  hideMap();
  const picture = at("picture");
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.alt = `The picture asked about: ${state.name}`;
  at("stage").hidden = false;
  look();
}

// --- drawing ---

function drawAnswer(answer, roundTripMs) {
  at("problem").hidden = true;
  const ranks = answer.predictions.map(({ label, probability }) => {
    const fill = make("div", { className: "fill" });
    fill.style.width = `${100 * probability}%`;
    return make("li", {}, fill, make("span", {}, label), make("span", {}, percent(probability)));
  });
  at("answer").replaceChildren(make("ol", { className: "ranks" }, ...ranks));
  const { tta, timings_ms: times, model } = answer;
  const used = tta.used === tta.asked ? tta.used : `${tta.used} (asked for ${tta.asked}; the server is busy)`;
  drawFacts({
    Model: `${model.name}, version ${model.version}`,
    Looked: `${used}, ${tta.views} ${tta.views === 1 ? "view" : "views"}`,
    Server: `${milliseconds(times.total)}: decode ${milliseconds(times.decode)}, queue ${milliseconds(times.queue)}, inference ${milliseconds(times.infer)}`,
    "Round trip": milliseconds(roundTripMs),
  });
  state.seen[`${model.name}/${tta.used}`] = times;
  drawPolicyNote();
  if (answer.map) drawMap(answer.map);
  else hideMap();
}

function drawFacts(facts) {
  const rows = Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  at("facts").replaceChildren(...rows);
  at("facts").hidden = false;
}

function drawProblem(problem) {
  hideMap();
  at("answer").replaceChildren();
  at("facts").hidden = true;
  at("problem").hidden = false;
  at("problem").replaceChildren(make("strong", {}, problem.title), ` ${problem.message}`);
  if (problem.status === 401 || problem.status === 403) at("key-form").hidden = false;
}

function drawMap(map) {
  at("heat").src = `data:image/png;base64,${map.png}`;
  at("heat").alt = "Where the evidence for the first class is";
  at("heat").hidden = false;
  at("slider-label").hidden = false;
  const { left, top, right, bottom } = map.box;
  const { naturalWidth: width, naturalHeight: height } = at("picture");
  const box = at("box");
  box.style.left = `${(100 * left) / width}%`;
  box.style.top = `${(100 * top) / height}%`;
  box.style.width = `${(100 * (right - left)) / width}%`;
  box.style.height = `${(100 * (bottom - top)) / height}%`;
  box.hidden = !width;
  fade();
}

function hideMap() {
  for (const id of ["heat", "slider-label", "box"]) at(id).hidden = true;
}

function fade() {
  const strength = at("slider").value / 100;
  at("heat").style.opacity = strength;
  at("box").style.opacity = Math.min(1, 2 * strength);
}

const drawCurl = () => (at("curl").textContent = writeCurl(state.name, options()));

const reference = (model) => (model.default_version ? model.name : `${model.name}@${model.version}`);

function currentModel() {
  return state.models.find((one) => reference(one) === at("model").value);
}

function drawPolicies() {
  const model = currentModel();
  if (!model) return;
  const chosen = at("tta").value;
  const names = Object.keys(model.tta?.cost_ms ?? {}).sort((one, other) => model.tta.cost_ms[one] - model.tta.cost_ms[other]);
  const all = names.length ? names : Object.keys(POLICIES);
  at("tta").replaceChildren(...all.map((name) => make("option", { value: name }, POLICIES[name] ?? name)));
  at("tta").value = all.includes(chosen) ? chosen : model.tta?.default ?? all[0];
  drawPolicyNote();
}

function drawPolicyNote() {
  const model = currentModel();
  if (!model) return;
  const tta = at("tta").value;
  const cost = model.tta?.cost_ms?.[tta];
  const measured = model.metrics?.find((row) => row.tta === tta && (row.precision ?? "fp32") === "fp32");
  const parts = [];
  if (cost) parts.push(`about ${milliseconds(cost)} of computing`);
  if (measured) parts.push(`${measured.top1_error.toFixed(2)} % error on ${measured.images.toLocaleString("en")} test images`);
  const seen = state.seen[`${model.name}/${tta}`];
  if (seen) parts.push(`last time ${milliseconds(seen.total)}`);
  at("policy-note").textContent = parts.join(" · ");
}

function drawModelCard(model) {
  const facts = `version ${model.version} · ${model.labels.length} classes · ${model.input?.crop_px ?? "?"} px crop${model.default ? " · default" : ""}`;
  const labels = model.labels.slice(0, 20).join(", ") + (model.labels.length > 20 ? ", …" : "");
  return make("article", { className: "model" }, make("h3", {}, reference(model)), make("p", { className: "note" }, facts),
    ...(model.refused ?? []).map((one) => make("p", { className: "note" }, `version ${one.version} was refused: ${one.reason}`)),
    make("p", { className: "note" }, labels),
    ...(model.metrics?.length ? [drawErrors(model)] : []));
}

const COLUMNS = {
  Policy: (row) => row.tta,
  "Top-1 error": (row) => `${row.top1_error.toFixed(2)} %`,
  "Top-5 error": (row) => (row.top5_error == null ? "" : `${row.top5_error.toFixed(2)} %`),
  Precision: (row) => row.precision ?? "fp32",
  "Scores merged": (row) => [row.merge, row.pool && `${row.pool} pooling`].filter(Boolean).join(", "),
  "Measured on": measuredOn,
};

function measuredOn(row) {
  return `${row.images.toLocaleString("en")} of ${row.dataset} ${row.split}`;
}

// What the card measured of each policy first; the same with its scores merged otherwise is a click away.
function drawErrors(model) {
  const isFirst = (row, number) => number === model.metrics.findIndex((one) => one.tta === row.tta && one.precision === row.precision);
  const others = model.metrics.filter((row, number) => !isFirst(row, number));
  const more = others.length ? [make("details", {}, make("summary", {}, `${others.length} more, scores merged otherwise`), drawTable(model, others))] : [];
  return make("div", {}, drawTable(model, model.metrics.filter(isFirst)), ...more);
}

function drawTable(model, metrics) {
  const sets = new Set(metrics.map(measuredOn));
  const shown = Object.entries(COLUMNS).filter(([name, tell]) => metrics.some(tell) && (name !== "Measured on" || sets.size > 1));
  const caption = sets.size === 1 ? [make("caption", {}, `Measured on ${[...sets][0]}`)] : [];
  const head = make("tr", {}, ...shown.map(([name]) => make("th", { scope: "col" }, name)));
  const rows = metrics.map((row) => make("tr", {}, ...shown.map(([, tell]) => make("td", {}, tell(row)))));
  return make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: `Measured errors of ${model.name}` },
    make("table", {}, ...caption, make("thead", {}, head), make("tbody", {}, ...rows)));
}

async function drawModels() {
  const { models } = await listModels();
  state.models = models.filter(({ input }) => input);
  const chosen = at("model").value;
  const usable = state.models.filter((one) => one.state === "ready");
  at("model").replaceChildren(...usable.map((one) => make("option", { value: reference(one) }, reference(one))));
  const fallback = usable.find((one) => one.default) ?? usable[0];
  at("model").value = usable.some((one) => reference(one) === chosen) ? chosen : fallback ? reference(fallback) : "";
  at("models").replaceChildren(...models.map(drawModelCard));
  drawPolicies();
  drawCurl();
}

async function drawHealth() {
  const ready = await isReady();
  const health = at("health");
  health.textContent = ready ? "Ready" : ready === null ? "The server cannot be reached" : "The server is not ready";
  health.classList.toggle("is-down", !ready);
  if (ready && !state.models.length) await drawModels().catch(drawProblem);
}

// --- wiring ---

function listen() {
  const picker = at("picker");
  at("file").addEventListener("change", (event) => take(event.target.files[0]));
  document.addEventListener("paste", (event) => take([...event.clipboardData.files].find(({ type }) => type.startsWith("image/"))));
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      picker.classList.add("is-over");
    });
  }
  document.addEventListener("dragleave", (event) => event.relatedTarget || picker.classList.remove("is-over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    picker.classList.remove("is-over");
    take(event.dataTransfer.files[0]);
  });
  // A broken file, or a format that this browser cannot show; the server may read it all the same.
  at("picture").addEventListener("error", () => (at("stage").hidden = true));
  at("model").addEventListener("change", () => (drawPolicies(), look()));
  at("tta").addEventListener("change", () => (drawPolicyNote(), look()));
  at("wants-map").addEventListener("change", look);
  at("slider").addEventListener("input", fade);
  at("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    useKey(at("key").value.trim());
    at("key-form").hidden = at("problem").hidden = true;
    await drawModels().then(look).catch(drawProblem);
  });
  at("copy").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(at("curl").textContent);
    at("copy").textContent = "Copied";
    setTimeout(() => (at("copy").textContent = "Copy"), 1500);
  });
}

function offerSamples() {
  const buttons = Object.entries(SAMPLES).map(([label, credit]) => {
    const path = `web/samples/${label}.jpg`;
    const button = make("button", { type: "button", title: `${label}, by ${credit}` }, make("img", { src: path, alt: `Use the sample picture: ${label}` }));
    button.addEventListener("click", async () => {
      const response = await fetch(path).catch(() => null);
      if (!response?.ok) return drawProblem(new Problem(0, "The server cannot be reached", ""));
      const blob = await response.blob();
      take(new File([blob], `${label}.jpg`, { type: blob.type }));
    });
    return button;
  });
  at("samples").replaceChildren(...buttons);
}

listen();
offerSamples();
drawCurl();
drawHealth();
setInterval(drawHealth, HEALTH_POLL_MS);
