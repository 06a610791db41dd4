// The page of the server. The state of the form is the part of the address after "#", so that a link keeps it.
const QUESTIONS = { qc: "Does the category answer the query?", qi: "Is the item what the query asks for?" };
const MAX_BRANCH_DEPTH = 3; // levels of category paths that are offered as a choice
const form = document.getElementById("question");
const control = (name) => form.elements.namedItem(name);
const results = document.getElementById("results");
const head = document.querySelector("#answers thead tr");
const body = document.querySelector("#answers tbody");
const error = document.getElementById("error");
const statusLine = document.getElementById("status");
const numberFormat = new Intl.NumberFormat("en");
const collator = new Intl.Collator();

let info; // the response of /v1/info
let branches = []; // lists of categories, by the index of the choice
let answers = []; // {candidate, order, models: [answer of each model]}
let thresholds = []; // of each model
let sort = { column: 0, descending: true }; // index of a model, "candidate" or "difference"
let submissions = 0; // number of submissions so far; only the answers to the last one are shown

const lines = (text) => [...new Set(text.split("\n").map((line) => line.trim()).filter(Boolean))];
const key = () => sessionStorage.getItem("babelcart-key");

/** Ask for the key; return the Error to raise. */
function keyIsWrong() {
  form.querySelector(".key").hidden = false;
  control("key").focus();
  return new Error("The API key is missing or wrong.");
}

/** Send a request; raise an Error with the server's message. */
async function request(path, content) {
  if (key() && !/^[!-~]+$/.test(key())) throw keyIsWrong(); // no header can contain it
  const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
  const options = content === undefined ? { headers } : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(content) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
  if (response.status === 401) throw keyIsWrong();
  if (!response.ok) {
    const failure = await response.json().catch(() => ({ message: `status ${response.status}` }));
    throw new Error(failure.message);
  }
  return response.json();
}

function showError(failure) {
  error.textContent = failure ? failure.message : "";
  error.hidden = !failure;
}

/** Group the categories of the shop by the first levels of their paths. */
function fillBranches(categories) {
  const members = new Map([["", []]]);
  for (const { candidate, levels } of categories) {
    members.get("").push(candidate);
    for (let depth = 1; depth < Math.min(levels.length, MAX_BRANCH_DEPTH); depth++) {
      const path = levels.slice(0, depth).join(" › ");
      if (!members.has(path)) members.set(path, []);
      members.get(path).push(candidate);
    }
  }
  const paths = [...members.keys()].sort(collator.compare);
  branches = paths.map((path) => members.get(path));
  const choices = paths.map((path, index) => {
    const count = branches[index].length;
    const choice = option(String(index), `${path || "All categories"} (${numberFormat.format(count)})`);
    if (count > info.max_candidates) {
      choice.disabled = true;
      choice.textContent += `: more than the ${numberFormat.format(info.max_candidates)} of a request`;
    }
    return choice;
  });
  control("branch").replaceChildren(option("", "Choose a branch to fill the candidates"), ...choices);
  form.querySelector(".branch").hidden = false;
}

function countCandidates() {
  const count = lines(control("candidates").value).length;
  document.getElementById("candidate-count").textContent = count ? `(${numberFormat.format(count)})` : "";
}

/** Read what the server has, and show it. */
async function load() {
  info = await request("v1/info");
  document.querySelector("h1").textContent = QUESTIONS[info.task];
  document.title = `${info.models[0].name} · Babelcart`;
  document.getElementById("models").textContent = info.models.map((model) => `${model.name}, revision ${model.revision}`).join("; ");
  document.getElementById("languages").replaceChildren(...info.languages.map((code) => option(code, languageName(code))));
  if (info.candidate_count && control("branch").length === 0) fillBranches(await request("v1/candidates"));
}

function writeState() {
  const state = new URLSearchParams({ query: control("query").value });
  if (control("language").value) state.set("language", control("language").value);
  for (const candidate of lines(control("candidates").value)) state.append("candidate", candidate);
  history.replaceState(null, "", `#${state}`);
}

