import { read, type News } from "./source";

const all = new BroadcastChannel("shoal");
let newest: News | null = null;
let isRead = false;

function tell(news: News): void {
  if (news.kind !== "beat") newest = news;
  all.postMessage(news);
}

(self as unknown as { onconnect: (event: MessageEvent) => void }).onconnect = (event) => {
  if (newest) event.ports[0].postMessage(newest);
  if (!isRead) {
    isRead = true;
    read(tell);
  }
};
