// Model card: what answers, how it was made, how it does beside simple methods; switching and rolling back.

import { ask } from "./api.js";
import { announce, empty, facts, h, present, problemBox, table } from "./dom.js";
import { count, counted, fixed, sentence, span, when } from "./format.js";
import { bar, figure, lines } from "./plots.js";
import { changed } from "./songs.js";

const PATIENCE_MS = 15_000; // for the service to have loaded another model
const LOOK_MS = 300;
const METRICS = { hr: "HR", ndcg: "NDCG", mrr: "MRR", recall: "Recall", map: "MAP" };
const DATA = { songs: "Songs", artists: "Artists", albums: "Albums", sequences: "Lists", rows: "Places in lists", sequences_training: "Lists for training" };

let looked = null; // the model whose card is shown; null: the one in service
let said = "";
let isSwitching = false;

export function show(place) {
  present(place, load, draw);
}

/** The models of the database, the one in service, and the card that is looked at. */
async function load() {
  const [overview, known] = await Promise.all([ask("v1/overview"), ask("v1/models").catch(kept)]);
  const inService = overview.model.model_id;
  const modelId = looked ?? inService;
  const card = modelId === null ? null : await ask(`v1/models/${pathOf(modelId)}/card`).catch(kept);
  return { inService, known, card, modelId };
}

/** A problem as a value, for a part of the panel that can do without the other. */
function kept(error) {
  if (error.name !== "Problem" || error.status === 401) throw error;
  return error;
}

/** An id with the slashes that are in it. */
function pathOf(modelId) {
  return modelId.split("/").map(encodeURIComponent).join("/");
}

function draw({ inService, known, card, modelId }) {
  return [
    h("p", { class: "said", role: "status", id: "model-said" }, said),
    h("section", null, h("h3", null, "Models"), modelsOf(known, inService, modelId)),
    cardOf(card, inService),
  ];
}

function again() {
  show(document.querySelector("#panel-model .content"));
}

// --- which of them answers ---------------------------------------------------------------------------------------------------

function modelsOf(known, inService, modelId) {
  if (known.name === "Problem") return problemBox(known, again);
  if (!known.models.length) {
    return empty("No model is known to the database", "Train one (python train.py); cli.py publish enters one that exists.");
  }
  const challenger = known.deployment?.challenger_id;
  return [
    table(
      "Models that the database knows, the newest first",
      [
        { title: "Model", head: true, of: (one) => h("button", { type: "button", class: "plain id", "aria-current": one.model_id === modelId && "true", onclick: () => look(one.model_id) }, one.model_id) },
        { title: "Trained", of: (one) => when(one.trained_at) ?? "–" },
        { title: "Answers", number: true, of: (one) => (one.figures ? count(one.figures.answers) : "–") },
        { title: "Played", number: true, of: (one) => (one.figures ? count(one.figures.played) : "–") },
        { title: "Skipped", number: true, of: (one) => (one.figures ? count(one.figures.skipped) : "–") },
        { title: "Never", number: true, of: (one) => (one.figures ? count(one.figures.never_again) : "–") },
        { title: "State", of: (one) => stateOf(one, inService, challenger) },
      ],
      known.models,
      { isCaptionSeen: false },
    ),
    h(
      "div",
      { class: "line" },
      h("button", { type: "button", id: "roll-back", "data-switch": true, "aria-disabled": isSwitching && "true", onclick: () => manage("v1/models/rollback") }, "Roll back to the model before"),
      h("span", { class: "quiet" }, known.deployment ? `Last switched ${when(known.deployment.deployed_at)}.` : "None was chosen yet: the newest run answers."),
    ),
  ];
}

function stateOf(one, inService, challenger) {
  if (one.model_id === inService) return h("span", { class: "chip good" }, "answers now");
  if (one.refused) return `refused: ${one.refused}`;
  return [
    one.model_id === challenger ? h("span", { class: "chip" }, "challenger") : null,
    h(
      "button",
      {
        type: "button",
        "data-switch": true,
        "aria-label": `Answer with ${one.model_id}`,
        "aria-disabled": isSwitching && "true",
        onclick: () => manage(`v1/models/${pathOf(one.model_id)}/activate`),
      },
      "Answer with this",
    ),
  ].filter(Boolean);
}

