// What is wider than the page scrolls in itself, and the keyboard can reach it: only where there is something to scroll.
const WIDE = ".bd-article :is(div.math, mjx-container[display], pre, .cell_output, .pt-figure, .pst-scrollable-table-container, .pt-table)";

function reach() {
  for (const box of document.querySelectorAll(WIDE)) {
    const scrolls = box.scrollWidth > box.clientWidth + 1 && !["visible", "clip", "hidden"].includes(getComputedStyle(box).overflowX);
    if (scrolls && !box.hasAttribute("tabindex")) {
      box.tabIndex = 0;
      if (!box.matches("pre")) {
        box.setAttribute("role", "region");
        box.setAttribute("aria-label", box.matches(".math, mjx-container") ? "formula, wider than the page" : box.matches(".pt-figure") ? "figure, wider than the page" : "table or output, wider than the page");
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
  Promise.resolve(ready).then(reach);
  addEventListener("resize", reach);
});
