/**
 * The manifests of servers on Kubernetes: against the schemas of Kubernetes, as @kubernetes/client-node 2.0.1 has them, and of KEDA
 * 2.20, both reduced to the objects in use; against each other; and against the command line, the server and the queue that they are for.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { workConsumer, workStream } from "../../src/server/shared/names.ts";
import { type Schemas, wrong } from "../support/api-schema.ts";
import { freePort, hasNats, startNats } from "../support/nats.ts";
import { parsedCommand } from "../support/parsed-command.ts";
import { testServer } from "./support.ts";

const root = path.resolve(import.meta.dirname, "../..");
const read = (file: string) => readFileSync(path.join(root, file), "utf8");
const schemas = JSON.parse(read("test/fixtures/kubernetes/serving.json")) as Schemas;
const guide = read("docs/scale.md");

interface Named {
  readonly name: string;
}

interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string };
}

interface Container extends Named {
  readonly image: string;
  readonly args: readonly string[];
  readonly env: readonly (Named & {
    readonly value?: string;
    readonly valueFrom?: { readonly secretKeyRef: { readonly name: string; readonly key: string } };
  })[];
  readonly ports: readonly (Named & { readonly containerPort: number })[];
  readonly startupProbe?: Probe;
  readonly readinessProbe: Probe;
  readonly livenessProbe: Probe;
  readonly lifecycle?: { readonly preStop: { readonly exec: { readonly command: string[] } } };
  readonly volumeMounts: readonly (Named & { readonly mountPath: string })[];
}

type Labels = Readonly<Record<string, string>>;

interface Workload {
  readonly metadata: Named;
  readonly spec: {
    readonly serviceName?: string;
    readonly selector: { readonly matchLabels: Labels };
    readonly template: {
      readonly metadata: { readonly labels: Labels };
      readonly spec: {
        readonly terminationGracePeriodSeconds: number;
        readonly containers: readonly [Container];
        readonly volumes?: readonly (Named & {
          readonly persistentVolumeClaim?: { readonly claimName: string };
        })[];
      };
    };
    readonly volumeClaimTemplates?: readonly { readonly metadata: Named }[];
  };
}

interface Service {
  readonly metadata: Named;
  readonly spec: {
    readonly selector: Labels;
    readonly ports: readonly (Named & {
      readonly port: number;
      readonly targetPort?: number | string;
    })[];
  };
}

interface Scaling {
  readonly spec: {
    readonly scaleTargetRef: Named;
    readonly triggers: readonly { readonly type: string; readonly metadata: Labels }[];
  };
}

const files = ["nats.yaml", "patchwise.yaml", "scaling.yaml"] as const;
const documents = files.flatMap((file) =>
  parseAllDocuments(read(`examples/kubernetes/${file}`)).map((document) => ({ file, document })),
);
const objects = documents.map(({ document }) => document.toJS() as { kind: string });
const ofKind = <T>(kind: string) => objects.filter((each) => each.kind === kind) as unknown as T[];
const services = ofKind<Service>("Service");
const [queue] = ofKind<Workload>("StatefulSet") as [Workload];
const [servers] = ofKind<Workload>("Deployment") as [Workload];
const [scaling] = ofKind<Scaling>("ScaledObject") as [Scaling];
const containerOf = ({ spec }: Workload) => spec.template.spec.containers[0];
/** Templates within objects may leave out what each object itself must have. */
const faults = (object: object) => [
  ...["apiVersion", "kind", "metadata"].filter((name) => !(name in object)),
  ...wrong(object, { $ref: (object as { kind: string }).kind }, schemas),
];

