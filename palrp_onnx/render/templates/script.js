"use strict";
(() => {
  const STEPS = 127;
  const ROWS = 50;
  const MAPS = ["total", "content", "position", "score"];

  const all = (root, selector) => [...root.querySelectorAll(selector)];
  const between = (value, low, high) => Math.max(low, Math.min(high, value));
  // A name from the record keeps its direction to itself.
  const isolated = (text) => `\u2068${text}\u2069`;

  function number(value) {
    if (value === 0) return "0";
    return (value < 0 ? "−" : "+") + Math.abs(Number(value.toPrecision(3)));
  }

  function colour(element, value, limit) {
    const step = Math.round(limit ? Math.min(Math.abs(value) / limit, 1) * STEPS : 0);
    clear(element);
    element.classList.add(`k${value < 0 ? STEPS - step : STEPS + 1 + step}`);
    element.classList.toggle("over", Math.abs(value) > limit);
  }

  /** A score has one hue, from its smallest number to its largest. */
  function level(element, value, [low, high]) {
    const share = high > low ? between((value - low) / (high - low), 0, 1) : 0;
    clear(element);
    element.classList.add(`s${Math.round(share * STEPS)}`);
  }

  function clear(element) {
    element.className = element.className.replace(/\b[ks]\d+\b|\bover\b/g, "").trim();
  }

  /** Rows of cells as CSV; a text that a spreadsheet would take for a formula gets a quote. */
  function csv(rows) {
    const cell = (value) => {
      const text = String(value);
      const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
      return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
  }

  /** Offer a file that was made here; nothing is loaded. */
  function save(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  /** Light or dark, as the browser is set until the switch is used. */
  function styles(button) {
    const root = document.documentElement;
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (root.dataset.style || (system.matches ? "dark" : "light")) === "dark";
    const show = () => { button.textContent = dark() ? "light style" : "dark style"; };
    button.hidden = !CSS.supports("color", "light-dark(black, white)");
    button.addEventListener("click", () => {
      root.dataset.style = dark() ? "light" : "dark";
      show();
    });
    system.addEventListener("change", show);
    show();
  }

  /** On paper everything is open, and the list is whole. */
  function printing() {
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = all(document, "details:not([open])");
      closed.forEach((each) => { each.open = true; });
    });
    addEventListener("afterprint", () => { closed.forEach((each) => { each.open = false; }); });
  }

  /** One record: switches, values under the pointer and under the keyboard. */
  function enhance(root) {
    all(root, ".controls, .readout, .copy, .zoomed").forEach((each) => { each.hidden = false; });
    JSON.parse(root.querySelector("script.data").textContent).maps.forEach((data, n) => {
      enhanceMap((part) => root.querySelector(`${part}[data-n="${n}"]`), data);
    });
  }

  /** The map of one input. */
  function enhanceMap(part, data) {
    const numbers = part(".numbers");
    const names = numbers ? all(numbers, "tbody th").map((cell) => cell.textContent) : [];
    const shownMaps = MAPS.filter((name) => name in data);
    const sums = (units) => shownMaps.map((shown) => units.reduce((sum, u) => sum + data[shown][u], 0));
    const told = (units) =>
      shownMaps.map((shown, index) => `${shown} ${number(sums(units)[index])}`).join(", ");
    const map = part(".map");
    const text = map.querySelector(".text");
    const readout = map.querySelector(".readout");
    const chosen = { show: "total", by: text ? "words" : "tokens" };
    const paint = text ? readText(text, data, chosen, readout, told) : showPicture;

    function legend() {
      const score = chosen.show === "score";
      all(map, "[data-scale]").forEach((each) => {
        each.hidden = (each.dataset.scale === "score") !== score;
      });
      const limit = number(chosen.by === "words" ? data.word_limit : data.limit).slice(1) || "0";
      const ends = score ? data.score_ends[chosen.by].map(number) : [`−${limit}`, `+${limit}`];
      const scale = map.querySelector(`[data-scale="${score ? "score" : "signed"}"]`);
      [".low", ".high"].forEach((end, n) => { scale.querySelector(end).textContent = ends[n]; });
    }

    function showPicture() {
      all(map, ".cells").forEach((each) => { each.hidden = each.dataset.map !== chosen.show; });
    }

    for (const button of all(map, "button[aria-pressed]")) {
      button.addEventListener("click", () => {
        for (const kind of Object.keys(button.dataset)) {
          chosen[kind] = button.dataset[kind];
          all(map, `button[data-${kind}]`).forEach((other) => {
            other.setAttribute("aria-pressed", String(other === button));
          });
        }
        legend();
        paint();
      });
    }

    const opacity = map.querySelector(".opacity");
    if (opacity) {
      opacity.addEventListener("input", () => {
        all(map, ".cells").forEach((each) => {
          each.style.setProperty("--opacity", opacity.value / 100);
        });
        map.querySelector(".ground").classList.toggle("plain", opacity.value === "0");
      });
    }

    const patches = map.querySelector(".field");
    if (patches) {
      explore(patches, readout, (row, column) => {
        const place = row * data.columns + column;
        const unit = data.order ? data.order[place] : place;
        if (unit < 0) return "";
        const named = names[unit] || `row ${row}, column ${column}`;
        const name = data.kind === "patch" ? `patch ${named}` : isolated(named);
        return `${name}: ${told([unit])}`;
      });
    }
    const list = map.querySelector(".ranked");
    if (list) rank(list, data, (units) => mark(map, units, data));
    const panel = part(".panel");
    const matrix = panel && panel.querySelector(".sites");
    if (matrix) {
      const zoom = panel.querySelector(".zoom");
      zoom.addEventListener("input", () => matrix.style.setProperty("--zoom", zoom.value));
      const sites = all(panel, "ol li").map((item) => item.textContent);
      explore(panel.querySelector(".field"), panel.querySelector(".readout"), (row, column) =>
        `${isolated(sites[row])}, unit ${column} ${isolated(names[column])}: ` +
        number(data.sites[row][column]));
    }
  }

  /** The list of the strongest: sorted by any column, shown in the map, copied. */
  function rank(list, data, show) {
    const bodies = all(list, "tbody");
    const rows = (body) => all(body, "tr[data-units]");
    all(list, "button").forEach((each) => { each.disabled = false; });
    all(list, "thead th").forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => {
        const compare = ordering(all(list, "thead th"), header, column);
        bodies.forEach((body) => body.append(...rows(body).sort(compare)));
      });
    });
    let shown = null;
    for (const row of bodies.flatMap(rows)) {
      row.querySelector("button").addEventListener("click", () => {
        shown = shown === row ? null : row;
        bodies.flatMap(rows).forEach((each) => {
          each.classList.toggle("hit", each === shown);
          each.querySelector("button").setAttribute("aria-pressed", String(each === shown));
        });
        show(shown ? row.dataset.units.split(",").map(Number) : []);
      });
    }
    const names = all(list, "thead th").map((each) => each.textContent);
    const values = (row) => [
      row.querySelector("bdi").textContent, ...all(row, "[data-v]").map((each) => Number(each.dataset.v)),
    ];
    const table = () => bodies.flatMap(rows).map(values);
    const written = {
      csv: () => csv([names, ...table()]),
      json: () => JSON.stringify(
        table().map((row) => Object.fromEntries(row.map((value, k) => [names[k], value]))), null, 2),
    };
    for (const button of all(list, "[data-copy]")) {
      button.addEventListener("click", async () => {
        const [kind, told] = [button.dataset.copy, list.querySelector("[role=status]")];
        const text = written[kind]();
        const done = await copied(text);
        if (!done) save(`strongest.${kind}`, text, kind === "csv" ? "text/csv" : "application/json");
        told.textContent = done ? "copied" : "saved as a file";
      });
    }
  }

  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }

  /** Sort by a column of a table, first downwards for numbers; unknown values come last. */
  function ordering(headers, header, column) {
    const numeric = header.dataset.sort === "number";
    const was = header.getAttribute("aria-sort");
    const down = was ? was === "ascending" : false;
    headers.forEach((each) => each.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const text = new Intl.Collator(undefined, { numeric: true });
    const key = (row) => {
      const cell = row.cells[column];
      if (!cell || (numeric && !cell.dataset.v)) return null;
      return numeric ? Number(cell.dataset.v) : cell.textContent;
    };
    const keys = new Map();
    const known = (row) => {
      if (!keys.has(row)) keys.set(row, key(row));
      return keys.get(row);
    };
    return (one, other) => {
      const [a, b] = [known(one), known(other)];
      if (a === null || b === null) return (a === null) - (b === null);
      const sign = numeric ? a - b : text.compare(a, b);
      return down ? -sign : sign;
    };
  }

  /** Outline units in a map, and bring the first of them into view. */
  function mark(map, units, { columns, order }) {
    all(map, ".hit-unit").forEach((each) => each.classList.remove("hit-unit"));
    all(map, ".found").forEach((each) => each.remove());
    const field = map.querySelector(".field");
    const places = units.flatMap((unit) => all(map, `.drawn [data-u="${unit}"]`));
    places.forEach((each) => each.classList.add("hit-unit"));
    if (places[0]) places[0].scrollIntoView({ block: "nearest" });
    if (!field) return;
    const rows = Number(field.dataset.rows);
    for (const place of units.map((unit) => (order ? order.indexOf(unit) : unit))) {
      const found = document.createElement("i");
      found.className = "cursor found";
      found.style.cssText =
        `left:${(100 * (place % columns)) / columns}%;top:${(100 * Math.floor(place / columns)) / rows}%;` +
        `width:${100 / columns}%;height:${100 / rows}%`;
      field.append(found);
    }
  }

  /** Tokens and words: colours, and a cursor that arrow keys move. Returns what paints them. */
  function readText(text, data, chosen, readout, told) {
    const items = { tokens: all(text, ".u"), words: all(text, ".w") };
    const units = (item) =>
      (item.matches(".u") ? [item] : all(item, ".u")).map((each) => Number(each.dataset.u));
    const current = () => items[chosen.by];

    function tell(item) {
      const name = `${chosen.by === "words" ? "word" : "token"} ${isolated(item.textContent)}`;
      readout.textContent = `${name}: ${told(units(item))}`;
    }

    function stop(item) {
      [...items.tokens, ...items.words].forEach((each) => { each.removeAttribute("tabindex"); });
      if (item) item.tabIndex = 0;
    }

    const found = (target) => target.closest && target.closest(chosen.by === "words" ? ".w" : ".u");
    text.addEventListener("pointerover", (event) => {
      const item = found(event.target);
      if (item) tell(item);
    });
    text.addEventListener("focusin", (event) => {
      const item = found(event.target);
      if (item) tell(item);
    });
    text.addEventListener("click", (event) => {
      const item = found(event.target);
      if (item) { stop(item); item.focus(); }
    });
    text.addEventListener("keydown", (event) => {
      const list = current();
      const at = list.indexOf(event.target);
      if (at < 0) return;
      const leftwards = getComputedStyle(event.target.closest("p")).direction === "rtl" ? 1 : -1;
      const places = {
        ArrowLeft: at + leftwards, ArrowRight: at - leftwards,
        ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: list.length - 1,
      };
      if (!(event.key in places)) return;
      event.preventDefault();
      const next = list[between(places[event.key], 0, list.length - 1)];
      stop(next);
      next.focus();
    });

    stop(current()[0]);
    let by = chosen.by;
    return () => {
      const values = data[chosen.show];
      const limit = chosen.by === "words" ? data.word_limit : data.limit;
      if (by !== chosen.by) {
        items[by].forEach(clear);
        by = chosen.by;
        text.classList.toggle("by-words", by === "words");
        stop(current()[0]);
      }
      for (const item of current()) {
        const sum = units(item).reduce((known, unit) => known + values[unit], 0);
        if (chosen.show === "score") level(item, sum, data.score_ends[chosen.by]);
        else colour(item, sum, limit);
      }
    };
  }

  /** A grid of cells: pointer and arrow keys move a cursor, `describe` says what is there. */
  function explore(field, readout, describe) {
    const rows = Number(field.dataset.rows);
    const columns = Number(field.dataset.columns);
    const cursor = field.querySelector(".cursor");
    let row = 0;
    let column = 0;

    function show() {
      cursor.hidden = false;
      cursor.style.cssText =
        `left:${(100 * column) / columns}%;top:${(100 * row) / rows}%;` +
        `width:${100 / columns}%;height:${100 / rows}%`;
      readout.textContent = describe(row, column);
    }

    field.addEventListener("pointermove", (event) => {
      const box = field.getBoundingClientRect();
      row = between(Math.floor(((event.clientY - box.top) / box.height) * rows), 0, rows - 1);
      column = between(Math.floor(((event.clientX - box.left) / box.width) * columns), 0, columns - 1);
      show();
    });
    field.addEventListener("focus", show);
    field.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      const ends = { Home: 0, End: columns - 1 };
      if (event.key in steps) {
        row = between(row + steps[event.key][0], 0, rows - 1);
        column = between(column + steps[event.key][1], 0, columns - 1);
      } else if (event.key in ends) {
        column = ends[event.key];
      } else {
        return;
      }
      event.preventDefault();
      show();
    });
    for (const gone of ["pointerleave", "blur"]) {
      field.addEventListener(gone, () => { cursor.hidden = true; });
    }
  }

  /** A run: the list is sorted, searched and paged; a record is unpacked when it is asked for. */
  function browse(list, record) {
    const body = list.querySelector(".records tbody");
    const rows = [...body.rows];
    const search = list.querySelector("input[type=search]");
    const facets = all(list, "select");
    const status = list.querySelector(".status");
    const [back, on] = all(list, ".pages button");
    const article = record.querySelector("article");
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const traits = rows.map((row) => new Set(row.dataset.f.split(" ")));
    const found = new Map(rows.map((row, index) => [row, index]));
    let order = rows;
    let shown = rows;
    let first = 0;

    function draw() {
      body.replaceChildren(...shown.slice(first, first + ROWS));
      const last = Math.min(first + ROWS, shown.length);
      const some = shown.length === rows.length ? "" : ` found among ${rows.length}`;
      status.textContent = `${shown.length ? first + 1 : 0}–${last} of ${shown.length}${some}`;
      back.disabled = first === 0;
      on.disabled = last >= shown.length;
    }

    function filter() {
      const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = facets.map((each) => each.value).filter(Boolean);
      const has = (row, value) => traits[found.get(row)].has(value);
      shown = order.filter((row) =>
        asked.every((word) => texts[found.get(row)].includes(word)) &&
        wanted.every((value) => has(row, value)));
      first = 0;
      draw();
    }

    function sort(column, header) {
      order = [...rows].sort(ordering(all(list, ".records thead th"), header, column));
      filter();
    }

    async function route() {
      const match = /^#record-(\d+)$/.exec(location.hash);
      const packed = match && document.getElementById(`packed-${match[1]}`);
      list.hidden = Boolean(packed);
      record.hidden = !packed;
      if (!packed) return;
      try {
        article.innerHTML = await unpack(packed.textContent);
      } catch (problem) {
        article.textContent = `This browser cannot unpack the record: ${problem}`;
        return;
      }
      enhance(article);
      neighbours(match[1]);
      scrollTo(0, 0);
      article.querySelector("h1").focus();
    }

    function neighbours(number) {
      const open = shown.filter((row) => row.querySelector("a"));
      const at = open.findIndex((row) => row.dataset.n === number);
      all(record, "[data-step]").forEach((button) => {
        const next = at < 0 ? undefined : open[at + Number(button.dataset.step)];
        button.disabled = !next;
        button.onclick = () => { location.hash = `record-${next.dataset.n}`; };
      });
    }

    const facetOf = (button) => facets.find((each) => each.dataset.facet === button.dataset.of);

    /** The bar of a class is a filter, too; pressed again, it is none. */
    function pick(button) {
      const select = facetOf(button);
      const option = select && [...select.options].find((o) => o.dataset.name === button.dataset.pick);
      if (!option) return;
      select.value = select.value === option.value ? "" : option.value;
      filter();
    }

    /** What was found, in its order, with all digits. */
    function table() {
      const heads = all(list, ".records thead th").map((each) => each.textContent);
      const value = (cell) => cell.dataset.v ?? (cell.querySelector("bdi") || cell).textContent;
      const lines = shown.map((row) => {
        const told = [...row.cells].map(value);
        told[7] = row.cells[7].textContent; // the warnings by name
        return [...told, row.dataset.meta || ""];
      });
      return [[...heads, "meta"], ...lines];
    }

    search.addEventListener("input", filter);
    facets.forEach((each) => each.addEventListener("change", filter));
    for (const button of all(list, "[data-pick]")) {
      button.disabled = !facetOf(button);
      button.addEventListener("click", () => pick(button));
    }
    list.querySelector(".export").addEventListener("click", () => {
      save("records.csv", csv(table()), "text/csv");
    });
    all(list, ".records thead th").forEach((header, column) => {
      const button = header.querySelector("button");
      button.disabled = false;
      button.addEventListener("click", () => sort(column, header));
    });
    back.addEventListener("click", () => { first -= ROWS; draw(); });
    on.addEventListener("click", () => { first += ROWS; draw(); });
    addEventListener("hashchange", route);
    addEventListener("beforeprint", () => body.replaceChildren(...shown));
    addEventListener("afterprint", draw);
    all(list, "nav").forEach((each) => { each.hidden = false; });
    draw();
    route();
  }

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  styles(document.querySelector(".style"));
  printing();
  const list = document.querySelector(".list");
  if (list) browse(list, document.querySelector(".detail"));
  else all(document, ".record").forEach(enhance);
})();
