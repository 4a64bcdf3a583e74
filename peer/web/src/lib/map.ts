// Where everything is on the map: blocks as sectors of a circle, peers as dots in the sector of what they train.
// A peer keeps its place for as long as the page is open; the places depend on how many there are in steps, so that one
// that comes or goes moves nobody else.
import type { Coverage, Dot, Sector, View } from "../types";
import { markOf, median, type Mark } from "./marks";

export const INNER = 168;
export const OUTER = 420;
const GAP = 0.018; // radians between two sectors
const MOST_R = 19;
const LEAST_R = 4;

export interface Wedge {
  key: string;
  sector: Sector;
  start: number;
  end: number;
  place: number; // among the colours
  shards: { start: number; end: number; holders: number; label: string }[];
}

export interface Placed {
  dot: Dot;
  mark: Mark;
  x: number;
  y: number;
  r: number;
  place: number; // of its sector
}

export interface Picture {
  wedges: Wedge[];
  core: Sector[]; // what the peers of several sectors share
  dots: Placed[];
}

/** Which slot each peer has, by wedge. */
export type Slots = Map<string, Map<string, number>>;

export function picture(view: View, slots: Slots, places: Map<string, number>): Picture {
  const { core, around } = split(view);
  const width = (2 * Math.PI) / Math.max(1, around.length);
  const gap = around.length > 1 ? GAP : 0;
  const wedges = around.map((sector, at) => {
    const start = -Math.PI / 2 + at * width + gap;
    const end = -Math.PI / 2 + (at + 1) * width - gap;
    const shards = shardsOf(view.coverage, sector.block, start, end);
    return { key: sector.block, sector, start, end, place: places.get(sector.block) ?? 0, shards };
  });
  const speed = median(view.dots.map((dot) => dot.tokens_per_s));
  const homes = homesOf(view.dots, wedges);
  const dots = wedges.flatMap((wedge) => place(wedge, homes.get(wedge.key) ?? [], slots, speed));
  return { wedges, core, dots };
}

/** Return the names of the sub-models in the order of their colours. */
export function subModels(view: View): string[] {
  const { around } = split(view);
  return [...around.map((sector) => sector.block), ...view.dots.map((dot) => dot.sub_model)];
}

/** Blocks that the peers of several others share are in the middle, the others around it. */
function split(view: View): { core: Sector[]; around: Sector[] } {
  const trained = new Set(view.dots.map((dot) => dot.sub_model));
  const hasHomes = view.sectors.some((sector) => trained.has(sector.block));
  const isCore = (sector: Sector) => hasHomes && !sector.domain && !trained.has(sector.block) && sector.holders.length > 0;
  const core = view.sectors.filter(isCore);
  return { core, around: view.sectors.filter((sector) => !isCore(sector)) };
}

function homesOf(dots: Dot[], wedges: Wedge[]): Map<string, Dot[]> {
  const holds = new Map<string, string>();
  for (const role of ["keepers", "holders"] as const)
    for (const wedge of wedges) for (const peer of wedge.sector[role]) holds.set(peer, wedge.key);
  const names = new Set(wedges.map((wedge) => wedge.key));
  const homes = new Map<string, Dot[]>();
  for (const dot of dots) {
    const home = names.has(dot.sub_model) ? dot.sub_model : (holds.get(dot.peer_id) ?? wedges[0]?.key);
    if (home !== undefined) homes.set(home, [...(homes.get(home) ?? []), dot]);
  }
  return homes;
}

function place(wedge: Wedge, dots: Dot[], slots: Slots, speed: number): Placed[] {
  const taken = keepSlots(slots, wedge.key, dots);
  const { spots, r } = spotsFor(wedge.start, wedge.end, capacity(Math.max(dots.length, ...[...taken.values()].map((slot) => slot + 1))));
  return dots.map((dot) => {
    const spot = spots[taken.get(dot.peer_id)!];
    return { dot, mark: markOf(dot, speed), x: spot.x, y: spot.y, r, place: wedge.place };
  });
}

/** Give each peer the slot that it had, and newcomers the first that is free. */
function keepSlots(slots: Slots, key: string, dots: Dot[]): Map<string, number> {
  const had = slots.get(key) ?? new Map<string, number>();
  const taken = new Map<string, number>();
  for (const dot of dots) if (had.has(dot.peer_id)) taken.set(dot.peer_id, had.get(dot.peer_id)!);
  const used = new Set(taken.values());
  let free = 0;
  for (const dot of [...dots].sort((a, b) => (a.peer_id < b.peer_id ? -1 : 1))) {
    if (taken.has(dot.peer_id)) continue;
    while (used.has(free)) free += 1;
    used.add(free);
    taken.set(dot.peer_id, free);
  }
  slots.set(key, taken);
  return taken;
}

