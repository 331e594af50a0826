// <fusion-lab>: the page's picture, run again in the page. Python lives in a worker (worker.js) that all labs share and that
// starts with the first Run; where runtime.json names no runtime, nothing is shown here and the page is complete without.

const ROOT = new URL("../../", import.meta.url);
const PATIENCE = 60; // seconds without a sign of life until a start counts as failed

let settings; // of runtime.json
let worker, waiting; // the worker, and the lab whose answer is awaited
let started = false;

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

function stop() {
  worker?.terminate();
  worker = waiting = undefined;
  started = false;
}

class FusionLab extends HTMLElement {
  async connectedCallback() {
    if (this.childElementCount) return;
    settings ??= fetch(new URL("assets/lab/runtime.json", ROOT)).then((response) => response.json()).catch(() => ({}));
    this.runtime = await settings;
    if (!this.runtime.index || this.childElementCount) return;
    const lab = this.closest(".lab");
    this.figure = lab.querySelector("figure.run");
    this.reading = this.figure.querySelector("figcaption");
    this.details = lab.querySelector("details.lab-code");
    this.original = { picture: this.figure.querySelector("svg"), reading: this.reading.textContent };
    this.build();
  }

  disconnectedCallback() {
    clearTimeout(this.watchdog);
    if (waiting === this) stop();
  }

  build() {
    const code = this.details.querySelector("pre code").textContent.replace(/\n*$/, "\n");
    const size = Math.round((this.runtime.bytes ?? 0) / 1e6);
    this.go = make("button", { type: "button", className: "md-button md-button--primary", textContent: "Run" });
    this.halt = make("button", { type: "button", className: "md-button", textContent: "Stop", disabled: true });
    this.back = make("button", { type: "button", className: "md-button", textContent: "Reset" });
    this.edit = make("button", { type: "button", className: "md-button", textContent: "Edit the code" });
    this.status = make("p", { className: "lab-status" });
    this.status.setAttribute("role", "status");
    this.status.textContent = started
      ? "Python is loaded: Run or move a slider."
      : `Run loads Python into this page${size ? `, ${size} MB once` : ""}. It computes with NumPy, not with PyTorch's kernels.`;
    this.output = make("pre", { className: "lab-output", hidden: true, tabIndex: 0 });
    this.output.setAttribute("aria-label", "Output");
    this.sliders = JSON.parse(this.dataset.controls).map((control) => this.slider(control));
    this.append(
      make("div", { className: "lab-controls" }, ...this.sliders.map(({ row }) => row)),
      make("div", { className: "lab-buttons" }, this.go, this.halt, this.back, this.edit),
      this.status,
      this.output,
    );
    this.editor(code);
    this.go.onclick = () => this.run();
    this.halt.onclick = () => this.stopped();
    this.back.onclick = () => this.reset();
    this.edit.onclick = () => this.open();
  }

  slider({ name, low, high, start, step }) {
    const input = make("input", { type: "range", min: low, max: high, step });
    const shown = make("output", {});
    const show = () => (shown.value = String(Number(input.value)));
    input.value = start;
    show();
    input.oninput = () => {
      show();
      if (started) this.run();
    };
    const row = make("label", {}, make("code", { textContent: name }), input, shown);
    return { name, start, input, show, row };
  }