/** Fill the form from the address; return whether it holds a question. */
function readState() {
  const state = new URLSearchParams(location.hash.slice(1));
  control("query").value = state.get("query") ?? "";
  control("language").value = state.get("language") ?? "";
  control("candidates").value = state.getAll("candidate").join("\n");
  countCandidates();
  return state.has("query") && state.has("candidate");
}

/** Score the question of the form with each model, and show the answers. */
async function submit() {
  const submission = ++submissions;
  const [query, stated, candidates] = [control("query").value, control("language").value.trim(), lines(control("candidates").value)];
  if (!query.trim() || !candidates.length) return;
  if (control("key").value) sessionStorage.setItem("babelcart-key", control("key").value);
  writeState();
  showError(null);
  let language = stated;
  statusLine.textContent = "Scoring …";
  form.setAttribute("aria-busy", "true");
  const start = performance.now();
  let shown = false;
  try {
    await load();
    const described = request("v1/describe", stated ? { query, language: stated } : { query });
    described.catch(() => {}); // reported where it is awaited
    language ||= info.needs_language ? (await described).language?.code : undefined;
    const scored = info.models.map((model) => request("v1/score", { query, candidates, language, model: model.name }));
    const responses = await Promise.all(scored);
    if (submission !== submissions) return;
    thresholds = responses.map((response) => response.results[0].threshold);
    answers = candidates.map((candidate, order) => ({ candidate, order, models: responses.map((response) => response.results[0].answers[order]) }));
    form.querySelector(".key").hidden = true;
    results.hidden = false;
    showStatus(performance.now() - start);
    showFacts(stated, language);
    showTraining(null);
    showHead();
    showAnswers();
    shown = true;
    const description = await described; // the first guess of a language takes seconds
    if (submission !== submissions) return;
    showFacts(stated, language, description);
    showTraining(description.training_queries);
  } catch (failure) {
    if (submission !== submissions) return;
    if (shown) showFacts(stated, language, null);
    else hideAnswers();
    showError(failure);
  } finally {
    if (submission === submissions) form.removeAttribute("aria-busy");
  }
}

function hideAnswers() {
  statusLine.textContent = "";
  results.hidden = true;
}

function showStatus(milliseconds) {
  const relevant = answers.filter(({ models }) => models[0].relevant).length;
  const differing = answers.filter(differs).length;
  const parts = [`${numberFormat.format(relevant)} of ${numberFormat.format(answers.length)} relevant`];
  if (info.models.length > 1) parts[0] = `${info.models[0].name}: ${parts[0]}`;
  if (info.models.length > 1) parts.push(differing ? `the models differ on ${numberFormat.format(differing)}` : "the models agree");
  parts.push(`${(milliseconds / 1000).toFixed(1)} s`);
  statusLine.textContent = parts.join(", ");
}

const differs = ({ models }) => new Set(models.map((answer) => answer.relevant)).size > 1;

function fact(name, ...values) {
  const row = element("div", {});
  const value = element("dd", {});
  value.append(...values);
  row.append(element("dt", {}, name), value);
  return row;
}

/** Show what is known about the query; `description` is undefined until it has arrived, and null if that failed. */
function showFacts(stated, language, description) {
  const missing = description === null ? "not available" : "…";
  const facts = [];
  if (stated) facts.push(fact("Language, as stated", languageName(stated)));
  facts.push(fact("Language, guessed", description ? describeGuess(description.language) : missing));
  if (language && !stated) facts.push(fact("Scored as", languageName(language)));
  if (description?.translations.length) facts.push(fact("Translations", ...describeTranslations(description.translations)));
  const several = info.models.length > 1;
  facts.push(fact("Threshold", info.models.map((model, index) => formatProbability(thresholds[index]) + (several ? ` (${model.name})` : "")).join(", ")));
  document.getElementById("facts").replaceChildren(...facts);
}

const describeGuess = (guess) => (guess ? `${languageName(guess.code)} (confidence ${guess.confidence.toFixed(2)})` : "not certain enough");

function describeTranslations(translations) {
  return translations.flatMap(({ language, text }, index) => [
    index ? " · " : "", element("span", { dir: "auto", lang: language }, text), element("small", {}, ` ${language}`),
  ]);
}