/** Round a number of peers up to one for which the places are laid out. */
function capacity(count: number): number {
  let most = 1;
  while (most < count) most = most < 6 ? most + 1 : Math.ceil(most * 1.25);
  return most;
}

/** Spread `count` spots over a sector, on as many rings as give them most room. */
function spotsFor(start: number, end: number, count: number): { spots: { x: number; y: number }[]; r: number } {
  const angle = end - start;
  const isWhole = angle > 2 * Math.PI - 0.1;
  let best: { rings: { radius: number; count: number }[]; room: number } | null = null;
  for (let rings = 1; rings <= 9; rings += 1) {
    const step = (OUTER - INNER) / rings;
    const radii = Array.from({ length: rings }, (_, k) => INNER + step * (k + 0.5));
    const total = radii.reduce((sum, radius) => sum + radius, 0);
    const counts = radii.map((radius) => Math.floor((count * radius) / total));
    for (let k = rings - 1, left = count - counts.reduce((a, b) => a + b, 0); left > 0; left -= 1, k = (k + rings - 1) % rings) counts[k] += 1;
    const arcs = radii.map((radius, k) => (counts[k] ? (angle * radius) / counts[k] : Infinity));
    const room = Math.min(step, ...arcs);
    if (!best || room > best.room) best = { rings: radii.map((radius, k) => ({ radius, count: counts[k] })), room };
  }
  const spots = best!.rings.flatMap(({ radius, count: here }, ring) =>
    Array.from({ length: here }, (_, k) => {
      const turn = isWhole ? (k + (ring % 2) / 2) / here : (k + 0.5) / here;
      return { x: radius * Math.cos(start + angle * turn), y: radius * Math.sin(start + angle * turn) };
    }),
  );
  return { spots, r: Math.min(MOST_R, Math.max(LEAST_R, best!.room * 0.32)) };
}

function shardsOf(coverage: Coverage[], block: string, start: number, end: number): Wedge["shards"] {
  const own = coverage.filter((each) => each.sub_model === block);
  const all = own.flatMap((each) => each.holders.map((holders, shard) => ({ holders, label: `${each.domain}, shard ${shard}` })));
  const width = (end - start) / Math.max(1, all.length);
  return all.map(({ holders, label }, at) => ({ start: start + at * width, end: start + (at + 1) * width, holders, label }));
}

/** The path of a ring's part between two radii and angles. */
export function ringPart(inner: number, outer: number, start: number, end: number): string {
  if (end - start > 2 * Math.PI - 1e-6) {
    const full = (radius: number) => `M${radius} 0A${radius} ${radius} 0 1 1 ${-radius} 0A${radius} ${radius} 0 1 1 ${radius} 0Z`;
    return full(outer) + full(inner);
  }
  const large = end - start > Math.PI ? 1 : 0;
  const at = (radius: number, angle: number) => `${(radius * Math.cos(angle)).toFixed(1)} ${(radius * Math.sin(angle)).toFixed(1)}`;
  return `M${at(outer, start)}A${outer} ${outer} 0 ${large} 1 ${at(outer, end)}L${at(inner, end)}A${inner} ${inner} 0 ${large} 0 ${at(inner, start)}Z`;
}

/** The path along which a sector's name is written: never upside down. */
export function nameArc(radius: number, start: number, end: number): string {
  const middle = (start + end) / 2;
  const isBelow = Math.sin(middle) > 0.35;
  const [from, to, r] = isBelow ? [end, start, radius + 10] : [start, end, radius - 10];
  const span = Math.min(Math.abs(to - from), 2 * Math.PI - 0.2);
  const begin = isBelow ? middle + span / 2 : middle - span / 2;
  const finish = isBelow ? middle - span / 2 : middle + span / 2;
  const at = (angle: number) => `${(r * Math.cos(angle)).toFixed(1)} ${(r * Math.sin(angle)).toFixed(1)}`;
  return `M${at(begin)}A${r} ${r} 0 ${span > Math.PI ? 1 : 0} ${isBelow ? 0 : 1} ${at(finish)}`;
}
