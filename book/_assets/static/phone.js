// On a phone a formula begins at the left edge, so that its number costs no room on both sides. Runs before MathJax does.
if (window.MathJax && window.matchMedia("(max-width: 36rem)").matches) {
  window.MathJax.chtml = { displayAlign: "left" };
}
