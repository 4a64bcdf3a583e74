// The daemon's stream of views, read once for all tabs of a browser, for it keeps six connections to a host and no more.
// Without shared workers (some phones) each tab reads its own.

export type News = { kind: "view"; data: string } | { kind: "beat" } | { kind: "lost" };

const AGAIN_MS = 3000; // after the daemon has refused a stream

/** Read the stream for as long as this context lives. */
export function read(tell: (news: News) => void): void {
  const source = new EventSource("/stream");
  source.addEventListener("view", (event) => tell({ kind: "view", data: event.data }));
  source.addEventListener("beat", () => tell({ kind: "beat" }));
  source.onerror = () => {
    tell({ kind: "lost" });
    // A stream that broke is opened again by the browser itself; one that was refused is not.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => read(tell), AGAIN_MS);
  };
}
