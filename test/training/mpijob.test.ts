/** The manifest of a training on Kubernetes against the schema of the MPI operator, whose pods are reduced to the fields in use. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { parse } from "yaml";
import { type Schema, wrong } from "../support/api-schema.ts";

const root = path.resolve(import.meta.dirname, "../..");
const read = (file: string) => readFileSync(path.join(root, file), "utf8");
const schema = JSON.parse(read("test/fixtures/kubernetes/mpijob-v2beta1.json")) as Schema;
const manifest = () => parse(read("examples/kubernetes/train-mpijob.yaml")) as Manifest;

/** The parts of the manifest that are looked at and spoiled. */
interface Manifest {
  apiVersion: string;
  kind: string;
  spec: {
    slotsPerWorker: number;
    slotPerWorker?: number;
    mpiImplementation: string;
    mpiReplicaSpecs: Record<"Launcher" | "Worker", Replicas>;
  };
}

interface Replicas {
  replicas: number | string;
  template: {
    spec: {
      containers: [{ name?: string; args: [string]; resources: { limits: { memory: string } } }];
    };
  };
}

it("is an MPIJob of kubeflow.org/v2beta1", () => {
  const job = manifest();
  expect(wrong(job, schema)).toEqual([]);
  expect([job.apiVersion, job.kind]).toEqual(["kubeflow.org/v2beta1", "MPIJob"]);
});

it("would be refused with other names, types and quantities", () => {
  const job = manifest();
  const { spec } = job;
  spec.slotPerWorker = 1;
  spec.mpiImplementation = "OtherMPI";
  spec.mpiReplicaSpecs.Worker.replicas = "four";
  spec.mpiReplicaSpecs.Worker.template.spec.containers[0].resources.limits.memory = "16 GB";
  delete spec.mpiReplicaSpecs.Launcher.template.spec.containers[0].name;
  expect(wrong(job, schema).map((each) => each.replace(".spec.", ""))).toEqual([
    "mpiImplementation is OtherMPI",
    "mpiReplicaSpecs.Launcher.template.spec.containers[0].name is missing",
    "mpiReplicaSpecs.Worker.replicas is no such whole number",
    "mpiReplicaSpecs.Worker.template.spec.containers[0].resources.limits.memory is 16 GB",
    "slotPerWorker is unknown",
  ]);
});

it("starts as many ranks as it has workers", () => {
  const { mpiReplicaSpecs, slotsPerWorker } = manifest().spec;
  const { args } = mpiReplicaSpecs.Launcher.template.spec.containers[0];
  const ranks = Number(/ -n (\d+) /.exec(args[0])![1]);
  expect(ranks).toBe(Number(mpiReplicaSpecs.Worker.replicas) * slotsPerWorker);
});
