// Written by generate_types.py from the daemon's models; do not edit.

export interface Answered {
  at: number;
  tick: number;
  age: number;
  pieces: Piece[];
}

export interface AnswersHistory {
  prompts: PromptHistory[];
}

export interface Coverage {
  domain: string;
  sub_model: string;
  tokens: number;
  holders: number[];
}

export interface Curves {
  held_out: Record<string, Record<string, Point[]>>;
  run: Record<string, Point[]>;
  training: Point[];
  learning_rate: Point[];
  gradient_norm: Point[];
}

export interface Device {
  name: string;
  memory_used_bytes: number | null;
  memory_total_bytes: number | null;
}

export interface Documented {
  method: "GET" | "POST";
  path: string;
  gives: string;
  model: string;
}

export interface Dot {
  peer_id: string;
  name: string;
  is_me: boolean;
  role: "holder" | "keeper" | "reader";
  sub_model: string;
  domain: string;
  state: string;
  rounds: number;
  loss: number | null;
  tokens: number;
  tokens_per_s: number;
  bytes_in: number;
  bytes_out: number;
  link: string;
  why: string;
  excluded: string;
  fate: string;
  agrees: boolean | null;
  digest: string;
  held_out: Record<string, number>;
}

export interface Finding {
  code: string;
  affects: string;
  cause: string;
  cure: string;
  is_severe: boolean;
}

export interface Headline {
  version: string;
  peer_id: string;
  run_id: string;
  run_name: string;
  strategy: string;
  phase: string;
  state: string;
  why: string;
  tick: number;
  tick_seconds: number;
  up_s: number;
  url: string;
  join: string;
  is_closed: boolean;
  privacy: string;
}

export interface MemberStatus {
  peer_id: string;
  rights: string[];
  until: number;
  invited_by: string;
  holds: boolean;
}

export interface Part {
  peer: string;
  fate: "sealed" | "late" | "absent" | "left out";
  offer_s: number | null;
  list_s: number | null;
  size_bytes: number;
  tokens: number;
  why: string;
}

export interface Paths {
  paths: Documented[];
}

export interface Piece {
  text: string;
  sub_model: string;
}

export interface Point {
  tokens: number;
  at: number;
  value: number;
}

export interface Progress {
  age: number;
  total_tokens: number;
  share: number;
  tokens_per_s: number;
  ends: string;
  ends_at: number | null;
}

export interface PromptHistory {
  prompt: string;
  domain: string;
  answers: Answered[];
}

export interface RoundRecord {
  block: string;
  tick: number;
  at: number;
  length_s: number;
  cut_s: number;
  outcome: string;
  cause: string;
  is_step: boolean;
  version: number;
  age: number;
  digest: string;
  phases: Record<string, number>;
  parts: Part[];
  bytes_in: number;
  bytes_out: number;
}

export interface Rounds {
  rounds: RoundRecord[];
  older: number | null;
}

export interface Sector {
  block: string;
  domain: string;
  holders: string[];
  keepers: string[];
  age: number;
  version: number;
  round_s: number;
  last_round: number;
  outcome: string;
  agreement: number;
  group: string[];
  gap: string;
}

export interface Share {
  tokens: number;
  rounds: number;
  share_of_tokens: number;
  bytes_in: Record<string, number>;
  bytes_out: Record<string, number>;
  up_mbit: number | null;
  down_mbit: number | null;
  memory_bytes: number;
  memory_free_bytes: number | null;
  disk_bytes: number;
  disk_free_bytes: number;
  devices: Device[];
  step_s: number | null;
  advice: string[];
}

export interface View {
  at: number;
  headline: Headline;
  progress: Progress;
  findings: Finding[];
  sectors: Sector[];
  dots: Dot[];
  coverage: Coverage[];
  members: MemberStatus[];
  losses: [number, number][];
  held_out: Record<string, [number, number][]>;
  events: string[];
}
