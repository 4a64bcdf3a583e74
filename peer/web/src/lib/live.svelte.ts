// What the page knows at this moment, and how fresh it is.
import type { View } from "../types";
import { read, type News } from "./source";

const SILENT_MS = 10_000; // the daemon sends something every three seconds

class Live {
  view = $state.raw<View | null>(null);
  heardMs = $state(0);
  nowMs = $state(Date.now());
  isCut = $state(false);

  /** The daemon does not answer: what is shown is old. */
  get isLost(): boolean {
    return this.isCut || (this.heardMs > 0 && this.nowMs - this.heardMs > SILENT_MS);
  }

  take(news: News): void {
    if (news.kind === "lost") {
      this.isCut = true;
      return;
    }
    this.isCut = false;
    this.heardMs = this.nowMs = Date.now();
    if (news.kind === "view") this.view = JSON.parse(news.data);
  }

  open(): void {
    setInterval(() => (this.nowMs = Date.now()), 1000);
    // The first view, while the worker is still starting.
    void fetch("/view").then(async (answer) => {
      const data = await answer.text();
      if (answer.ok && !this.view) this.take({ kind: "view", data });
    }, () => undefined);
    const take = (news: News) => this.take(news);
    if (typeof SharedWorker === "undefined") return read(take);
    new BroadcastChannel("shoal").onmessage = (event) => take(event.data);
    const worker = new SharedWorker(new URL("./worker.ts", import.meta.url), { type: "module", name: "shoal" });
    worker.port.onmessage = (event) => take(event.data);
    worker.onerror = () => read(take);
  }
}

export const live = new Live();
