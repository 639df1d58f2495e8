/** A question to the model: one at a time, the latest wins. */

const SLOW = 1200;

export class Asked<T> {
  answer = $state.raw<T | null>(null);
  failed = $state("");
  running = $state(false);
  /** It takes so long that the model is probably loading. */
  slow = $state(false);
  #going: AbortController | null = null;

  /** Ask; an earlier question that is still open is dropped. Returns whether there is an answer. */
  async ask(question: (signal: AbortSignal) => Promise<T>): Promise<boolean> {
    this.#going?.abort();
    const mine = (this.#going = new AbortController());
    this.running = true;
    this.slow = false;
    this.failed = "";
    const timer = setTimeout(() => { if (this.#going === mine) this.slow = true; }, SLOW);
    try {
      const found = await question(mine.signal);
      if (this.#going !== mine) return false;
      this.answer = found;
      return true;
    } catch (error) {
      if (this.#going === mine) this.failed = error instanceof Error ? error.message : String(error);
      return false;
    } finally {
      clearTimeout(timer);
      if (this.#going === mine) this.running = this.slow = false;
    }
  }
}