function look(modelId) {
  looked = modelId;
  again();
}

function say(text) {
  said = text;
  const place = document.getElementById("model-said");
  if (place) place.textContent = text;
}

/** Let nobody switch while a switch is under way: a second click would go back once more.  The focus stays, as it would not with `disabled`. */
function hold(isHeld) {
  isSwitching = isHeld;
  for (const button of document.querySelectorAll("#panel-model [data-switch]")) {
    if (isHeld) button.setAttribute("aria-disabled", "true");
    else button.removeAttribute("aria-disabled");
  }
}

/** Switch or roll back, and wait until the service answers with what it was told. */
async function manage(path) {
  if (isSwitching) return;
  hold(true);
  say("Switching…");
  try {
    const chosen = await answersWith(await ask(path, { body: {} }));
    looked = null;
    say(chosen.isThere ? `${chosen.modelId} answers now.` : `${chosen.modelId} is chosen; the service has not loaded it yet. Health says why if it refuses it.`);
    announce(said);
    changed("model");
  } catch (error) {
    if (error.name !== "Problem") throw error;
    say(`${error.title}: ${error.message}`);
  } finally {
    hold(false);
  }
}

/** Wait until the service answers with what was deployed last, which may be somebody else's choice by then. */
async function answersWith(deployment) {
  let modelId = deployment.model_id;
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; ) {
    const [overview, known] = await Promise.all([ask("v1/overview"), ask("v1/models")]);
    modelId = known.deployment?.model_id ?? modelId;
    if (overview.model.model_id === modelId) return { modelId, isThere: true };
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  return { modelId, isThere: false };
}

// --- its card ----------------------------------------------------------------------------------------------------------------

function cardOf(card, inService) {
  if (card === null) {
    return empty("No model is in service", "Train one (python train.py), or activate one of those above. Until then lists are continued by counts, where there is a snapshot.");
  }
  if (card.name === "Problem") return problemBox(card, again);
  return [
    h(
      "section",
      null,
      h("h3", null, card.model_id === inService ? "The model that answers" : "A model that does not answer now"),
      h("p", { class: "id" }, card.model_id),
      facts([
        ["Trained", when(card.trained_at)],
        ["Took", span(card.seconds)],
        ["Epochs", card.epochs],
        ["On", card.device],
        ["Machine", card.machine],
        ["Seed", card.seed],
      ]),
      card.objective ? h("p", null, sentence(card.objective)) : null,
      card.features ? h("p", null, sentence(card.features)) : null,
      card.notes?.length ? h("ul", { class: "notes" }, card.notes.map((note) => h("li", null, sentence(note)))) : null,
    ),
    h("section", null, h("h3", null, "Made from"), dataOf(card.data)),
    h("section", null, h("h3", null, "Beside simple methods"), tableOf(card.table)),
    curvesOf(card.curve),
    settingsOf(card.settings),
  ];
}

function dataOf(data) {
  const known = Object.entries(data ?? {}).filter(([, value]) => typeof value === "number");
  if (!known.length) return h("p", null, "This run kept no counts of its data; runs that are trained from now on do.");
  return facts(known.map(([name, value]) => [DATA[name] ?? plain(name), count(value)]));
}

function plain(name) {
  const text = name.replaceAll("_", " ");
  return `${text[0].toUpperCase()}${text.slice(1)}`;
}

/** "hr10" as "HR@10" */
function metricName(name) {
  const found = /^([a-z]+)@?(\d+)$/.exec(name);
  return found ? `${METRICS[found[1]] ?? plain(found[1])}@${found[2]}` : plain(name);
}

