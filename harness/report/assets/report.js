// SPDX-License-Identifier: Apache-2.0
// What the page does by itself: charts, sorting, block masks, flip-books. No network.
"use strict";
(() => {
  const state = { charts: 0, drawn: 0, errors: [] };
  window.raingaugeReport = state;
  window.addEventListener("error", (event) => state.errors.push(String(event.message)));
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = ["#1f77b4", "#e67e22", "#2ca02c", "#d62728", "#9467bd", "#17a2b8", "#bc5090", "#8c6d31",
    "#5f7f95", "#b5a800"];
  const narrow = () => window.innerWidth < 640;

  function layoutOf(figure) {
    const axis = { gridcolor: style("--line"), zerolinecolor: style("--line"), automargin: true };
    const xs = figure.series.flatMap((series) => series.x);
    const whole = xs.length > 0 && xs.every(Number.isInteger) && Math.max(...xs) - Math.min(...xs) < 24;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: style("--ink"), size: 12 },
      margin: { l: 70, r: 12, t: 34, b: 50 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: style("--soft"), activecolor: style("--accent") },
      xaxis: { ...axis, title: { text: figure.x_title, standoff: 8 }, type: figure.log_x ? "log" : undefined,
        dtick: whole ? 1 : undefined },
      yaxis: { ...axis, title: { text: figure.y_title, standoff: 12 }, type: figure.log_y ? "log" : undefined },
      legend: narrow() || figure.series.length > 12
        ? { orientation: "h", y: -0.25, font: { size: 10 }, maxheight: 120 } : { font: { size: 11 } },
      hovermode: "closest", barmode: "stack",
    };
  }

  function colours(figure) {
    const groups = [];
    for (const series of figure.series) if (!groups.includes(series.group)) groups.push(series.group);
    return (series) => palette[groups.indexOf(series.group) % palette.length];
  }

  function tracesOf(figure) {
    const colour = colours(figure);
    return figure.series.map((series) => {
      const hasInterval = series.lo.some((value) => value !== null);
      const trace = {
        name: series.name, x: series.x, y: series.y, visible: series.hidden ? "legendonly" : true,
        customdata: series.y.map((_, i) => [series.labels[i] ?? series.name, series.n[i]]),
        hovertemplate: "%{customdata[0]}<br>%{x:.5g}, %{y:.5g}<br>n = %{customdata[1]}<extra></extra>",
      };
      if (figure.kind === "stacked_bars") {
        return { ...trace, type: "bar", x: series.labels, marker: { color: colour(series) },
          hovertemplate: "%{x}<br>" + series.name + " %{y:.4g} ms, n = %{customdata[1]}<extra></extra>" };
      }
      trace.type = "scatter";
      trace.mode = figure.kind === "scatter" && series.y.length < 2 ? "markers" : "lines+markers";
      trace.line = { color: colour(series), dash: series.style || "solid", width: 2 };
      trace.marker = { color: colour(series), size: 7 };
      if (hasInterval) {
        trace.error_y = { type: "data", symmetric: false, thickness: 1, width: 3, color: colour(series),
          array: series.hi.map((hi, i) => (hi === null ? 0 : hi - series.y[i])),
          arrayminus: series.lo.map((lo, i) => (lo === null ? 0 : series.y[i] - lo)) };
      }
      return trace;
    });
  }

  function heatTrace(figure, index) {
    const values = figure.panels.flatMap((panel) => panel.z.flat()).filter((value) => value !== null);
    const panel = figure.panels[index];
    return [{ type: "heatmap", x: panel.columns, y: panel.rows, z: panel.z, colorscale: "Viridis",
      zmin: Math.min(...values), zmax: Math.max(...values), colorbar: { thickness: 12 },
      hovertemplate: "%{y}, %{x}: %{z:.5g}<extra></extra>" }];
  }

  const config = { displaylogo: false, responsive: true,
    toImageButtonOptions: { format: "svg" }, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

  function draw(node) {
    const figure = node.figure;
    const select = node.parentElement.querySelector("select");
    const traces = figure.kind === "heat" ? heatTrace(figure, select ? select.selectedIndex : 0) : tracesOf(figure);
    Plotly.react(node, traces, layoutOf(figure), config).then(() => {
      if (!node.dataset.drawn) { node.dataset.drawn = "yes"; state.drawn += 1; }
    }, (error) => state.errors.push(String(error)));
  }

  function dataTable(figure) {
    const table = document.createElement("table");
    const line = (cells, tag) => {
      const row = table.insertRow();
      for (const cell of cells) {
        const item = document.createElement(tag);
        item.textContent = cell === null || cell === undefined ? "" : String(cell);
        row.append(item);
      }
    };
    line(["series", figure.x_title || "category", figure.y_title, "lower", "upper", "n"], "th");
    for (const series of figure.series) {
      series.y.forEach((y, i) => line([series.name, series.x[i] ?? series.labels[i], y, series.lo[i],
        series.hi[i], series.n[i]], "td"));
    }
    for (const panel of figure.panels) {
      panel.rows.forEach((row, r) => panel.columns.forEach((column, c) =>
        line([panel.name, row + ", " + column, panel.z[r][c], null, null, null], "td")));
    }
    return table;
  }

  function startCharts() {
    const nodes = all(".chart");
    state.charts = nodes.length;
    for (const node of nodes) {
      node.figure = JSON.parse(node.parentElement.querySelector("script").textContent);
      const select = node.parentElement.querySelector("select");
      if (select) select.addEventListener("change", () => draw(node));
      const details = node.parentElement.querySelector("details.data");
      details.addEventListener("toggle", () => {
        if (!details.querySelector("table")) details.querySelector("div").append(dataTable(node.figure));
      });
      draw(node);
    }
  }

  function sortBy(header) {
    const table = header.closest("table");
    const column = Array.from(header.parentElement.children).indexOf(header);
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentElement.children) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.children[column];
      const value = cell.dataset.value !== undefined ? Number(cell.dataset.value) : Number(cell.textContent.trim() || NaN);
      return Number.isNaN(value) ? cell.textContent : value;
    };
    const compare = (a, b) => {
      const x = key(a), y = key(b);
      if (typeof x === "number" && typeof y === "number") return x - y;
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      return x.localeCompare(y, undefined, { numeric: true });
    };
    const rows = Array.from(table.tBodies[0].rows).sort((a, b) => (up ? compare(a, b) : compare(b, a)));
    table.tBodies[0].append(...rows);
  }

  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const bit = (bytes, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1;

  function drawMask(canvas, head) {
    canvas.width = head.columns;
    canvas.height = head.rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(head.columns, head.rows);
    const kept = bytesOf(head.kept);
    const forced = head.forced ? bytesOf(head.forced) : null;
    for (let i = 0; i < head.rows * head.columns; ++i) {
      const colour = forced && bit(forced, i) ? [222, 132, 33] : bit(kept, i) ? [31, 97, 170] : [244, 244, 244];
      image.data.set([...colour, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
  }

  function startMasks(root) {
    const data = JSON.parse(root.querySelector("script").textContent);
    const grid = root.querySelector(".masks");
    const heads = data.arms.length ? data.arms[0].heads.map((head) => head.head) : [];
    const select = root.querySelector("select.head");
    heads.forEach((head) => select.add(new Option("head " + head)));
    const every = root.querySelector("input");
    const paint = () => {
      grid.replaceChildren();
      for (const arm of data.arms) {
        if (!every.checked && !arm.shown) continue;
        const head = arm.heads[select.selectedIndex] ?? arm.heads[0];
        const figure = document.createElement("figure");
        const canvas = document.createElement("canvas");
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", arm.arm + ": keeps " + head.density.toFixed(4) + " of the pairs");
        drawMask(canvas, head);
        const caption = document.createElement("figcaption");
        caption.textContent = arm.arm + ", density " + head.density.toFixed(4);
        figure.append(canvas, caption);
        grid.append(figure);
      }
    };
    select.addEventListener("change", paint);
    every.addEventListener("change", paint);
    paint();
  }

  function startFlip(root) {
    const images = JSON.parse(root.querySelector("script").textContent);
    const picture = root.querySelector("img.flip");
    const label = root.querySelector(".which");
    let index = 0, timer = null;
    const show = (next) => {
      index = next % images.length;
      picture.src = images[index].src;
      picture.alt = label.textContent = images[index].name;
    };
    root.querySelector("button.step").addEventListener("click", () => show(index + 1));
    root.querySelector("button.play").addEventListener("click", (event) => {
      if (timer) { clearInterval(timer); timer = null; } else { timer = setInterval(() => show(index + 1), 600); }
      event.target.setAttribute("aria-pressed", String(Boolean(timer)));
    });
    show(0);
  }

  function startTheme() {
    const button = document.getElementById("theme");
    button.addEventListener("click", () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      all(".chart").forEach(draw);
    });
  }

  all("table.sortable thead th").forEach((header) =>
    header.querySelector("button").addEventListener("click", () => sortBy(header)));
  all("button.copy").forEach((button) => button.addEventListener("click", () => {
    const text = button.parentElement.querySelector("code").textContent;
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => { button.textContent = "copied"; }, () => {});
  }));
  all(".mask-block").forEach(startMasks);
  all(".flip-book").forEach(startFlip);
  startTheme();
  startCharts();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all(".chart").forEach(draw));
})();
