/** What a notebook's kernel shares with its widget. */

export interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(event: string, call: () => void): void;
  off(event: string, call: () => void): void;
}

/** A value of the kernel's that follows it. */
export class Shared<T> {
  now: T;

  constructor(model: Model, name: string) {
    this.now = $state.raw(model.get(name) as T);
    $effect(() => {
      const read = (): void => { this.now = model.get(name) as T; };
      read();
      model.on(`change:${name}`, read);
      return () => model.off(`change:${name}`, read);
    });
  }
}
