// The explorers of papers and methods: a filter form over rows of a JSON file (see tools/explorer.py for its shape).
// The address holds the filters, so a view can be shared. Whatever comes from a record is put in as text, never as HTML.
{
  const root = document.querySelector(".explorer");
  const part = (name) => root.querySelector(`.explorer__${name}`);
  const [form, status, more, list] = [part("form"), part("status"), part("more"), document.createElement("ul")];
  const STEP = 50; // rows shown at once
  let facets, rows, index, indexing, found, shown, typing;

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // --- the form ---

  const choice = (facet, value) => {
    const depth = facet.kind === "tree" ? value[0].split("/").length - 1 : 0;
    value.label = "\u2003".repeat(depth) + value[1]; // options cannot be styled, so depth is a wide space
    const option = make("option", { value: value[0] });
    (value.options ??= []).push(option);
    return option;
  };

  const select = (facet, name, label) =>
    make("label", {}, label, make("select", { name }, make("option", { value: "", textContent: "any" }), ...facet.values.map((v) => choice(facet, v))));

  const radios = (facet) => {
    const button = (value, label, count) =>
      make("label", {}, make("input", { type: "radio", name: facet.id, value, defaultChecked: !value }), make("span", {}, label, count ?? ""));
    const choices = facet.values.map((value) => button(value[0], `${value[1]} `, (value.count = make("span", { className: "count" }))));
    return make("fieldset", {}, make("legend", { textContent: facet.name }), button("", "any"), ...choices);
  };

  const control = (facet) => {
    if (facet.kind === "range") return [select(facet, "from", `${facet.name} from`), select(facet, "to", `${facet.name} to`)];
    return [facet.values.length > 4 ? select(facet, facet.id, facet.name) : radios(facet)];
  };

  // --- what is asked for, and what answers it ---

  const asked = () => [...new FormData(form)].filter(([, value]) => value.trim());

  /** For every facet that is set, whether the value of a number satisfies it. */
  const wanted = (query) =>
    facets.map((facet) => {
      const [at, from, to] = [facet.id, "from", "to"].map((name) => facet.values.findIndex((value) => value[0] === query.get(name)));
      if (facet.kind !== "range") return at < 0 ? null : (n) => n === at;
      return from < 0 && to < 0 ? null : (n) => n >= from && (to < 0 || n <= to);
    });

  const textRanks = (text) => {
    if (!text?.trim()) return null;
    const options = { prefix: true, combineWith: "AND", fuzzy: (term) => (term.length > 5 ? 0.2 : false), boost: { title: 3, more: 2 } };
    return new Map(index.search(text, options).map(({ id }, rank) => [id, rank]));
  };

  /** The rows that pass, and for every value how many would if only the other filters held. */
  const filter = () => {
    const query = new Map(asked());
    const tests = wanted(query);
    const ranks = textRanks(query.get("text"));
    const counts = facets.map((facet) => new Int32Array(facet.values.length));
    found = rows.filter((row) => {
      if (ranks && !ranks.has(row.number)) return false;
      let failed = -1; // the one facet that the row fails: it still counts among that facet's choices
      for (let f = 0; f < tests.length; f++) {
        if (!tests[f] || row.values[f].some(tests[f])) continue;
        if (failed >= 0) return false;
        failed = f;
      }
      for (let f = 0; f < tests.length; f++) if (failed < 0 || failed === f) for (const n of row.values[f]) counts[f][n]++;
      return failed < 0;
    });
    if (ranks) found.sort((a, b) => ranks.get(a.number) - ranks.get(b.number));
    return counts;
  };

  // --- what is shown ---

  const draw = ({ row, tags }) =>
    make("li", {}, make("a", { href: `${row[0]}/`, textContent: row[1] }), make("span", { className: "by", textContent: row[2] }),
      make("span", { className: "tags" }, ...tags.map((tag) => make("span", { className: "tag", textContent: tag }))));

  const showMore = () => {
    list.append(...found.slice(shown, (shown += STEP)).map(draw));
    more.hidden = shown >= found.length;
  };

  const load = async (file) => {
    const response = await fetch(`../${root.dataset.kind}${file}.json`);
    if (!response.ok) throw new Error(response.statusText);
    return response.json();
  };

  const failed = () => (status.textContent = "This could not be loaded. Try again, or browse by the links above.");

  /** The index of words, made when the first word is about to be typed. */
  const prepare = async () => {
    const words = await load("-words");
    index = new MiniSearch({ fields: ["title", "line", "more", "labels"] });
    index.addAll(rows.map(({ row, number, values }) => {
      const labels = values.flatMap((chosen, f) => (facets[f].values.length > 4 ? chosen.map((n) => facets[f].values[n][1]) : [])).join(" ");
      return { id: number, title: row[1], line: row[2], more: words[number], labels };
    }));
  };
  const prepared = () => (indexing ??= prepare().catch(() => ((indexing = null), failed())));

  const show = async () => {
    const waiting = () => form.elements.text.value.trim() && !index;
    if (waiting()) await prepared();
    if (waiting()) return;
    const counts = filter();
    facets.forEach((facet, f) =>
      facet.values.forEach((value, n) => {
        if (value.count) value.count.textContent = counts[f][n];
        for (const option of value.options ?? []) {
          option.textContent = `${value.label} (${counts[f][n]})`;
          option.disabled = !counts[f][n] && !option.selected;
        }
      })
    );
    status.textContent = `${found.length === rows.length ? "All" : `${found.length} of`} ${rows.length} ${root.dataset.kind}`;
    list.replaceChildren();
    shown = 0;
    showMore();
    root.dataset.ready = "";
  };

  // --- the address ---

  const remember = (how) => {
    const address = `${location.pathname}?${new URLSearchParams(asked())}`.replace(/\?$/, "");
    if (address !== location.pathname + location.search) history[how](null, "", address);
  };

  const recall = () => {
    clearTimeout(typing);
    form.reset();
    for (const [name, value] of new URLSearchParams(location.search)) {
      const field = form.elements.namedItem(name);
      if (field) field.value = value.slice(0, 200); // a choice that does not exist selects nothing
      if (field?.tagName === "SELECT" && field.selectedIndex < 0) field.value = "";
    }
    show();
  };

  const start = (data) => {
    facets = data.facets;
    rows = data.rows.map((row, number) => {
      const numbers = row.slice(3).map((value) => [value].flat());
      const tags = numbers.flatMap((chosen, f) => chosen.map((n) => facets[f].values[n][2])).filter(Boolean);
      return { row, number, tags, values: numbers };
    });
    facets.forEach((facet, f) => {
      if (facet.kind !== "tree") return;
      const places = new Map(facet.values.map((value, n) => [value[0], n]));
      const above = facet.values.map(([id]) => id.split("/").map((_, depth, parts) => places.get(parts.slice(0, depth + 1).join("/"))));
      for (const row of rows) row.values[f] = [...new Set(row.values[f].flatMap((n) => above[n]))];
    });
    part("facets").replaceChildren(...facets.flatMap(control));
    root.querySelector(".rows").replaceChildren(list);
    recall();
    form.elements.text.addEventListener("focus", prepared);
    form.addEventListener("input", (event) => {
      clearTimeout(typing);
      show();
      if (event.target.name !== "text") remember("pushState");
      else typing = setTimeout(remember, 200, "replaceState"); // no entry in the history for every letter
    });
    part("clear").addEventListener("click", () => {
      form.reset();
      show();
      remember("pushState");
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", showMore);
    addEventListener("popstate", () => root.isConnected && recall());
  };

  if (matchMedia("(max-width: 59.9em)").matches) root.querySelector("details").open = false;
  load("").then(start).catch(failed);
}
