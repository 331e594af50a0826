// Typeset what the pages mark as mathematics. KaTeX may not run commands that reach outside the formula (trust: false).
document.querySelectorAll(".arithmatex").forEach((element) => {
  const source = element.textContent.trim();
  const display = source.startsWith("\\[");
  katex.render(source.slice(2, -2), element, { displayMode: display, throwOnError: false, trust: false, strict: "ignore" });
  if (display) element.tabIndex = 0; // a wide formula scrolls inside its own box, also by keyboard
});
