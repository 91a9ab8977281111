// Below each found page: the section in which most of the words stand, and the words around the first of them.
const words = (new URLSearchParams(location.search).get("q") || "").toLowerCase().match(/[\p{L}\p{N}]+/gu) || [];
// The search finds stems, so that a word may stand in the text with another ending.
const stems = words.map((word) => (word.length > 5 ? word.slice(0, Math.max(5, word.length - 3)) : word));
const at = (text, stem) => text.search(new RegExp(`(^|[^\\p{L}])${stem}`, "iu"));

function best(sections) {
  const score = ([, title, text]) => stems.reduce((sum, stem) => sum + (at(title, stem) >= 0) + (at(text, stem) >= 0), 0);
  return sections.reduce((a, b) => (score(b) > score(a) ? b : a));
}

function explain(item) {
  const link = item.querySelector("a");
  const path = new URL(link.href).pathname;
  const page = Object.keys(SEARCH_TEXTS).filter((name) => path.endsWith(`/${name}.html`)).sort((a, b) => b.length - a.length)[0];
  if (!page || !SEARCH_TEXTS[page].length) return;
  const found = link.hash ? SEARCH_TEXTS[page].find(([id]) => `#${id}` === link.hash) : best(SEARCH_TEXTS[page]);
  if (!found) return;
  const [id, title, text] = found;
  if (!link.hash) {
    link.hash = id;
    if (SEARCH_TEXTS[page][0][0] !== id) link.append(` › ${title}`);
  }
  const places = stems.map((stem) => at(text, stem)).filter((k) => k >= 0);
  if (!places.length) return;
  const start = Math.max(0, Math.min(...places) - 80);
  const context = document.createElement("p");
  context.className = "context";
  context.textContent = `${start ? "…" : ""}${text.slice(start, start + 220).trim()}…`;
  item.append(context);
}

new MutationObserver((changes) => {
  for (const change of changes) {
    for (const node of change.addedNodes) if (node.nodeName === "LI") explain(node);
  }
}).observe(document.getElementById("search-results") || document.body, { childList: true, subtree: true });
