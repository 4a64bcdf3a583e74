// The daemon's other paths: fetched when the view says that time has passed, and only while somebody looks.
import type { Documented } from "../types";

export class Resource<T> {
  data = $state.raw<T | null>(null);
  error = $state("");
  #askedMs = 0;
  #isAsking = false;
  #path = "";

  constructor(private readonly everyMs: number) {}

  /** Fetch it, unless that was a moment ago; another path than last time is fetched at once. */
  async refresh(path: string): Promise<void> {
    const isOther = path !== this.#path;
    if (this.#isAsking && !isOther) return;
    if (!isOther && (document.hidden || Date.now() - this.#askedMs < this.everyMs)) return;
    this.#path = path;
    this.#askedMs = Date.now();
    this.#isAsking = true;
    try {
      const data = await getJson<T>(path);
      if (path === this.#path) {
        this.data = data;
        this.error = "";
      }
    } catch (error) {
      this.error = (error as Error).message;
    } finally {
      this.#isAsking = false;
    }
  }
}

export async function getJson<T>(path: string): Promise<T> {
  return await answer<T>(await fetch(path, { signal: AbortSignal.timeout(10_000) }));
}

/** Ask the daemon to do something. Throws an Error with its reason. */
export async function post<T>(path: string, body: unknown = {}): Promise<T> {
  return await answer<T>(await send(path, body));
}

/** Ask the daemon, and call `take` with each line of its answer. Throws an Error with its reason. */
export async function postLines(path: string, body: unknown, take: (line: never) => void, signal: AbortSignal): Promise<void> {
  const response = await send(path, body, signal);
  if (!response.ok) await answer(response);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop()!;
    for (const line of lines) if (line) take(JSON.parse(line) as never);
    if (done) return;
  }
}

export async function paths(): Promise<Documented[]> {
  return (await getJson<{ paths: Documented[] }>("/paths")).paths;
}

async function send(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  return await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

async function answer<T>(response: Response): Promise<T> {
  if (response.ok) return await response.json();
  const reason = await response.json().catch(() => null);
  throw new Error(reason?.error ?? `the daemon answered ${response.status}`);
}
