import fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { chart, type ChartOptions } from "../../examples/chart.ts";
import { axisOf } from "../../examples/chart-axis.ts";

const options: ChartOptions = {
  title: 'Loss & "compute"',
  x: { label: "Gflops", scale: "log" },
  y: { label: "loss < 1" },
  series: [
    {
      name: "patch 8",
      style: "both",
      points: [
        { x: 0.36, y: 0.3, label: "S/8" },
        { x: 1.42, y: 0.25, label: "B/8" },
      ],
    },
    { name: "fit", style: "line", points: [0.1, 100].map((x) => ({ x, y: 0.5 - 0.1 / x ** 0.1 })) },
    { name: "others", style: "scatter", points: [{ x: 30, y: 0.2 }] },
  ],
};

const texts = (svg: string) => [...svg.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map((m) => m[1]);

describe("chart", () => {
  it("draws what a renderer takes", async () => {
    const svg = chart(options);
    const { data, info } = await sharp(Buffer.from(svg))
      .raw()
      .toBuffer({ resolveWithObject: true });
    expect([info.width, info.height]).toEqual([800, 500]);
    const colours = new Set<string>();
    for (let i = 0; i < data.length; i += info.channels) {
      colours.add([...data.subarray(i, i + 3)].join());
    }
    // The lines of the first two series and the mark of the third, upon white.
    for (const colour of ["255,255,255", "0,114,178", "213,94,0", "0,158,115"]) {
      expect(colours).toContain(colour);
    }
  });

  it("says what it shows", () => {
    const svg = chart(options);
    expect(texts(svg)).toEqual(
      expect.arrayContaining([
        "Loss &amp; &quot;compute&quot;",
        "Gflops",
        "loss &lt; 1",
        "patch 8",
        "fit",
        "others",
        "S/8",
        "B/8",
        "0.1",
        "1",
        "10",
        "100",
      ]),
    );
    expect(svg.match(/<polyline/g)?.length).toBe(2);
  });

  it("needs no legend for one series", () => {
    const [only] = options.series;
    expect(texts(chart({ ...options, series: [only!] }))).not.toContain("patch 8");
  });

  it("places points in proportion, logarithms on a logarithmic axis", () => {
    const points = [1, 10, 100].map((x) => ({ x, y: x }));
    const series = [{ name: "a", style: "line", points } as const];
    const corners = (scale: "linear" | "log") => {
      const svg = chart({
        ...options,
        x: { label: "x", scale: "log" },
        y: { label: "y", scale },
        series,
      });
      return /<polyline points="([^"]*)"/
        .exec(svg)![1]!
        .split(" ")
        .map((pair) => pair.split(",").map(Number));
    };
    for (const scale of ["linear", "log"] as const) {
      const [a, b, c] = corners(scale) as [number[], number[], number[]];
      // Rounded to a hundredth of a pixel each.
      expect(Math.abs(a[0]! + c[0]! - 2 * b[0]!)).toBeLessThan(0.03);
      const share = (b[1]! - a[1]!) / (c[1]! - a[1]!);
      expect(Math.abs(share - (scale === "log" ? 1 / 2 : 9 / 99))).toBeLessThan(1e-4);
    }
  });

  it("keeps labels apart from one another and from the marks", () => {
    const points = Array.from({ length: 4 }, (_, i) => ({ x: i % 2, y: i, label: `point ${i}` }));
    const svg = chart({
      ...options,
      x: { label: "x" },
      series: [{ name: "a", style: "scatter", points }],
    });
    const places = [...svg.matchAll(/<text x="([\d.]+)" y="([\d.]+)"[^>]*>point/g)].map((m) => [
      Number(m[1]),
      Number(m[2]),
    ]);
    expect(places.length).toBe(4);
    const distances = places.flatMap(([x, y], i) =>
      places.slice(i + 1).map((other) => Math.hypot(x! - other[0]!, y! - other[1]!)),
    );
    expect(Math.min(...distances)).toBeGreaterThan(13);
    // All within the frame.
    expect(places.every(([x]) => x! > 40 && x! < 780)).toBe(true);
  });

  it("refuses what it cannot show", () => {
    const of =
      (x: number, y: number, changed: Partial<ChartOptions> = {}) =>
      () =>
        chart({
          ...options,
          ...changed,
          series: [{ name: "a", style: "line", points: [{ x, y }] }],
        });
    expect(of(0, 1)).toThrow(
      new UsageError(
        'The chart "Loss & "compute"" cannot show 0 as Gflops of a; give a finite number above 0, or a linear axis.',
      ),
    );
    expect(of(1, NaN)).toThrow("cannot show NaN as loss < 1 of a; give a finite number.");
    expect(of(-1, -1, { x: { label: "x" } })).not.toThrow();
    expect(() => chart({ ...options, series: [] })).toThrow(
      new UsageError('The chart "Loss & "compute"" has no points; give at least one.'),
    );
  });
});

describe("axisOf", () => {
  const shown = (values: number[], scale: "linear" | "log") =>
    axisOf(values, scale, [0, 100]).ticks.map(({ text }) => text);

  it.each([
    [[0, 12000], "linear", ["0", "2,000", "4,000", "6,000", "8,000", "10,000", "12,000"]],
    [[-1, 1], "linear", ["-1", "-0.5", "0", "0.5", "1"]],
    [[0.36, 114], "log", ["0.5", "1", "2", "5", "10", "20", "50", "100"]],
    [[1e-4, 10], "log", ["1e-4", "0.001", "0.01", "0.1", "1", "10"]],
    [[0.21, 0.29], "log", ["0.21", "0.22", "0.23", "0.24", "0.25", "0.26", "0.27", "0.28", "0.29"]],
    [[1e-12, 1e12], "log", ["1e-13", "1e-8", "0.001", "100", "1e7", "1e12"]],
    [[3, 3], "linear", ["1.5", "2", "2.5", "3", "3.5", "4", "4.5"]],
    [[0, 0], "linear", ["-0.4", "-0.2", "0", "0.2", "0.4"]],
  ] as const)("writes %j, %s", (values, scale, expected) => {
    expect(shown([...values], scale)).toEqual(expected);
  });

  it("keeps values and ticks on the axis, in order, and not too many", () => {
    const value = fc.double({ min: 1e-12, max: 1e12, noNaN: true });
    const law = fc.property(
      fc.array(value, { minLength: 1, maxLength: 5 }),
      fc.constantFrom("linear" as const, "log" as const),
      fc.boolean(),
      (magnitudes, scale, negative) => {
        const values = magnitudes.map((each) => (negative && scale === "linear" ? -each : each));
        const axis = axisOf(values, scale, [0, 100]);
        const within = (at: number) => at > -1e-6 && at < 100 + 1e-6;
        expect(values.every((each) => within(axis.place(each)))).toBe(true);
        expect(
          axis.ticks.every(({ at }, i) => within(at) && (i === 0 || at > axis.ticks[i - 1]!.at)),
        ).toBe(true);
        expect(axis.ticks.length).toBeGreaterThan(1);
        expect(axis.ticks.length).toBeLessThan(13);
      },
    );
    expect(() => fc.assert(law, { seed: 3, numRuns: 2000 })).not.toThrow();
  });
});
