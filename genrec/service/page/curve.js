// A curve with its interval, drawn by uPlot, which is loaded when the first curve is shown.
import { html, useEffect, useRef } from "./html.js";
import { percent } from "./format.js";
import { useShared } from "./state.js";

const HEIGHT = 260;

/** A curve. Each point is a pair of a number and a mean with `low` and `high`. */
export function Curve({ label, x, y, points }) {
  const { language } = useShared();
  const place = useRef(null);
  useEffect(() => {
    let plot;
    let gone = false;
    const draw = async () => {
      const { default: UPlot } = await import("./vendor/uplot.js");
      if (gone) return;
      plot?.destroy();
      plot = new UPlot(
        options(place.current.clientWidth, x, y, language),
        [points.map(([at]) => at), ...["mean", "low", "high"].map((name) => points.map(([, value]) => value[name]))],
        place.current,
      );
    };
    draw().catch(() => {}); // the table below has the same numbers
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const theme = new MutationObserver(draw);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    dark.addEventListener("change", draw);
    const size = new ResizeObserver(([{ contentRect }]) => {
      if (!gone) plot?.setSize({ width: contentRect.width, height: HEIGHT });
    });
    size.observe(place.current);
    return () => {
      gone = true;
      theme.disconnect();
      dark.removeEventListener("change", draw);
      size.disconnect();
      plot?.destroy();
    };
  }, [JSON.stringify(points), x, y, language]);
  return html`<div class="curve" role="img" aria-label=${label} ref=${place}></div>`;
}

/** Return a color of the style sheet as it is now, which depends on the theme. */
function color(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function options(width, x, y, language) {
  const [text, line, main] = ["--quiet", "--line", "--for"].map(color);
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const share = (value) => (value === null ? "–" : percent(value, language, 0));
  const band = main.replace(/^rgb\((.*)\)$/, "rgba($1, 0.2)");
  return {
    width,
    height: HEIGHT,
    scales: { x: { time: false } },
    legend: { show: false },
    cursor: { show: false },
    axes: [
      { ...axis, label: x, incrs: [1, 2, 5, 10, 20, 50, 100] },
      { ...axis, label: y, size: 64, values: (_, ticks) => ticks.map(share) },
    ],
    series: [
      {},
      { stroke: main, width: 3, points: { show: true, size: 8, fill: main } },
      { stroke: main, width: 1, dash: [4, 4], points: { show: false } },
      { stroke: main, width: 1, dash: [4, 4], points: { show: false } },
    ],
    bands: [{ series: [3, 2], fill: band }],
  };
}