function tableOf(made) {
  if (!made?.rows?.length) {
    return empty("Not measured yet", "A figure says little without simple methods beside it. cli.py evaluate measures this model and them, on songs that none has seen.");
  }
  const names = [...new Set(made.rows.flatMap((row) => Object.keys(row.metrics)))].filter((name) => made.rows.some((row) => typeof row.metrics[name] === "number"));
  const best = Object.fromEntries(names.map((name) => [name, Math.max(...made.rows.map((row) => row.metrics[name] ?? -Infinity))]));
  const main = names.includes("ndcg10") ? "ndcg10" : names[0];
  return [
    table(
      "The model beside simple methods",
      [
        { title: "Recommender", head: true, of: (row) => row.recommender },
        {
          title: h("span", { class: "unseen" }, `${metricName(main)} as a bar`),
          of: (row) => bar(row.recommender === made.rows[0].recommender ? "theirs" : "others", (row.metrics[main] ?? 0) / (best[main] || 1)),
        },
        ...names.map((name) => ({
          title: metricName(name),
          number: true,
          of: (row) => (row.metrics[name] === best[name] ? h("strong", null, fixed(row.metrics[name], 3)) : fixed(row.metrics[name], 3)),
        })),
      ],
      made.rows,
      { isCaptionSeen: false },
    ),
    h("p", { class: "quiet" }, `${sizeOf(made)} The bars are ${metricName(main)}; the best of each column stands in bold. Against the whole catalogue, so 0.1 is much.`),
  ];
}

function sizeOf({ n, targets }) {
  if (!n && !targets) return "";
  return `Measured on ${[n && counted(n, "list"), targets && `${counted(targets, "song")} to guess`].filter(Boolean).join(" with ")}.`;
}

const SERIES = [
  ["train_loss", "others", "loss in training"],
  ["validation_loss", "theirs", "loss on held-out lists"],
];
const QUALITY = [
  ["ndcg10", "mine", "NDCG@10"],
  ["hr10", "theirs", "HR@10"],
];

function curvesOf(curve) {
  if (!curve?.length) return h("section", null, h("h3", null, "Training"), h("p", null, "This run kept no record of its epochs."));
  return h(
    "div",
    { class: "columns" },
    curveOf(curve, "Loss, epoch by epoch", SERIES, 2),
    curveOf(curve, "Quality on held-out lists, epoch by epoch", QUALITY, 3),
  );
}

function curveOf(curve, title, series, digits) {
  const known = series.filter(([name]) => curve.some((epoch) => typeof epoch[name] === "number"));
  if (!known.length) return h("section", null, h("h3", null, title), h("p", null, "Not recorded in this run."));
  const xs = curve.map((epoch) => epoch.epoch);
  const ends = known.map(([name, , label]) => {
    const values = curve.map((epoch) => epoch[name]).filter((value) => typeof value === "number");
    return `${label} from ${fixed(values[0], digits)} to ${fixed(values.at(-1), digits)}`;
  });
  return figure({
    title,
    text: `${lengthOf(curve)}: ${ends.join("; ")}.`,
    legend: known.map(([, kind, label]) => [kind, "line", label]),
    draw: (width) => {
      const drawn = lines({
        width,
        height: 150,
        xs,
        series: known.map(([name, kind]) => ({ kind, points: curve.map((epoch) => [epoch.epoch, epoch[name] ?? null]) })),
        format: (value) => fixed(value, value !== 0 && Math.abs(value) < 0.1 ? 2 : Math.abs(value) < 10 ? 2 : 1),
        xTitle: "epoch",
      });
      return { height: drawn.height, parts: drawn.parts };
    },
    numbers: table(
      title,
      [
        { title: "Epoch", head: true, of: (epoch) => String(epoch.epoch) },
        { title: "Seconds until then", number: true, of: (epoch) => fixed(epoch.seconds, 1) },
        ...known.map(([name, , label]) => ({ title: label, number: true, of: (epoch) => fixed(epoch[name], digits + 1) })),
      ],
      curve,
    ),
  });
}

/** How many epochs there were; of a long training not all of them are drawn. */
function lengthOf(curve) {
  const epochs = curve.at(-1).epoch;
  return epochs > curve.length ? `${counted(epochs, "epoch")}, ${count(curve.length)} of them drawn` : counted(curve.length, "epoch");
}

function settingsOf(settings) {
  const known = Object.entries(settings ?? {});
  if (!known.length) return null;
  return h(
    "details",
    { class: "box" },
    h("summary", null, h("h3", null, "All settings of its training")),
    h("div", { class: "stack" }, known.map(([name, values]) => h("section", null, h("h4", null, plain(name)), facts(shown(values))))),
  );
}

function shown(values) {
  return Object.entries(values).map(([name, value]) => [name, value === null ? "none" : String(value)]);
}
