package hooklab

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// EngineState returns a state with an engine's annotations, and with Lanyard's.
func EngineState(tb testing.TB, id string, pid int, engine map[string]string, annotations ...string) []byte {
	tb.Helper()
	var s specs.State
	must(tb, json.Unmarshal(State(id, pid, annotations...), &s))
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	maps.Copy(s.Annotations, engine)
	b, err := json.Marshal(s)
	must(tb, err)
	return b
}

// ContainerdPod returns the annotations that containerd writes for a container of a pod.
func ContainerdPod(namespace, pod, container string) map[string]string {
	return map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": container,
		"io.kubernetes.cri.sandbox-id": "sandbox-" + pod, "io.kubernetes.cri.sandbox-uid": "uid-" + pod,
		"io.kubernetes.cri.sandbox-namespace": namespace, "io.kubernetes.cri.sandbox-name": pod,
		"io.kubernetes.cri.image-name": "registry/" + container,
	}
}

// CRIOPod returns the annotations that CRI-O writes for a container of a pod.
func CRIOPod(namespace, pod, container string) map[string]string {
	return map[string]string{
		"io.container.manager":              "cri-o",
		"io.kubernetes.cri-o.ContainerType": "container",
		"io.kubernetes.cri-o.SandboxID":     "sandbox-" + pod,
		"io.kubernetes.cri-o.ContainerID":   pod + container,
		"io.kubernetes.cri-o.SandboxName":   "k8s_" + pod + "_" + namespace,
		"io.kubernetes.pod.namespace":       namespace,
		"io.kubernetes.pod.name":            pod,
		"io.kubernetes.container.name":      container,
	}
}
