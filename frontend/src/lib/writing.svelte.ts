/** Text that the model writes, as it comes: OpenAI's stream, with sememe's part of it. */

export interface Message {
  role: "user" | "assistant";
  content: string;
}

interface Fired {
  position: number;
  feature: number;
  value: number;
}

interface Chunk {
  choices?: { text?: string; delta?: { content?: string }; finish_reason: string | null }[];
  sememe?: { trace: Fired[]; features?: { feature: number; applied: number }[] };
  error?: { message: string };
}

/** What is asked of the model. */
export interface Wish {
  model: string;
  prompt?: string;
  messages?: Message[];
  max_tokens: number;
  temperature: number;
  seed: number;
  features: Record<string, string>;
  trace: number[];
}

export class Writing {
  text = $state("");
  running = $state(false);
  failed = $state("");
  finish = $state<string | null>(null);
  /** Tokens to which the changes were applied. */
  applied = $state(0);
  /** By feature, its value on each token read; none where it is silent. */
  values = $state<Record<number, number[]>>({});
  #going: AbortController | null = null;

  stop(): void {
    this.#going?.abort();
  }

  /** Write; what was being written before is stopped. */
  async write(wish: Wish): Promise<void> {
    this.stop();
    const mine = (this.#going = new AbortController());
    Object.assign(this, { text: "", failed: "", finish: null, applied: 0, values: {}, running: true });
    try {
      const path = wish.messages ? "/v1/chat/completions" : "/v1/completions";
      const response = await fetch(path, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...wish, stream: true }),
        signal: mine.signal,
      });
      for await (const data of events(response)) {
        if (this.#going !== mine) return;
        this.#take(JSON.parse(data) as Chunk);
      }
    } catch (error) {
      if (this.#going !== mine) return;
      if (mine.signal.aborted) this.finish = "stopped";
      else this.failed = error instanceof Error ? error.message : String(error);
    } finally {
      if (this.#going === mine) this.running = false;
    }
  }

  #take(chunk: Chunk): void {
    if (chunk.error) throw new Error(chunk.error.message);
    for (const choice of chunk.choices ?? []) {
      this.text += choice.text ?? choice.delta?.content ?? "";
      this.finish = choice.finish_reason ?? this.finish;
    }
    for (const { feature, position, value } of chunk.sememe?.trace ?? []) {
      const row = (this.values[feature] ??= []);
      row[position] = value;
    }
    for (const { applied } of chunk.sememe?.features ?? []) this.applied = Math.max(this.applied, applied);
  }
}

/** Yield the data of a stream of server-sent events, up to its end. */
export async function* events(response: Response): AsyncGenerator<string> {
  if (!response.ok || !response.body) {
    const text = await response.text();
    let reason = text.trim() || `the server answered ${response.status}`;
    try {
      reason = (JSON.parse(text) as Chunk).error?.message ?? reason;
    } catch {
      // Not JSON: the text itself is the reason.
    }
    throw new Error(reason);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the server broke off");
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop() ?? "";
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield data;
    }
  }
}
