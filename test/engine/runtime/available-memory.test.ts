import { describe, expect, it } from "vitest";
import { availableMemory, groupMemory } from "../../../src/engine/runtime/available-memory-node.ts";

const GiB = 2 ** 30;

/** A system with these files. */
const system = (files: Readonly<Record<string, string>>) => (path: string) => files[path];

describe("what a control group leaves", () => {
  it("is the limit without what is used, where pages of files make room", () => {
    const left = groupMemory(
      system({
        "/proc/self/cgroup": "0::/app/worker\n",
        "/sys/fs/cgroup/app/worker/memory.max": `${4 * GiB}\n`,
        "/sys/fs/cgroup/app/worker/memory.current": `${3 * GiB}\n`,
        "/sys/fs/cgroup/app/worker/memory.stat": `anon ${GiB}\ninactive_file ${GiB}\nactive_file 5\n`,
      }),
    );
    expect(left).toBe(2 * GiB + 5);
  });

  it("is what the tightest group on the way up leaves", () => {
    const left = groupMemory(
      system({
        "/proc/self/cgroup": "0::/app/worker\n",
        "/sys/fs/cgroup/app/worker/memory.max": "max\n",
        "/sys/fs/cgroup/app/worker/memory.current": "1000\n",
        "/sys/fs/cgroup/app/memory.max": `${2 * GiB}\n`,
        "/sys/fs/cgroup/app/memory.current": `${3 * GiB}\n`,
      }),
    );
    expect(left).toBe(0);
  });

  it("is read from the first version's files too, and from a container's own root", () => {
    const left = groupMemory(
      system({
        "/proc/self/cgroup": "11:cpu,cpuacct:/docker/1\n5:memory:/docker/1\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": `${8 * GiB}\n`,
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": `${6 * GiB}\n`,
        "/sys/fs/cgroup/memory/memory.stat": `active_file 7\ntotal_active_file ${GiB}\n`,
      }),
    );
    expect(left).toBe(3 * GiB);
  });

  it("is everything where there are no groups", () => {
    expect(groupMemory(system({}))).toBe(Infinity);
  });
});

describe("available memory", () => {
  it("is some, and less than any machine has", () => {
    const bytes = availableMemory();
    expect(bytes).toBeGreaterThan(2 ** 24);
    expect(bytes).toBeLessThan(2 ** 50);
  });
});
