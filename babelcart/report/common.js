// What the report and the page of the server share. Text from the data is inserted with textContent, so it cannot become markup.
"use strict";
const languageNames = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });

/** Create an element with attributes and text. */
function element(name, attributes, text) {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  if (text !== undefined) created.textContent = text;
  return created;
}

const option = (value, text) => element("option", { value }, text);

/** Three decimals, or more where 0 or 1 is nearer than 0.001, so that 0.99996 is not displayed as 1.000. */
function formatProbability(p) {
  const distance = Math.min(p, 1 - p);
  if (distance <= 0 || distance >= 0.001) return p.toFixed(3);
  if (p < 1e-6) return p.toExponential(1);
  return p.toFixed(1 - Math.floor(Math.log10(distance)));
}

function languageName(code) {
  try {
    const name = languageNames.of(code);
    return name ? `${code} – ${name}` : code;
  } catch {
    return code; // not a valid code for the browser
  }
}
