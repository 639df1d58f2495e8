import { describe, expect, it } from "vitest";
import { figure, large, percent, rate, signed } from "./format";
import { intervalOf, logHeight, logTicks, shade, ticks } from "./scale";

describe("scales", () => {
  it("puts round ticks inside the range", () => {
    expect(ticks(0, 10)).toEqual([0, 2, 4, 6, 8, 10]);
    expect(ticks(-5, 0)).toEqual([-5, -4, -3, -2, -1, 0]);
    expect(ticks(0.13, 0.29, 4)).toEqual([0.15, 0.2, 0.25]);
    expect(ticks(3, 3)).toEqual([3]);
  });

  it("keeps single counts visible and empty bins empty", () => {
    expect(logHeight(0, 1000)).toBe(0);
    expect(logHeight(1, 1000)).toBeGreaterThan(0.05);
    expect(logHeight(1000, 1000)).toBe(1);
    expect(logTicks(1500)).toEqual([1, 10, 100, 1000]);
    expect(logTicks(150000)).toEqual([1, 100, 10000]);
  });

  it("shades silence not at all, a whisper a little, the maximum fully", () => {
    expect(shade(0, 5)).toBe(0);
    expect(shade(0.001, 5)).toBe(0.02);
    expect(shade(9, 5)).toBe(1);
  });

  it("finds the interval of a value", () => {
    const intervals = [
      { low: 6, high: 9 },
      { low: 3, high: 6 },
      { low: 0, high: 3 },
    ];
    expect([8.9, 6, 2, 0].map((value) => intervalOf(value, intervals))).toEqual([0, 1, 2, 2]);
  });
});

describe("numbers", () => {
  it("has three significant digits", () => {
    expect([9.123, 0.01234, 123.4, 12345, 0, 9.999].map(figure)).toEqual([
      "9.12", "0.0123", "123", "12,345", "0", "10.00",
    ]);
    expect(signed(-0.5)).toBe("−0.500");
    expect(large(1_024_000)).toBe("1.02 million");
  });

  it("says rare shares as one in so many", () => {
    expect(rate(0)).toBe("never");
    expect(rate(0.25)).toBe("25.0 %");
    expect(rate(0.0013)).toBe("1 in 770");
    expect(percent(0.000004)).toBe("0.0004 %");
  });
});
