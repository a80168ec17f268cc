import { describe, expect, it } from "vitest";
import { availableMemory, groupMemory } from "../../../src/engine/runtime/available-memory-node.ts";

const GiB = 2 ** 30;

/** A system with these files. */
const system = (files: Readonly<Record<string, string>>) => (path: string) => files[path];

describe("the memory left in a control group", () => {
  it("is the limit minus the memory in use, without cached pages of files", () => {
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

  it("is that of the strictest parent group", () => {
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

  it("is also read from version 1 files, and from the root of a container", () => {
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

  it("is unlimited without groups", () => {
    expect(groupMemory(system({}))).toBe(Infinity);
  });
});

describe("available memory", () => {
  it("is positive and below the memory of any machine", () => {
    const bytes = availableMemory();
    expect(bytes).toBeGreaterThan(2 ** 24);
    expect(bytes).toBeLessThan(2 ** 50);
  });
});
