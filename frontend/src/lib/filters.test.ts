import { describe, expect, it } from "vitest";
import * as filters from "./filters";

const query = new URLSearchParams("color=source&status=alive&status=dense&frequency=0.01..&view=1,2,3&offset=50&by=label&sort=maximum");

describe("filters of an address", () => {
  it("are those that the server's lists take", () => {
    expect(filters.filters(query).toString()).toBe("status=alive&status=dense&frequency=0.01..");
    expect(filters.filters(query, "status").toString()).toBe("frequency=0.01..");
  });
  it("name where to search only with something to look for", () => {
    expect(filters.filters(new URLSearchParams("by=label&search=sea")).toString()).toBe("search=sea&by=label");
    expect(filters.filters(new URLSearchParams("by=label&search=")).toString()).toBe("");
  });
  it("come with an order", () => {
    expect(filters.order(query)).toEqual({ sort: "maximum", order: "desc" });
    expect(filters.order(new URLSearchParams())).toEqual({ sort: "relevance", order: "desc" });
  });
  it("change in a copy of the address", () => {
    const one = new URLSearchParams("status=alive&offset=50");
    expect(filters.changed(one, { status: filters.toggled(one, "status", "dense"), offset: null })).toBe("/?status=alive&status=dense");
    expect(filters.changed(one, { status: filters.toggled(one, "status", "alive"), offset: null })).toBe("/");
    expect(one.toString()).toBe("status=alive&offset=50");
  });
});

describe("a range", () => {
  it.each([
    [null, null, null], [0.0012345, null, "0.00123.."], [null, 7, "..7"], [1e-7, 2, "1e-7..2"], [-3, 0, "-3..0"],
  ])("from %s to %s is written %s", (low, high, text) => expect(filters.range(low, high)).toBe(text));
  it.each([[null, [null, null]], ["0.5..", [0.5, null]], ["..7", [null, 7]], ["-3..0", [-3, 0]], ["1e-7..2", [1e-7, 2]]])(
    "%s is read", (text, found) => expect(filters.ends(text)).toEqual(found),
  );
});
