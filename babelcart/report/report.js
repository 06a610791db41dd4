// The browser of the rows. Everything from the data is set as text (textContent), so it cannot become markup.
"use strict";
const PAGE = 50;
const KINDS = ["right, not relevant", "false positive", "false negative", "right, relevant"];
const tasks = JSON.parse(document.getElementById("table").textContent);
const form = document.getElementById("filters");
const control = (name) => form.elements.namedItem(name);
const body = document.querySelector("#rows tbody");
const headers = [...document.querySelectorAll("#rows thead button")];
const back = document.getElementById("back");
const next = document.getElementById("next");
const count = document.getElementById("count");
const languageNames = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });
const collator = new Intl.Collator();
const number = new Intl.NumberFormat("en");

let sort = { by: "confidence", down: true };
let shown = []; // row numbers, filtered and sorted
let page = 0;

const task = () => tasks[Number(control("task").value)];
const fold = (text) => text.normalize("NFKC").toLowerCase();

/** An element with attributes and text. */
function element(name, attributes, text) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const option = (value, text) => element("option", { value }, text);

function languageName(code) {
  try {
    const name = languageNames.of(code);
    return name ? `${code} – ${name}` : code;
  } catch {
    return code; // not a code that the browser knows
  }
}

/** What is derived from the rows of a task, once. */
function prepare(one) {
  // 0 at the threshold, 1 at the end of the answer's side. (The last bit of kind is the answer.)
  one.confidence = one.probability.map((p, row) => {
    const threshold = one.thresholds[one.language[row]];
    const share = one.kind[row] & 1 ? (p - threshold) / (1 - threshold) : (threshold - p) / threshold;
    return Math.max(0, share || 0);
  });
  one.folded = { query: one.queries.map(fold), candidate: one.candidates.map(fold), id: one.id.map(fold) };
}

/** Fill the choices that depend on the task. */
function choices() {
  const chosen = task();
  if (!chosen.confidence) prepare(chosen);
  control("language").replaceChildren(option("", "all"), ...chosen.languages.map((code, place) => option(place, languageName(code))));
  control("slice").replaceChildren(
    option("", "all"),
    ...chosen.slices.map((slice, number) => {
      const group = element("optgroup", { label: slice.title });
      group.append(...slice.values.map((value, place) => option(`${number} ${place}`, value)));
      return group;
    })
  );
}

function filter() {
  const chosen = task();
  const kind = control("kind").value;
  const language = control("language").value;
  const [slice, value] = control("slice").value.split(" ").map(Number);
  const of = control("slice").value ? chosen.slices[slice].of : null;
  const [least, most] = control("confidence").value.split(" ").map(Number);
  // Each word must be somewhere in the row; a text is looked at once, not once a row.
  const words = fold(control("search").value).split(/\s+/).filter(Boolean);
  const found = words.map((word) => ({
    query: chosen.folded.query.map((text) => text.includes(word)),
    candidate: chosen.folded.candidate.map((text) => text.includes(word)),
    word,
  }));
  const fits = {
    errors: (k) => k === 1 || k === 2,
    right: (k) => k === 0 || k === 3,
    all: () => true,
  }[kind] ?? ((k) => k === Number(kind));
  shown = [];
  for (let row = 0; row < chosen.kind.length; row++) {
    if (
      fits(chosen.kind[row]) &&
      (language === "" || chosen.language[row] === Number(language)) &&
      (!of || of[row] === value) &&
      chosen.confidence[row] >= least &&
      (chosen.confidence[row] < most || most === 1) &&
      found.every((one) => one.query[chosen.query[row]] || one.candidate[chosen.candidate[row]] || chosen.folded.id[row] === one.word)
    ) shown.push(row);
  }
  order();
}

function order() {
  const chosen = task();
  const texts = { language: chosen.languages, query: chosen.queries, candidate: chosen.candidates }[sort.by];
  let keys = chosen[sort.by];
  if (texts) {
    // The place of each text in the alphabet, so that rows compare as numbers.
    const places = texts.map((_, place) => place).sort((a, b) => collator.compare(texts[a], texts[b]));
    const rank = new Map(places.map((place, at) => [place, at]));
    keys = keys.map((place) => rank.get(place));
  }
  const sign = sort.down ? -1 : 1;
  shown.sort((a, b) => sign * (keys[a] - keys[b]) || a - b);
  page = 0;
  draw();
}

function cell(label, ...inside) {
  const made = element("td", { role: "cell", "data-label": label });
  made.append(...inside);
  return made;
}

function line(chosen, row) {
  const p = chosen.probability[row];
  const threshold = chosen.thresholds[chosen.language[row]];
  const made = element("tr", { role: "row" });
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--p", p);
  bar.style.setProperty("--threshold", threshold);
  made.append(
    cell("Language", element("span", { title: languageName(chosen.languages[chosen.language[row]]) }, chosen.languages[chosen.language[row]])),
    cell("Query", element("span", { dir: "auto", class: "text" }, chosen.queries[chosen.query[row]]), element("small", { dir: "auto" }, `id ${chosen.id[row]}`)),
    cell("Candidate", element("span", { dir: "auto", class: "text" }, chosen.candidates[chosen.candidate[row]])),
    cell("Answer", element("span", { class: `kind k${chosen.kind[row]}` }, KINDS[chosen.kind[row]])),
    cell("p(relevant)", element("span", { class: "n" }, p.toFixed(3)), bar),
    cell("Confidence", element("span", { class: "n" }, chosen.confidence[row].toFixed(3)))
  );
  return made;
}

function draw() {
  const chosen = task();
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  body.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map((row) => line(chosen, row)));
  const of = (kind) => number.format(shown.reduce((sum, row) => sum + (chosen.kind[row] === kind), 0));
  count.textContent =
    `${number.format(shown.length)} of ${number.format(chosen.kind.length)} rows: ` +
    `${of(1)} false positives, ${of(2)} false negatives, ${number.format(shown.filter((row) => chosen.kind[row] % 3 === 0).length)} right`;
  document.getElementById("place").textContent = `Page ${number.format(page + 1)} of ${number.format(pages)}`;
  // Not disabled: a button that has the focus would lose it.
  back.setAttribute("aria-disabled", String(page === 0));
  next.setAttribute("aria-disabled", String(page + 1 >= pages));
}

function turn(step) {
  const to = page + step;
  if (to < 0 || to * PAGE >= shown.length) return;
  page = to;
  draw();
  count.scrollIntoView({ block: "nearest" });
}

for (const button of headers) {
  button.addEventListener("click", () => {
    const numeric = ["probability", "confidence"].includes(button.value);
    sort = { by: button.value, down: sort.by === button.value ? !sort.down : numeric };
    for (const other of headers) other.parentElement.removeAttribute("aria-sort");
    button.parentElement.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    order();
  });
}
let waiting;
form.addEventListener("change", (event) => {
  if (event.target.name === "task") choices();
  if (event.target.name !== "search") filter();
});
control("search").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(filter, 150); // a pause in typing
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => {
  const kept = control("task").value;
  setTimeout(() => {
    control("task").value = kept;
    filter();
  });
});
back.addEventListener("click", () => turn(-1));
next.addEventListener("click", () => turn(1));

control("task").replaceChildren(...tasks.map((one, place) => option(place, one.task.toUpperCase())));
choices();
filter();
