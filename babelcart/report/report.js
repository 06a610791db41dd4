// The browser of the rows.
"use strict";
const PAGE_SIZE = 50;
const TYPING_PAUSE = 150; // milliseconds
const KINDS = ["true negative", "false positive", "false negative", "true positive"]; // by 2 * label + prediction
const tasks = JSON.parse(document.getElementById("table").textContent);
const form = document.getElementById("filters");
const control = (name) => form.elements.namedItem(name);
const body = document.querySelector("#rows tbody");
const headers = [...document.querySelectorAll("#rows thead button")];
const previous = document.getElementById("previous");
const next = document.getElementById("next");
const count = document.getElementById("count");
const collator = new Intl.Collator();
const numberFormat = new Intl.NumberFormat("en");

let sort = { column: "confidence", descending: true };
let matches = []; // indices of the filtered rows, sorted
let page = 0;

const currentTask = () => tasks[Number(control("task").value)];
const fold = (text) => text.normalize("NFKC").toLowerCase();

/** Compute the columns that are derived from the rows of a task, once for each task. */
function prepare(task) {
  // Confidence is 0 at the threshold, and 1 if p(relevant) is 0 or 1. The lowest bit of kind is the prediction.
  task.confidence = task.probability.map((p, row) => {
    const threshold = task.thresholds[task.language[row]];
    const share = task.kind[row] & 1 ? (p - threshold) / (1 - threshold) : (threshold - p) / threshold;
    return Math.max(0, share || 0);
  });
  task.folded = { query: task.queries.map(fold), candidate: task.candidates.map(fold), id: task.id.map(fold) };
}

/** Fill the filters whose options depend on the task. */
function fillFilters() {
  const task = currentTask();
  if (!task.confidence) prepare(task);
  control("language").replaceChildren(option("", "all"), ...task.languages.map((code, index) => option(index, languageName(code))));
  control("slice").replaceChildren(
    option("", "all"),
    ...task.slices.map((slice, sliceIndex) => {
      const group = element("optgroup", { label: slice.title });
      group.append(...slice.values.map((value, valueIndex) => option(`${sliceIndex} ${valueIndex}`, value)));
      return group;
    })
  );
}

/** Find the rows that pass all filters. */
function filter() {
  const task = currentTask();
  const kind = control("kind").value;
  const language = control("language").value;
  const [sliceIndex, valueIndex] = control("slice").value.split(" ").map(Number);
  const rowValues = control("slice").value ? task.slices[sliceIndex].value_index : null;
  const [minConfidence, maxConfidence] = control("confidence").value.split(" ").map(Number);
  // Each word must occur in the query or the candidate, or be the id. Each distinct text is searched once.
  const words = fold(control("search").value).split(/\s+/).filter(Boolean);
  const wordMatches = words.map((word) => ({
    query: task.folded.query.map((text) => text.includes(word)),
    candidate: task.folded.candidate.map((text) => text.includes(word)),
    word,
  }));
  const kindMatches = {
    errors: (rowKind) => rowKind === 1 || rowKind === 2,
    correct: (rowKind) => rowKind === 0 || rowKind === 3,
    all: () => true,
  }[kind] ?? ((rowKind) => rowKind === Number(kind));
  matches = [];
  for (let row = 0; row < task.kind.length; row++) {
    if (
      kindMatches(task.kind[row]) &&
      (language === "" || task.language[row] === Number(language)) &&
      (!rowValues || rowValues[row] === valueIndex) &&
      task.confidence[row] >= minConfidence &&
      (task.confidence[row] < maxConfidence || maxConfidence === 1) &&
      wordMatches.every((match) => match.query[task.query[row]] || match.candidate[task.candidate[row]] || task.folded.id[row] === match.word)
    ) matches.push(row);
  }
  order();
}