  editor(code) {
    this.code = code;
    this.text = make("textarea", { spellcheck: false, value: code, rows: code.split("\n").length, wrap: "off", autocapitalize: "off" });
    this.text.setAttribute("aria-label", "The code of this picture");
    this.numbers = make("div", { className: "lab-numbers" });
    this.numbers.setAttribute("aria-hidden", "true");
    this.field = make("div", { className: "lab-editor", hidden: true }, this.numbers, this.text);
    this.details.append(this.field);
    this.text.oninput = () => this.number();
    this.text.onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.run();
      }
    };
    this.number();
  }

  // One number a line; the line of an error is marked.
  number(wrong) {
    const count = this.text.value.split("\n").length;
    this.text.rows = count;
    this.numbers.replaceChildren(
      ...Array.from({ length: count }, (_, i) => make("span", { textContent: i + 1, className: i + 1 === wrong ? "wrong" : "" })),
    );
  }

  open() {
    this.details.open = true;
    this.details.querySelector(".highlight").hidden = true;
    this.field.hidden = false;
    this.text.focus({ preventScroll: true });
  }

  get untouched() {
    return this.text.value === this.code && this.sliders.every(({ input, start }) => Number(input.value) === start);
  }

  async run() {
    if (waiting) {
      waiting.again = waiting === this;
      return;
    }
    waiting = this;
    this.again = false;
    this.go.disabled = true;
    this.halt.disabled = false;
    const untouched = this.untouched;
    const values = Object.fromEntries(this.sliders.map(({ name, input }) => [name, Number(input.value)]));
    const files = this.dataset.files.split(" ");
    if (!worker) {
      worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
      worker.postMessage({ type: "start", root: ROOT.href, runtime: this.runtime, files });
      this.watch();
    } else if (started) this.status.textContent = "Running …";
    worker.onmessage = ({ data }) => this[data.type]?.(data);
    worker.onerror = (event) => this.failed({ text: event.message || "its script could not be loaded" });
    const own = worker;
    this.recorded ??= await fetch(new URL(`demos/data/${this.dataset.method}.json`, ROOT)).then((response) => response.text());
    if (worker !== own) return; // stopped meanwhile
    const recorded = untouched ? this.recorded : null;
    worker.postMessage({ type: "run", method: this.dataset.method, code: this.text.value, values: JSON.stringify(values), recorded, files });
  }

  // A runtime that is blocked halfway can wait for ever without an error.
  watch() {
    clearTimeout(this.watchdog);
    const patience = this.runtime.patience ?? PATIENCE;
    const said = `nothing was heard for ${patience} seconds; a network, a browser setting or a policy may block WebAssembly`;
    this.watchdog = setTimeout(() => this.failed({ text: said }), 1000 * patience);
  }

  step({ text }) {
    this.status.textContent = `${text} …`;
    this.watch();
  }

  ready() {
    clearTimeout(this.watchdog);
    started = true;
    this.status.textContent = "Running …";
  }

  failed({ text }) {
    stop();
    this.idle(`The runtime could not be used: ${text}. The picture above is PyTorch's own.`);
  }

  stopped() {
    stop();
    this.idle("Stopped. Run starts Python anew.");
  }

  idle(words) {
    clearTimeout(this.watchdog);
    waiting = undefined;
    this.go.disabled = false;
    this.halt.disabled = true;
    this.status.textContent = words;
  }

  done({ answer }) {
    this.output.hidden = !answer.printed && !answer.error;
    this.output.classList.toggle("error", Boolean(answer.error));
    if (answer.error) {
      const place = answer.line ? `Line ${answer.line}: ` : "";
      this.output.textContent = `${answer.printed}${place}${answer.error}${answer.where ? `\n(${answer.where})` : ""}`;
      this.idle(`Stopped by an error${answer.line ? ` in line ${answer.line}` : ""}.`);
    } else {
      this.output.textContent = answer.printed;
      this.draw(answer);
      this.idle(this.words(answer));
    }
    this.number(answer.line);
    if (this.again) this.run();
  }

  draw({ svg, title, reading }) {
    const parsed = new DOMParser().parseFromString(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '), "image/svg+xml");
    this.figure.querySelector("svg").replaceWith(document.importNode(parsed.documentElement, true));
    this.reading.textContent = `${title}. ${reading}`;
  }

  words({ seconds, difference }) {
    const time = seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`;
    if (difference === undefined) return `Ran in ${time} in this page, on NumPy.`;
    if (difference === null) return `Ran in ${time} in this page, on NumPy; PyTorch recorded other series than these.`;
    const [digits, power] = difference.toExponential(1).split("e");
    const raised = power.replace(/./g, (sign) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign] ?? { "-": "⁻" }[sign] ?? "");
    const size = difference ? `${digits} · 10${raised}` : "0";
    return `Ran in ${time} in this page, on NumPy; largest difference from PyTorch's recorded numbers: ${size}.`;
  }

  reset() {
    if (waiting === this) stop();
    for (const { input, start, show } of this.sliders) {
      input.value = start;
      show();
    }
    this.text.value = this.code;
    this.number();
    this.output.hidden = true;
    this.figure.querySelector("svg").replaceWith(this.original.picture);
    this.reading.textContent = this.original.reading;
    this.idle("As published: the numbers of PyTorch.");
  }
}

customElements.define("fusion-lab", FusionLab);
