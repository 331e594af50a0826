// Typeset what the pages mark as mathematics, a few formulas at a time, so that the page answers meanwhile.
// KaTeX may not run commands that reach outside the formula (trust: false).
{
  const waiting = [...document.querySelectorAll(".arithmatex")];

  function typeset(element) {
    const source = element.textContent.trim();
    const display = source.startsWith("\\[");
    katex.render(source.slice(2, -2), element, { displayMode: display, throwOnError: false, trust: false, strict: "ignore" });
    if (display) element.tabIndex = 0; // a wide formula scrolls inside its own box, also by keyboard
  }

  (function some() {
    const began = performance.now();
    while (waiting.length && performance.now() - began < 10) typeset(waiting.shift());
    if (waiting.length) setTimeout(some);
  })();
}
