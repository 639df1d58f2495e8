/** The one tooltip: what it says, and above what it stands. */

export interface Tip {
  title: string;
  lines: string[];
  box: DOMRect;
}

class TipState {
  now = $state.raw<Tip | null>(null);

  show(element: Element, title: string, lines: string[]): void {
    this.now = { title, lines, box: element.getBoundingClientRect() };
  }

  hide(): void {
    this.now = null;
  }
}

export const tip = new TipState();
