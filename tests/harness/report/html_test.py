# SPDX-License-Identifier: Apache-2.0
"""report.html in headless Chromium with the network off, and the other formats beside it.

No console error, every chart drawn, tables sortable, numbers equal to summary.csv. Runs the binary
named by $RAINGAUGE on planted records of eight generations.
"""
import csv
import html
import json
import math
import os
import re
import shutil
import subprocess

import pytest

PROGRAM = os.environ["RAINGAUGE"]
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
                 if (path := shutil.which(name))), None)

EXPERIMENT = """schema: raingauge/1
name: report_test
captures:
  - synthetic: {grid: [4, 10, 9], text_tokens: 6, heads: 2, head_dim: 16, layers: 2, steps: 2, generations: 8, seed: 3}
arms:
  rf2: {method: rainfusion2, block: 32, frame0: segregated, density: 0.6}
matrix:
  rf2.order: [raster, frame_window, {window3d: {window: [2, 4, 4]}}]
  rf2.sink: [none, both]
  rf2.density: [0.5, 0.6, 0.7]
controls: {arms: [random, oracle_row], heads: all, floor_records: 1, floor_seeds: 20}
rows: {sample: 64, seed: 0}
metrics: [recall, rel_l2, cosine, mass_first_frame, block_similarity_q, block_similarity_k]
latency: {kernels: [cpu, reference], warmup: 0, min_samples: 4, max_seconds: 0.1, arms: [rf2.raster.none.0.6]}
report:
  formats: [html, md, csv, json, tex]
  baseline: {order: raster, sink: none}
  ablate: [order, sink]
  contrasts: [order=window3d, sink=both, order=window3d*sink=both]
"""

BENCH = {"context": {"host_name": "host", "num_cpus": 2, "date": "2026-01-01"},
         "benchmarks": [{"name": "attend/0.2", "run_type": "iteration", "iterations": 12, "real_time": 3.5,
                         "time_unit": "ms", "gflops": 41.5, "peak_gflops": 90.0, "percent_of_peak": 46.1,
                         "density": 0.2}]}

# Runs in the page after its own script: what was drawn, and what sorting does.
PROBE = """<script>
setTimeout(() => {
  const report = window.raingaugeReport, out = {charts: report.charts, drawn: report.drawn,
    errors: report.errors, figures: {}, sorted: [], marks: {}, overflow: document.documentElement.scrollWidth};
  for (const node of document.querySelectorAll(".chart")) {
    out.figures[node.figure.id] = node.data.map((trace) => ({name: trace.name, y: trace.y, z: trace.z}));
    out.marks[node.figure.id] = node.querySelectorAll(".point, .bars path, .hm image").length;
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    const headers = table.querySelectorAll("thead th");
    const index = Array.from(headers).findIndex((_, i) => table.querySelector(`tbody td.number:nth-child(${i + 1})[data-value]`));
    if (index < 0) continue;
    const values = () => Array.from(table.tBodies[0].rows, (row) => row.children[index].dataset.value)
      .filter((value) => value !== undefined).map(Number);
    headers[index].querySelector("button").click();
    const up = values(), state = headers[index].getAttribute("aria-sort");
    headers[index].querySelector("button").click();
    out.sorted.push({table: table.dataset.table, up, state, down: values(), after: headers[index].getAttribute("aria-sort")});
  }
  document.querySelectorAll("details.data").forEach((details) => { details.open = true; });
  out.masks = Array.from(document.querySelectorAll(".masks canvas"), (canvas) => {
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let blue = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i] !== 244) ++blue;
    return {label: canvas.getAttribute("aria-label"), share: blue / (canvas.width * canvas.height)};
  });
  const result = document.createElement("script");
  result.type = "application/json";
  result.id = "probe";
  result.textContent = JSON.stringify(out).replaceAll("<", "\\\\u003c");
  document.body.append(result);
}, 4000);
</script>"""


def run(*args, code=0):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=600)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def chromium(page, *options):
    """(stdout, console messages)"""
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9", "--enable-logging=stderr",
         "--virtual-time-budget=20000", *options, f"file://{page}"],
        capture_output=True, text=True, timeout=300)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    (root / "experiment.yaml").write_text(EXPERIMENT)
    out = root / "run"
    run("run", root / "experiment.yaml", "--out", out, "--quiet")
    (out / "bench_cpu.json").write_text(json.dumps(BENCH))
    done = run("report", out)
    for name in ("report.html", "report.md", "summary.csv", "summary.json", "tables/ablation.tex", "figures/curve_recall.svg"):
        assert name in done.stdout and (out / name).exists(), name
    return out