function heading(text, column) {
  const cell = element("th", { scope: "col" });
  const button = element("button", { type: "button", value: column }, text);
  button.addEventListener("click", () => {
    const numeric = column !== "candidate";
    sort = { column, descending: sort.column === column ? !sort.descending : numeric };
    showHead();
    head.querySelector(`button[value="${column}"]`).focus();
    showAnswers();
  });
  if (sort.column === column) cell.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
  cell.append(button);
  return cell;
}

function showHead() {
  if (sort.column === "difference" ? info.models.length < 2 : sort.column >= info.models.length) sort = { column: 0, descending: true };
  const several = info.models.length > 1;
  const cells = [heading("Candidate", "candidate"), ...info.models.map((model, index) => heading(several ? model.name : "p(relevant)", index))];
  if (several) cells.push(heading("Difference", "difference"));
  head.replaceChildren(...cells);
  document.getElementById("answers").classList.toggle("several", several);
}

const difference = ({ models }) => models[1].p_relevant - models[0].p_relevant;

function showAnswers() {
  const sign = sort.descending ? -1 : 1;
  const compare = {
    candidate: (a, b) => collator.compare(a.candidate, b.candidate),
    difference: (a, b) => difference(a) - difference(b),
  }[sort.column] ?? ((a, b) => a.models[sort.column].p_relevant - b.models[sort.column].p_relevant);
  body.replaceChildren(...[...answers].sort((a, b) => sign * compare(a, b) || a.order - b.order).map(answerRow));
}

const decision = (relevant) => element("span", { class: relevant ? "kind" : "kind not" }, relevant ? "relevant" : "not relevant");

function answerRow(answer) {
  const row = element("tr", differs(answer) ? { class: "differs" } : {});
  const candidate = element("td", {});
  candidate.append(element("span", { dir: "auto", class: "text" }, answer.candidate));
  for (const note of answer.models[0].notes) candidate.append(element("small", {}, info.notes[note]));
  row.append(candidate);
  answer.models.forEach(({ p_relevant: p, relevant }, index) => {
    const several = info.models.length > 1;
    const cell = element("td", several ? { "data-label": info.models[index].name } : {});
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--p", p);
    bar.style.setProperty("--threshold", thresholds[index]);
    const value = element("span", { class: "value" });
    value.append(element("span", { class: "n" }, formatProbability(p)), decision(relevant));
    cell.append(value, bar);
    row.append(cell);
  });
  if (info.models.length > 1) {
    const change = difference(answer);
    row.append(element("td", { class: "n", "data-label": "Difference" }, (change < 0 ? "−" : "+") + Math.abs(change).toFixed(3)));
  }
  return row;
}

function showTraining(queries) {
  document.getElementById("training").hidden = !queries;
  const rows = (queries ?? []).map((near) => {
    const query = element("td", {});
    query.append(element("span", { dir: "auto", class: "text" }, near.query), element("small", {}, `similarity ${near.similarity.toFixed(2)}`));
    const labelled = element("td", {});
    for (const row of near.rows) {
      const line = element("div", { class: "value" });
      line.append(decision(row.label), element("span", { dir: "auto", class: "text" }, row.candidate), element("small", {}, row.language));
      labelled.append(line);
    }
    const cells = element("tr", {});
    cells.append(query, labelled);
    return cells;
  });
  document.querySelector("#training tbody").replaceChildren(...rows);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
control("key").addEventListener("change", () => {
  sessionStorage.setItem("babelcart-key", control("key").value);
  load().then(() => showError(null), showError);
});
control("candidates").addEventListener("input", countCandidates);
control("branch").addEventListener("change", () => {
  const branch = branches[control("branch").value];
  if (branch) control("candidates").value = branch.join("\n");
  countCandidates();
});
document.getElementById("copy").addEventListener("click", async () => {
  writeState();
  try {
    await navigator.clipboard.writeText(location.href);
    statusLine.textContent = "The link is copied.";
  } catch {
    statusLine.textContent = "The browser does not allow this page to copy; copy its address by hand.";
  }
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address keeps the question
  results.focus();
});
window.addEventListener("hashchange", () => {
  if (readState()) return submit();
  submissions++; // answers that arrive later are not shown
  form.removeAttribute("aria-busy");
  hideAnswers();
  showError(null);
});

if (readState()) submit();
else load().catch(showError);