describe("manifests of servers", () => {
  it.each(documents)("are what the schemas allow: $file", ({ document }) => {
    expect(document.errors).toEqual([]);
    expect(faults(document.toJS() as object)).toEqual([]);
  });

  const pod = ["spec", "template", "spec"];
  const container = [...pod, "containers", 0];
  it.each([
    ["Deployment", ["apiVersion"], "v1", ".apiVersion is v1"],
    ["Service", ["metadata"], undefined, "metadata"],
    ["Deployment", ["spec", "replica"], 2, ".spec.replica is unknown"],
    ["Deployment", ["spec", "replicas"], "2", ".spec.replicas is no such whole number"],
    ["Deployment", ["spec", "selector"], undefined, ".spec.selector is missing"],
    ["Deployment", ["spec", "strategy", "type"], "Rolling", ".spec.strategy.type is Rolling"],
    ["Deployment", [...container, "env", 0, "value"], 8, "[0].env[0].value is no string"],
    ["Deployment", [...container, "envs"], [], "containers[0].envs is unknown"],
    ["Deployment", [...container, "args"], "serve", "containers[0].args is no list"],
    ["Deployment", [...container, "readinessProbe", "httpGet", "port"], true, "port is no such"],
    ["Deployment", [...container, "livenessProbe", "http"], {}, "livenessProbe.http is unknown"],
    ["Deployment", [...container, "livenessProbe", "grpc"], {}, "has no schema GRPCAction here"],
    ["Deployment", [...container, "resources", "limits", "memory"], "4GiB", "memory is 4GiB"],
    ["Deployment", [...pod, "volumes", 0, "emptyDirs"], {}, "volumes[0].emptyDirs is unknown"],
    ["StatefulSet", ["spec", "volumeClaimTemplate"], [], ".spec.volumeClaimTemplate is unknown"],
    ["Service", ["spec", "ports", 0, "port"], "http", ".spec.ports[0].port is no such whole"],
    ["PersistentVolumeClaim", ["spec", "accessModes", 0], "ReadMany", "accessModes[0] is ReadMany"],
    ["ScaledObject", ["spec", "maxReplicas"], 10, ".spec.maxReplicas is unknown"],
    ["ScaledObject", ["spec", "triggers", 0, "metadata", "lagThreshold"], 8, "is no string"],
    ["ScaledObject", ["spec", "triggers"], [], ".spec.triggers has 0 items"],
  ])("would be refused: %s with %j as %j", (kind, at, value, message) => {
    const { document } = documents.find((each) => each.document.get("kind") === kind)!;
    const spoiled = document.clone();
    if (value === undefined) spoiled.deleteIn(at);
    else spoiled.setIn(at, value);
    const found = faults(spoiled.toJS() as object);
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(message);
  });

  it.each([queue, servers])("find their pods, ports and volumes: $metadata.name", (workload) => {
    const { spec } = workload;
    const { labels } = spec.template.metadata;
    const { ports, volumeMounts, startupProbe, readinessProbe, livenessProbe } =
      containerOf(workload);
    expect(labels).toMatchObject(spec.selector.matchLabels);
    const own = services.filter((each) => each.metadata.name === workload.metadata.name);
    expect(own).toHaveLength(1);
    expect(labels).toMatchObject(own[0]!.spec.selector);
    expect(spec.serviceName ?? own[0]!.metadata.name).toBe(own[0]!.metadata.name);
    for (const { port, targetPort = port } of own[0]!.spec.ports) {
      expect(ports.flatMap((each) => [each.name, each.containerPort])).toContain(targetPort);
    }
    const probes = [startupProbe, readinessProbe, livenessProbe];
    for (const probe of probes.filter((each) => each !== undefined)) {
      expect(ports.map(({ name }) => name)).toContain(probe.httpGet.port);
    }
    const { volumes = [] } = spec.template.spec;
    const templates = (spec.volumeClaimTemplates ?? []).map(({ metadata }) => metadata.name);
    const names = [...volumes.map(({ name }) => name), ...templates];
    expect(volumeMounts.map(({ name }) => name).toSorted()).toEqual(names.toSorted());
    const claims = volumes.flatMap((each) => each.persistentVolumeClaim?.claimName ?? []);
    const there = ofKind<{ metadata: Named }>("PersistentVolumeClaim");
    expect(claims).toEqual(claims.length > 0 ? there.map(({ metadata }) => metadata.name) : []);
  });

  it("take their secrets from the one that the guide has made", () => {
    const [, name, rest] = /kubectl create secret generic (\S+) (.*)/.exec(guide)!;
    const keys = [...rest!.matchAll(/--from-literal=([\w-]+)=/g)].map(([, key]) => key);
    const taken = [queue, servers].flatMap((each) =>
      containerOf(each).env.flatMap(({ valueFrom }) => valueFrom?.secretKeyRef ?? []),
    );
    expect(new Set(taken.map((each) => each.name))).toEqual(new Set([name]));
    expect(new Set(taken.map(({ key }) => key))).toEqual(new Set(keys));
  });

  it("start servers by a command line that is parsed, with room for their end", async () => {
    const { args, env, image, ports, lifecycle, volumeMounts } = containerOf(servers);
    const options = await parsedCommand(args);
    expect(options).toMatchObject({ host: "0.0.0.0", model: ["emoji"] });
    expect(ports).toEqual([{ name: "http", containerPort: options["port"] }]);
    expect(volumeMounts.map(({ mountPath }) => mountPath)).toContain(options["output"]);
    const wait = Number(lifecycle!.preStop.exec.command[1]);
    const { terminationGracePeriodSeconds } = servers.spec.template.spec;
    expect(wait + Number(options["grace"])).toBeLessThan(terminationGracePeriodSeconds);
    const { version } = JSON.parse(read("package.json")) as { version: string };
    expect([image, guide]).toEqual([`patchwise:${version}`, expect.stringContaining(` ${image} `)]);
    // A variable may name those before it.
    expect(env.map(({ name }) => name)).toEqual([
      "PATCHWISE_TOKEN",
      "NATS_TOKEN",
      "PATCHWISE_QUEUE",
    ]);
    const address = new URL(env[2]!.value!.replace("$(NATS_TOKEN)", "secret"));
    const service = services.find(({ metadata }) => metadata.name === address.hostname)!;
    const { port } = service.spec.ports.find(({ name }) => name === "client")!;
    expect([address.protocol, address.username, Number(address.port)]).toEqual([
      "nats:",
      "secret",
      port,
    ]);
    expect(await parsedCommand(["serve", "--model=/models/NAME"])).toBeDefined();
  });

  it("scale the deployment by a stream and a consumer of the model's name", () => {
    const { scaleTargetRef, triggers } = scaling.spec;
    expect(scaleTargetRef.name).toBe(servers.metadata.name);
    const [{ type, metadata }] = triggers as [Scaling["spec"]["triggers"][0]];
    expect(type).toBe("nats-jetstream");
    expect(metadata).toEqual({
      natsServerMonitoringEndpoint: "nats:8222",
      account: "$G",
      stream: workStream,
      consumer: workConsumer("emoji"),
      lagThreshold: expect.stringMatching(/^\d+$/) as unknown,
    });
    const [host, port] = metadata["natsServerMonitoringEndpoint"]!.split(":");
    const { ports } = services.find((each) => each.metadata.name === host)!.spec;
    expect(ports).toContainEqual({ name: "monitor", port: Number(port) });
  });
});

