// Python in a worker of its own: Pyodide, NumPy, borch, and the project's modules. Stopping it is ending the worker.
// Messages in: start {root, runtime, files}, run {id, method, code, values, recorded, files}.
// Messages out: step {text}, ready, done {id, answer}, failed {text}.

let python, driver, root;
const known = new Set();

const fetched = async (url) => {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return response.arrayBuffer();
};

async function checked(url, sha256) {
  const bytes = await fetched(url);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) throw new Error(`${url} is not the file that was published with this site`);
  return bytes;
}

async function add(files) {
  const missing = files.filter((file) => !known.has(file));
  const texts = await Promise.all(missing.map(async (file) => [file, await fetched(new URL(`catalog/code/${file}`, root))]));
  for (const [file, bytes] of texts) {
    python.FS.mkdirTree(`/lab/${file.slice(0, file.lastIndexOf("/"))}`);
    python.FS.writeFile(`/lab/${file}`, new Uint8Array(bytes));
    known.add(file);
  }
  python.runPython("import importlib; importlib.invalidate_caches()");
}

async function start({ root: page, runtime, files }) {
  root = page;
  const say = (text) => postMessage({ type: "step", text });
  say("Starting Python");
  await WebAssembly.compile(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)); // refused at once where a policy forbids it
  const index = new URL(runtime.index, root).href;
  const { loadPyodide } = await import(`${index}pyodide.mjs`);
  python = await loadPyodide({ indexURL: index });
  say("Loading NumPy");
  await python.loadPackage("numpy", { messageCallback: () => {}, errorCallback: () => {} });
  say("Loading borch");
  for (const { file, sha256 } of runtime.wheels) python.unpackArchive(await checked(new URL(file, index), sha256), "whl");
  python.FS.mkdirTree("/lab/own");
  for (const name of ["driver", "torch_on_borch", "torch_random"]) {
    python.FS.writeFile(`/lab/own/${name}.py`, new Uint8Array(await fetched(new URL(`assets/lab/${name}.py`, root))));
  }
  python.runPython("import sys; sys.path.insert(0, '/lab/own')");
  await add(files);
  driver = python.pyimport("driver");
  driver.start("/lab");
  postMessage({ type: "ready" });
}

const tasks = {
  start,
  async run({ id, method, code, values, recorded, files }) {
    await add(files);
    postMessage({ type: "done", id, answer: JSON.parse(driver.run(method, code, values, recorded)) });
  },
};

let last = Promise.resolve(); // one after the other
onmessage = ({ data }) => {
  last = last.then(() => tasks[data.type](data)).catch((error) => postMessage({ type: "failed", text: String(error?.message ?? error) }));
};