/** Sort the filtered rows and show the first page. */
function order() {
  const task = currentTask();
  const texts = { language: task.languages, query: task.queries, candidate: task.candidates }[sort.column];
  let keys = task[sort.column];
  if (texts) {
    // Replace each text by its alphabetical rank, so that rows are compared as numbers.
    const alphabetical = texts.map((_, index) => index).sort((a, b) => collator.compare(texts[a], texts[b]));
    const rank = new Map(alphabetical.map((index, position) => [index, position]));
    keys = keys.map((index) => rank.get(index));
  }
  const sign = sort.descending ? -1 : 1;
  matches.sort((a, b) => sign * (keys[a] - keys[b]) || a - b);
  page = 0;
  draw();
}

function tableCell(label, ...children) {
  const cell = element("td", { role: "cell", "data-label": label });
  cell.append(...children);
  return cell;
}

function tableRow(task, row) {
  const p = task.probability[row];
  const language = task.languages[task.language[row]];
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--p", p);
  bar.style.setProperty("--threshold", task.thresholds[task.language[row]]);
  const cells = element("tr", { role: "row" });
  cells.append(
    tableCell("Language", element("span", { title: languageName(language) }, language)),
    tableCell("Query", element("span", { dir: "auto", class: "text" }, task.queries[task.query[row]]), element("small", { dir: "auto" }, `id ${task.id[row]}`)),
    tableCell("Candidate", element("span", { dir: "auto", class: "text" }, task.candidates[task.candidate[row]])),
    tableCell("Result", element("span", { class: `kind k${task.kind[row]}` }, KINDS[task.kind[row]])),
    tableCell("p(relevant)", element("span", { class: "n" }, formatProbability(p)), bar),
    tableCell("Confidence", element("span", { class: "n" }, task.confidence[row].toFixed(3)))
  );
  return cells;
}

/** Show the current page of the filtered rows. */
function draw() {
  const task = currentTask();
  const pages = Math.max(1, Math.ceil(matches.length / PAGE_SIZE));
  body.replaceChildren(...matches.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE).map((row) => tableRow(task, row)));
  const rowsOf = (...kinds) => numberFormat.format(matches.filter((row) => kinds.includes(task.kind[row])).length);
  count.textContent =
    `${numberFormat.format(matches.length)} of ${numberFormat.format(task.kind.length)} rows: ` +
    `${rowsOf(1)} false positives, ${rowsOf(2)} false negatives, ${rowsOf(0, 3)} correct`;
  document.getElementById("page-number").textContent = `Page ${numberFormat.format(page + 1)} of ${numberFormat.format(pages)}`;
  // Only aria-disabled: a button with the attribute disabled would lose the focus.
  previous.setAttribute("aria-disabled", String(page === 0));
  next.setAttribute("aria-disabled", String(page + 1 >= pages));
}

function turnPage(step) {
  const target = page + step;
  if (target < 0 || target * PAGE_SIZE >= matches.length) return;
  page = target;
  draw();
  count.scrollIntoView({ block: "nearest" });
}

for (const button of headers) {
  button.addEventListener("click", () => {
    const numeric = ["probability", "confidence"].includes(button.value);
    sort = { column: button.value, descending: sort.column === button.value ? !sort.descending : numeric };
    for (const other of headers) other.parentElement.removeAttribute("aria-sort");
    button.parentElement.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
    order();
  });
}
let typingTimer;
form.addEventListener("change", (event) => {
  if (event.target.name === "task") fillFilters();
  if (event.target.name !== "search") filter();
});
control("search").addEventListener("input", () => {
  clearTimeout(typingTimer);
  typingTimer = setTimeout(filter, TYPING_PAUSE);
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => {
  const taskIndex = control("task").value; // a reset clears the filters but keeps the task
  setTimeout(() => {
    control("task").value = taskIndex;
    filter();
  });
});
previous.addEventListener("click", () => turnPage(-1));
next.addEventListener("click", () => turnPage(1));

control("task").replaceChildren(...tasks.map((task, index) => option(index, task.task.toUpperCase())));
fillFilters();
filter();
