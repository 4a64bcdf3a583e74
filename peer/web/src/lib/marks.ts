// How a peer is, as one mark: a shape, a colour and words. The worst thing that is true of it counts.
import type { Dot } from "../types";

export type Mark =
  | "excluded" | "silent" | "differs" | "left-out" | "absent" | "late" | "slow" | "paused" | "keeper" | "reader" | "fine";

export const WORDS: Record<Mark, string> = {
  excluded: "excluded",
  silent: "not heard",
  differs: "other bits than the majority",
  "left-out": "left out of the last round",
  absent: "absent from the last round",
  late: "late in the last round",
  slow: "slow",
  paused: "not training",
  keeper: "keeps blocks",
  reader: "only reads",
  fine: "training",
};

/** Those that somebody should look at, the worst first. */
export const AILING: Mark[] = ["excluded", "silent", "differs", "left-out", "absent", "late", "slow"];

const SLOW_SHARE = 0.34; // of the median speed

export function median(values: number[]): number {
  const sorted = values.filter((value) => value > 0).sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : 0;
}

export function markOf(dot: Dot, medianSpeed: number): Mark {
  if (dot.excluded) return "excluded";
  if (dot.state === "silent") return "silent";
  if (dot.agrees === false) return "differs";
  if (dot.fate === "left out") return "left-out";
  if (dot.fate === "absent") return "absent";
  if (dot.fate === "late") return "late";
  if (dot.role === "keeper") return "keeper";
  if (dot.role === "reader") return "reader";
  if (dot.state !== "training") return "paused";
  return dot.tokens_per_s > 0 && dot.tokens_per_s < SLOW_SHARE * medianSpeed ? "slow" : "fine";
}

/** Return the shape of a mark with radius `r` around the origin, as the path of an SVG. */
export function shape(mark: Mark, r: number): string {
  const n = (value: number) => value.toFixed(2);
  const circle = (q: number) => `M${n(-q)} 0a${n(q)} ${n(q)} 0 1 0 ${n(2 * q)} 0a${n(q)} ${n(q)} 0 1 0 ${n(-2 * q)} 0Z`;
  const polygon = (...points: [number, number][]) => `M${points.map(([x, y]) => `${n(x * r)} ${n(y * r)}`).join("L")}Z`;
  switch (mark) {
    case "excluded":
      return polygon([-0.95, -0.5], [-0.5, -0.95], [0, -0.45], [0.5, -0.95], [0.95, -0.5], [0.45, 0], [0.95, 0.5],
        [0.5, 0.95], [0, 0.45], [-0.5, 0.95], [-0.95, 0.5], [-0.45, 0]);
    case "late":
      return polygon([0, -1.05], [1, 0.75], [-1, 0.75]);
    case "left-out":
      return polygon([-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]);
    case "differs":
      return polygon([0, -1.15], [1.15, 0], [0, 1.15], [-1.15, 0]);
    case "keeper":
      return polygon([0, -1], [1, 0], [0, 1], [-1, 0]);
    case "slow":
      return `M0 ${n(-r)}a${n(r)} ${n(r)} 0 0 0 0 ${n(2 * r)}Z${circle(r)}`;
    case "paused":
      return `${polygon([-0.8, -0.85], [-0.2, -0.85], [-0.2, 0.85], [-0.8, 0.85])}${polygon([0.2, -0.85], [0.8, -0.85], [0.8, 0.85], [0.2, 0.85])}`;
    default:
      return circle(mark === "silent" || mark === "absent" ? 0.85 * r : mark === "reader" ? 0.6 * r : r);
  }
}
