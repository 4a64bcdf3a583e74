// A colour for each sub-model, the same everywhere on the page.
export const COLOURS = 8;

/** Return the CSS variable of the `index`-th colour. */
export const colour = (index: number): string => `var(--c${index % COLOURS})`;

/** Return what a CSS colour comes to now, for a canvas. */
export function resolved(css: string): string {
  const probe = document.createElement("span");
  probe.style.color = css;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

/** Return the place of each sub-model among the colours: those of the blocks first, in their order. */
export function palette(names: Iterable<string>): Map<string, number> {
  const places = new Map<string, number>();
  for (const name of names) if (name && !places.has(name)) places.set(name, places.size);
  return places;
}
