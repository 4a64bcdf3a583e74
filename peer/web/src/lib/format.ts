// Numbers and times as people read them.
const KILO = ["", " k", " M", " B", " T"];
const BYTES = [" B", " kB", " MB", " GB", " TB"];

function scaled(value: number, units: string[], digits = 3): string {
  let at = 0;
  let rest = Math.abs(value);
  while (rest >= 999.5 && at < units.length - 1) {
    rest /= 1000;
    at += 1;
  }
  const text = at === 0 ? Math.round(rest).toString() : rest.toPrecision(Math.max(digits, 1));
  return `${value < 0 ? "−" : ""}${text}${units[at]}`;
}

export const tokens = (value: number): string => scaled(value, KILO);
export const bytes = (value: number): string => scaled(value, BYTES);
export const speed = (value: number): string => `${scaled(value, KILO)}/s`;
export const loss = (value: number | null | undefined): string => (value == null ? "–" : value.toFixed(3));
export const percent = (share: number): string =>
  `${(share * 100).toLocaleString("en", { maximumFractionDigits: share < 0.1 ? 2 : 1 })} %`;
export const seconds = (value: number): string =>
  value < 1 ? `${Math.round(value * 1000)} ms` : `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;

export function duration(value: number): string {
  if (value < 100) return `${Math.round(value)} s`;
  if (value < 6000) return `${Math.round(value / 60)} min`;
  if (value < 72 * 3600) return `${(value / 3600).toFixed(1)} h`;
  return `${(value / 86400).toFixed(1)} days`;
}

const HOUR = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const FULL = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** The time of day, with the date where that is not today's. */
export function clock(at: number, now = Date.now() / 1000): string {
  const date = new Date(at * 1000);
  const isToday = date.toDateString() === new Date(now * 1000).toDateString();
  return isToday ? HOUR.format(date) : `${DAY.format(date)}, ${HOUR.format(date)}`;
}

export const dateTime = (at: number): string => FULL.format(new Date(at * 1000));
