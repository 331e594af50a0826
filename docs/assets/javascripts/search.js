// Answers the theme's search box from a worker: its four messages, our own index (catalog/search.json) and MiniSearch.
// The theme sends the pages written by hand with the first message and puts titles and texts into the page as HTML: all is escaped here.
{
  const [SETUP, READY, QUERY, RESULT] = [0, 1, 2, 3];
  const MOST = 40; // results
  let pages = []; // written by hand, in sections
  let loading; // the index is fetched with the first word, not with every page

  const plain = (text) => text.toLowerCase().normalize("NFKD").replace(/[^\p{L}\p{N}]+/gu, ""); // "Git Re-Basin" is "git rebasin"
  const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt()};`);
  const stripped = (html) => html.replace(/<[^>]*>/g, " ").replace(/&(lt|gt|quot|amp);/g, (_, name) => ({ lt: "<", gt: ">", quot: '"', amp: "&" })[name]);

  /** Escaped, with the words that were found marked. */
  const marked = (text, words) => {
    if (!words.length) return escape(text);
    const pattern = new RegExp(`(${words.map((word) => word.replace(/[^\p{L}\p{N}]/gu, "\\$&")).join("|")})`, "giu");
    return text.split(pattern).map((part, n) => (n % 2 ? `<mark>${escape(part)}</mark>` : escape(part))).join("");
  };

  /** What a document may be called: its title, the part before a colon, without and inside parentheses, and its other names. */
  const namesOf = ({ title, names }) =>
    [title, ...names].flatMap((name) => [name, name.split(":")[0], name.split(" (")[0], ...(name.match(/(?<=\()[^()]+(?=\))/g) ?? [])]).map(plain);

  const load = async () => {
    importScripts("../minisearch/minisearch.min.js");
    const response = await fetch("../../catalog/search.json");
    const { kinds, docs } = await response.json();
    const all = docs.map(([kind, location, title, names, people, text]) => ({ kind, location, title, names, people, text }));
    for (const { location, title, text } of pages) {
      all.push({ kind: kinds.length - 1, location, title: stripped(title), names: [], people: "", text: stripped(text) });
    }
    const index = new MiniSearch({ fields: ["title", "names", "people", "text"], extractField: (doc, field) => (field === "names" ? doc.names.join(" ") : doc[field]) });
    const called = new Map(); // a name -> the documents that have it, those of the first kinds first
    all.forEach((doc, id) => {
      doc.id = id;
      for (const name of new Set(namesOf(doc))) called.set(name, [...(called.get(name) ?? []), id]);
    });
    index.addAll(all);
    return { kinds, all, index, called };
  };

  const search = ({ kinds, all, index, called }, query) => {
    const options = { boost: { title: 6, names: 6, people: 3 }, prefix: true, fuzzy: (term) => (term.length > 4 ? 0.2 : false) };
    let hits = index.search(query, { ...options, combineWith: "AND" });
    if (!hits.length) hits = index.search(query, options);
    const named = called.get(plain(query)) ?? [];
    const rank = (hit) => (named.includes(hit.id) ? all[hit.id].kind : kinds.length);
    hits = hits.sort((a, b) => rank(a) - rank(b) || b.score - a.score).slice(0, MOST);
    const groups = new Map(); // a page by hand and those of its sections that were found are one result
    hits.forEach(({ id, queryTerms }, place) => {
      const words = [...new Set(queryTerms)].filter((word) => word.length > 1);
      const terms = Object.fromEntries(words.map((word) => [word, true]));
      const item = (doc) => {
        const text = `<p>${marked(about(doc, kinds, words), words)}</p>`;
        return { location: doc.location, title: marked(doc.title, words), text, terms, score: MOST - place };
      };
      const doc = all[id];
      const page = (doc.kind === kinds.length - 1 && all.find(({ location }) => location === doc.location.split("#")[0])) || doc;
      if (!groups.has(page)) groups.set(page, [item(page)]);
      if (page !== doc) groups.get(page).push(item(doc));
    });
    return [...groups.values()];
  };

  /** Part of a text, from word to word. */
  const clip = (text, near, length) => {
    const from = near && text.indexOf(" ", near) + 1;
    const space = text.lastIndexOf(" ", from + length);
    const end = text.length <= from + length ? text.length : space > from ? space : from + length;
    return `${from ? "… " : ""}${text.slice(from, end)}${end < text.length ? " …" : ""}`;
  };

  /** The line below a title: what it is, by whom, and how its text begins; of a page by hand the place of the first word. */
  const about = ({ kind, people, text }, kinds, words) => {
    if (kind === kinds.length - 1) return clip(text, Math.max(0, text.toLowerCase().indexOf(words[0]) - 60), 180);
    const [first, ...others] = people.split(", ");
    return `${kinds[kind]} · ${first && `${first}${others.length ? " et al." : ""} · `}${clip(text, 0, 160)}`;
  };

  onmessage = async ({ data: { type, data } }) => {
    if (type === SETUP) {
      pages = data.docs;
      postMessage({ type: READY });
    } else if (type === QUERY) {
      let items = [];
      try {
        if (data.trim()) items = search(await (loading ??= load()), data);
      } catch (error) {
        loading = undefined; // the next key tries again
        console.warn(error);
      }
      postMessage({ type: RESULT, data: { items } });
    }
  };
}