@pytest.fixture(scope="session")
def numbers(folder):
    return json.loads((folder / "summary.json").read_text())["numbers"]


@pytest.fixture(scope="session")
def probe(folder):
    if CHROMIUM is None:
        pytest.skip("no Chromium here; `make test` installs it where the distribution has it")
    page = folder / "probe.html"
    page.write_text((folder / "report.html").read_text().replace("</body>", PROBE + "</body>"))
    dom, console = chromium(page, "--window-size=1280,2000", "--dump-dom")
    found = re.search(r'<script type="application/json" id="probe">(.*?)</script>', dom, re.S)
    assert found, "the page's own script did not finish"
    return json.loads(found.group(1)), console


def embedded_figures(folder):
    text = (folder / "report.html").read_text()
    scripts = re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)
    return [figure for figure in map(json.loads, scripts) if isinstance(figure, dict) and "kind" in figure]


def test_no_console_error_and_every_chart_is_drawn(probe):
    found, console = probe
    assert console == [] and found["errors"] == []
    assert found["charts"] == found["drawn"] == len(found["figures"]) >= 6
    assert all(marks > 0 for marks in found["marks"].values()), found["marks"]


def test_drawn_numbers_are_those_of_summary_csv(folder, numbers, probe):
    with open(folder / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    finite = [n for n in numbers if n["value"] is not None]
    assert len(rows) == len(finite)
    for row, number in zip(rows, finite):
        assert (row["table"], row["arm"], row["metric"]) == (number["table"], number["arm"], number["metric"])
        assert math.isclose(float(row["value"]), number["value"], rel_tol=1e-8) and int(row["n"]) == number["n"]
    figures = {figure["id"]: figure for figure in embedded_figures(folder)}
    assert set(figures) == set(probe[0]["figures"])
    for name, traces in probe[0]["figures"].items():
        if figures[name]["panels"]:
            assert traces[0]["z"] == figures[name]["panels"][0]["z"]
            flat = [(z, i) for panel in figures[name]["panels"] for zs, ids in zip(panel["z"], panel["ids"]) for z, i in zip(zs, ids)]
        else:
            assert [trace["y"] for trace in traces] == [series["y"] for series in figures[name]["series"]]
            flat = [pair for series in figures[name]["series"] for pair in zip(series["y"], series["ids"])]
        assert flat and all(value == numbers[index]["value"] for value, index in flat if index is not None)


def test_table_cells_are_those_of_summary_json(folder, numbers):
    text = (folder / "report.html").read_text()
    cells = re.findall(r'data-value="([^"]+)" data-id="(\d+)" title="([^"]*)">([^<]*)<', text)
    assert len(cells) > 200
    for value, index, title, shown in cells:
        number = numbers[int(index)]
        assert math.isclose(float(value), number["value"], rel_tol=1e-8)
        assert f"n = {number['n']}" in title
        assert math.isclose(float(html.unescape(shown).split(" [")[0]), number["value"], rel_tol=0.01, abs_tol=1e-4)


def test_tables_sort(probe):
    tables = probe[0]["sorted"]
    assert {"ablation", "contrasts", "similarity", "latency", "bench_cpu"} <= {table["table"] for table in tables}
    for table in tables:
        assert table["up"] == sorted(table["up"]) and table["state"] == "ascending", table
        assert table["down"] == sorted(table["down"], reverse=True) and table["after"] == "descending", table


def test_masks_show_the_density_of_their_blocks(folder, probe):
    masks = probe[0]["masks"]
    assert len(masks) == 12  # raster and window3d x two sinks x three densities
    for mask in masks:
        density = float(re.search(r"keeps ([0-9.]+) of", mask["label"]).group(1))
        assert abs(mask["share"] - density) < 0.1, mask  # pairs against block pairs: ragged blocks differ


def test_phones_and_dark_pages(folder):
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    page = folder / "narrow.html"
    page.write_text((folder / "report.html").read_text().replace("</body>", PROBE + "</body>"))
    dom, console = chromium(page, "--window-size=500,900", "--force-dark-mode", "--dump-dom")
    found = json.loads(re.search(r'id="probe">(.*?)</script>', dom, re.S).group(1))
    assert console == [] and found["drawn"] == found["charts"]
    assert found["overflow"] <= 500, "the page scrolls sideways"


def test_structure_for_keyboards_and_readers(folder):
    text = (folder / "report.html").read_text()
    body = text[:text.index("</main>")]
    assert '<html lang="en">' in text and 'name="viewport"' in text
    assert len(re.findall(r"<h1", body)) == 1 and 'class="skip"' in body
    for table in re.findall(r"<table.*?</table>", body, re.S):
        assert 'scope="col"' in table and "<button" in table and "aria-sort" in table
    ids = re.findall(r' id="([^"]+)"', body)
    assert len(ids) == len(set(ids)), "an id stands twice"
    for target in re.findall(r'href="#([^"]+)"', body):
        assert target in ids
    for chart in re.findall(r'<div class="chart"[^>]*>', body):
        assert 'role="img"' in chart and "aria-label" in chart


def test_sections_stand_in_their_order(folder):
    text = (folder / "report.html").read_text()
    sections = re.findall(r'<h2 id="([^"]+)"', text)
    wanted = ["verdict", "ablation", "curves", "pareto", "sites", "similarity", "first_frame", "masks", "latency",
              "bench", "conformance", "floors", "environment", "reproduce"]
    assert [name for name in sections if name in wanted] == wanted


def test_a_row_reruns_by_its_command(folder, tmp_path):
    experiment = folder.parent / "experiment.yaml"
    run("run", experiment, "--only", "rf2.window3d.both.0.6", "--out", tmp_path / "row", "--quiet")
    pick = lambda path: {(r["generation"], r["record"], r["head"]): r["metrics"] for r in
                         map(json.loads, (path / "fidelity.jsonl").read_text().splitlines())
                         if r["arm"] == "rf2.window3d.both.0.6"}
    assert pick(tmp_path / "row") == pick(folder)
    done = run("run", experiment, "--only", "rf2.window3d.bth.0.6", "--out", tmp_path / "no", code=1)
    assert "rf2.window3d.both.0.6" in done.stderr


def test_csv_loads_in_pandas(folder):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(folder / "summary.csv")
    assert frame["value"].dtype == float and frame["n"].dtype.kind == "i" and len(frame) > 500


def test_latex_compiles_where_there_is_a_tex(folder, tmp_path):
    tex = shutil.which("pdflatex") or shutil.which("tectonic")
    if tex is None:
        pytest.skip("no TeX here: the balance of the tables is tested in document_test.cpp")
    tables = "\n".join(path.read_text() for path in sorted((folder / "tables").glob("*.tex")))
    (tmp_path / "all.tex").write_text(r"\documentclass{article}\usepackage{booktabs}\begin{document}" + tables + r"\end{document}")
    subprocess.run([tex, "-interaction=nonstopmode", "all.tex"], cwd=tmp_path, check=True, timeout=120)


def test_compare_says_same_of_the_same_and_schedules_are_usable(folder, tmp_path):
    experiment = folder.parent / "experiment.yaml"
    again = tmp_path / "again"
    text = EXPERIMENT[:EXPERIMENT.index("latency:")] + EXPERIMENT[EXPERIMENT.index("report:"):]
    (tmp_path / "again.yaml").write_text(text)
    run("run", tmp_path / "again.yaml", "--out", again, "--quiet")
    result = json.loads(run("compare", folder, again, "--json").stdout)
    assert result["values"] and {value["verdict"] for value in result["values"]} == {"same"}
    assert "0 worse" in run("compare", folder, again).stdout

    schedule = tmp_path / "schedule.json"
    done = run("schedule", folder, "--max-error", "rel_l2=0.3", "--out", schedule)
    assert "predicted" in done.stdout and "achieved on generations left out" in done.stdout
    written = json.loads(schedule.read_text())
    (tmp_path / "use.yaml").write_text(text.replace(text[text.index("arms:"):text.index("controls:")], f"""arms:
  plan: {{method: schedule, path: {schedule}}}
""").replace(text[text.index("report:"):], "report: {formats: [csv]}\n"))
    run("run", tmp_path / "use.yaml", "--out", tmp_path / "used", "--quiet")
    rows = [row for row in map(json.loads, (tmp_path / "used/fidelity.jsonl").read_text().splitlines())
            if "control" not in row]
    assert all(row["outcome"] == "ok" for row in rows)
    errors = {}
    for row in rows:
        errors.setdefault((row["layer"], row["step"], row["head"]), []).append(row["metrics"]["rel_l2"]["value"])
    for site in written["sites"]:  # the schedule gives on these records what the run had measured
        seen = errors[site["layer"], site["step"], site["head"]]
        assert math.isclose(sum(seen) / len(seen), site["error"], rel_tol=1e-6, abs_tol=1e-6)
