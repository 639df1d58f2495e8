/** How far the job is that makes the atlas, asked again and again while its page is open. */
import { type Example, draw } from "./api";

export interface JobStage {
  name: string;
  state: "waiting" | "running" | "done";
  unit: string | null;
  total: number | null;
  done: number | null;
  /** Units a second. */
  rate: number | null;
  /** Seconds left at this rate. */
  left: number | null;
  seconds: number | null;
  note: string;
}

export type Figures = "fvu" | "l0" | "dead" | "loss";

export interface EarlyRow {
  feature: number;
  frequency: number;
  maximum: number;
  tokens: string[];
  examples: Example[];
}

export interface Job {
  out: string;
  model: string | null;
  /** The atlas's pages are served. */
  ready: boolean;
  stages: JobStage[];
  /** Of the whole training. */
  activations: number | null;
  curves: { tokens: number[] } & Record<Figures, (number | null)[]>;
  early: { trained: number; sample: number; cost: number; rows: EarlyRow[] } | null;
  messages: string[];
}

const EVERY = 1500;

class Watch {
  job = $state.raw<Job | undefined>();
  failed = $state("");
  /** The page was open before there was an atlas. */
  waited = $state(false);

  /** Ask until the atlas is there; the answer ends the asking. */
  start(): () => void {
    let over = false;
    const ask = async (): Promise<void> => {
      try {
        this.job = await draw<Job>("/job.json");
        this.failed = "";
      } catch (error) {
        this.failed = error instanceof Error ? error.message : String(error);
      }
      const ready = this.job?.ready ?? false;
      if (ready && this.waited && !over) location.assign("/");
      this.waited ||= this.job !== undefined && !ready;
      if (!over && !ready) setTimeout(ask, EVERY);
    };
    void ask();
    return () => { over = true; };
  }
}

export const watch = new Watch();
