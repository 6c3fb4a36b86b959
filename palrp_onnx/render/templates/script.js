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

  /** One record: switches, values under the pointer and under the keyboard. */
  function enhance(root) {
    all(root, ".controls, .readout").forEach((each) => { each.hidden = false; });
    JSON.parse(root.querySelector("script.data").textContent).maps.forEach((data, n) => {
      enhanceMap((part) => root.querySelector(`${part}[data-n="${n}"]`), data);
    });
  }

  /** The map of one input. */
  function enhanceMap(part, data) {
    const names = all(part(".numbers"), "tbody th").map((cell) => cell.textContent);
    const shownMaps = MAPS.filter((name) => name in data);
    const sums = (units) => shownMaps.map((shown) => units.reduce((sum, u) => sum + data[shown][u], 0));
    const told = (units) =>
      shownMaps.map((shown, index) => `${shown} ${number(sums(units)[index])}`).join(", ");
    const map = part(".map");
    const text = map.querySelector(".text");
    const readout = map.querySelector(".readout");
    const chosen = { show: "total", by: "tokens" };
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
        const unit = row * data.columns + column;
        const name = data.kind === "patch" ? `patch ${names[unit]}` : isolated(names[unit]);
        return `${name}: ${told([unit])}`;
      });
    }
    const panel = part(".panel");
    if (panel) {
      const sites = all(panel, "ol li").map((item) => item.textContent);
      explore(panel.querySelector(".field"), panel.querySelector(".readout"), (row, column) =>
        `${isolated(sites[row])}, unit ${column} ${isolated(names[column])}: ` +
        number(data.sites[row][column]));
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

    stop(items.tokens[0]);
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
    const body = list.querySelector("tbody");
    const rows = [...body.rows];
    const search = list.querySelector("input[type=search]");
    const status = list.querySelector(".status");
    const [back, on] = all(list, ".pages button");
    const article = record.querySelector("article");
    const texts = rows.map((row) => row.textContent.toLowerCase());
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
      const fits = (row) => asked.every((word) => texts[found.get(row)].includes(word));
      shown = order.filter(fits);
      first = 0;
      draw();
    }

    function sort(column, header) {
      const down = header.getAttribute("aria-sort") === "ascending";
      all(list, "thead th").forEach((each) => each.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = header.dataset.sort === "number";
      const key = (row) => {
        const cell = row.cells[column];
        if (!cell || (numeric && !cell.dataset.v)) return null;
        return numeric ? Number(cell.dataset.v) : cell.textContent;
      };
      const text = new Intl.Collator(undefined, { numeric: true });
      const keys = new Map(rows.map((row) => [row, key(row)]));
      order = [...rows].sort((one, other) => {
        const [a, b] = [keys.get(one), keys.get(other)];
        if (a === null || b === null) return (a === null) - (b === null); // unknown comes last
        const sign = numeric ? a - b : text.compare(a, b);
        return down ? -sign : sign;
      });
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

    search.addEventListener("input", filter);
    all(list, "thead th").forEach((header, column) => {
      const button = header.querySelector("button");
      button.disabled = false;
      button.addEventListener("click", () => sort(column, header));
    });
    back.addEventListener("click", () => { first -= ROWS; draw(); });
    on.addEventListener("click", () => { first += ROWS; draw(); });
    addEventListener("hashchange", route);
    all(list, "nav").forEach((each) => { each.hidden = false; });
    draw();
    route();
  }

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  const list = document.querySelector(".list");
  if (list) browse(list, document.querySelector(".detail"));
  else enhance(document.querySelector(".record"));
})();