/** What the trigger of KEDA reads from NATS. */
interface Monitored {
  readonly account_details: readonly {
    readonly id: string;
    readonly stream_detail: readonly {
      readonly name: string;
      readonly consumer_detail: readonly {
        readonly name: string;
        readonly num_pending: number;
        readonly num_ack_pending: number;
      }[];
    }[];
  }[];
}

it.runIf(hasNats)("have a queue and servers answer what is asked of them", async () => {
  const { args, readinessProbe, livenessProbe } = containerOf(queue);
  const monitor = await freePort();
  const nats = await startNats(
    // The folder is another one.
    args
      .filter((each, i) => each !== "--store_dir" && args[i - 1] !== "--store_dir")
      .map((each) => each.replace("8222", String(monitor)).replace("$(NATS_TOKEN)", "secret")),
  );
  const url = nats.url.replace("//", "//secret@");
  const server = await testServer({ token: "0123456789", shared: { url, lease: 2000 } });
  try {
    const probed = async (base: string, probe: Probe) =>
      (await fetch(base + probe.httpGet.path)).status;
    const monitored = `http://127.0.0.1:${monitor}`;
    expect(await probed(monitored, readinessProbe)).toBe(200);
    expect(await probed(monitored, livenessProbe)).toBe(200);
    const pod = containerOf(servers);
    for (const probe of [pod.startupProbe!, pod.readinessProbe, pod.livenessProbe]) {
      expect(await probed(server.url, probe)).toBe(200);
    }
    const { account, stream, consumer } = scaling.spec.triggers[0]!.metadata;
    const length = async () => {
      const query = new URLSearchParams({ acc: account!, consumers: "true", config: "true" });
      const answer = (await (await fetch(`${monitored}/jsz?${query}`)).json()) as Monitored;
      const found = answer.account_details
        .find(({ id }) => id === account)!
        .stream_detail.find(({ name }) => name === stream)!
        .consumer_detail.find(({ name }) => name === consumer)!;
      return found.num_pending + found.num_ack_pending;
    };
    expect(await length()).toBe(0);
    const sent = await fetch(`${server.url}/api/jobs`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: "Bearer 0123456789" },
      body: JSON.stringify({ prompt: "a dog", steps: 1000, count: 16 }),
    });
    expect(sent.status).toBe(202);
    expect(await length()).toBe(1);
  } finally {
    await server.close();
    await nats.remove();
  }
});
