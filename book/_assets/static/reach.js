// What is wider than the page scrolls in itself, and the keyboard can reach it: only where there is something to scroll.
const WIDE =
  ".bd-article :is(div.math, mjx-container[display], pre, dt.sig, .cell_output, .pt-figure, .pst-scrollable-table-container, .pt-table)";
const NAMES = [[".math, mjx-container", "formula"], [".pt-figure", "figure"], ["*", "table or output"]];
const BARE = ["PRE", "DT"]; // code and signatures keep the role that they have

function reach() {
  // Within a line only a formula that is wider than its paragraph scrolls.
  for (const formula of document.querySelectorAll(".bd-article span.math")) {
    const set = formula.querySelector("mjx-container");
    const room = formula.closest("p, li, td, th, dd, div");
    formula.classList.toggle("pt-wide", Boolean(set && room && room.clientWidth && set.offsetWidth > room.clientWidth + 1));
  }
  let count = 0;
  for (const box of document.querySelectorAll(`${WIDE}, .pt-wide`)) {
    const overflow = getComputedStyle(box).overflowX;
    const scrolls = box.scrollWidth > box.clientWidth && ["auto", "scroll"].includes(overflow);
    if (scrolls && (!box.hasAttribute("tabindex") || "reach" in box.dataset)) {
      box.tabIndex = 0;
      if (!BARE.includes(box.nodeName)) {
        count += 1;
        box.setAttribute("role", "region");
        box.setAttribute("aria-label", `${NAMES.find(([kind]) => box.matches(kind))[1]} ${count}, wider than the page`);
      }
      box.dataset.reach = "";
    } else if (!scrolls && "reach" in box.dataset) {
      for (const name of ["tabindex", "role", "aria-label", "data-reach"]) box.removeAttribute(name);
    }
  }
}

// The theme's names for its own controls differ from the words that are seen on them, or are missing.
function name() {
  for (const button of document.querySelectorAll(".search-button-field[aria-label], .search-button__button[aria-label], .theme-switch-button[aria-label]")) {
    const seen = button.innerText.trim();
    if (seen) button.setAttribute("aria-label", seen.replace(/\s+/g, " "));
  }
  for (const summary of document.querySelectorAll(".bd-sidebar-primary summary")) {
    const page = summary.closest("li").querySelector("a");
    if (page && !summary.innerText.trim()) summary.setAttribute("aria-label", `Pages below ${page.innerText.trim()}`);
  }
}

addEventListener("load", () => {
  name();
  const ready = window.MathJax && MathJax.startup && MathJax.startup.promise;
  Promise.all([ready, document.fonts.ready]).then(reach);
  addEventListener("resize", reach);
});
