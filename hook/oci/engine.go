package oci

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

// Annotations that show which engine wrote a state.
const (
	keyManager = "io.container.manager"

	// CRI-O writes some thirty keys with this prefix.
	crioPrefix  = "io.kubernetes.cri-o."
	crioSandbox = crioPrefix + "SandboxID"
	crioType    = crioPrefix + "ContainerType"

	// The kubelet's labels. CRI-O copies them into the state, containerd does not.
	labelPrefix    = "io.kubernetes.pod."
	labelNamespace = labelPrefix + "namespace"
	labelName      = labelPrefix + "name"

	// containerd's keys. The prefix is not enough: CRI-O also writes keys with it.
	criType      = "io.kubernetes.cri.container-type"
	criContainer = "io.kubernetes.cri.container-name"
	criSandbox   = "io.kubernetes.cri.sandbox-id"
	criNamespace = "io.kubernetes.cri.sandbox-namespace"
	criName      = "io.kubernetes.cri.sandbox-name"
	criUID       = "io.kubernetes.cri.sandbox-uid"
)

// origin is what a state's annotations say about the container's engine.
type origin struct {
	name string   // the container's name in its engine; "" if the state has none
	pod  hook.Pod // zero outside Kubernetes
}

// originOf decides which engine wrote a state: containerd or CRI-O for a pod of
// Kubernetes, or another engine (podman, Docker, runc by hand). It is the only
// function that reads the engines' keys.
//
// The attacker is the author of a pod. The author wants the container to be treated as
// one that root started by hand, or as a pod of another Kubernetes namespace. An author
// can add annotations, but cannot remove those that the engine writes:
//
//   - containerd copies the pod's annotations that match the handler's
//     pod_annotations, and writes its own keys after them (DefaultCRIAnnotations,
//     internal/cri/server/container_create.go; the same order since 1.5).
//   - CRI-O copies all of the pod's annotations, then writes its own keys, then the
//     annotations and labels of the container, which come from the kubelet
//     (SpecAddAnnotations, internal/factory/container/container.go).
//
// So the presence of an engine's key decides, not its value: an author who sets the
// sandbox's id to "" does not leave the pod. Keys of two engines in one state are an
// error, because one of them was written by the author.
func originOf(a map[string]string) (origin, error) {
	switch {
	case hasAny(a, criSandbox, criNamespace, criName, criUID, criContainer):
		return containerdOrigin(a)
	case isPodman(a):
		return origin{}, nil
	case hasPrefix(a, crioPrefix):
		return crioOrigin(a)
	case hasAny(a, criType):
		return containerdOrigin(a)
	case hasPrefix(a, labelPrefix):
		return origin{}, fmt.Errorf("annotation %q: it names a Kubernetes pod, but no engine's sandbox is in the state: "+
			"remove the annotation", keyWith(a, labelPrefix))
	}
	return origin{name: a["io.kubernetes.container.name"]}, nil
}

// podmanKeys are the keys of CRI-O that podman writes too: SandboxID in podman pods; up to 4.3
// also ContainerType in podman pods, and Created and TTY in all containers
// (pkg/specgen/generate/container.go, pkg/specgenutil/specgen.go,
// libpod/container_internal_common.go). "podman kube generate" appends "/" and the container's
// name to them, and "kube play" does not remove that.
var podmanKeys = []string{crioSandbox, crioType, crioPrefix + "Created", crioPrefix + "TTY"}

// isPodman reports whether podman wrote the state, for a single container or for one in
// a podman pod, which is not a pod of Kubernetes.
//
// The manager alone proves nothing: podman writes it only where it is unset, and an
// author can add it to a pod. CRI-O overwrites the pod's value with "cri-o", and
// writes many keys that podman does not have. One of those, or one of the kubelet's
// labels, means that the state is not podman's.
func isPodman(a map[string]string) bool {
	if a[keyManager] != "libpod" {
		return false
	}
	for k := range a {
		base, _, _ := strings.Cut(k, "/")
		if strings.HasPrefix(k, "io.kubernetes.") && !slices.Contains(podmanKeys, base) {
			return false
		}
	}
	return true
}

// crioOrigin reads CRI-O's keys. The namespace is a label from the kubelet. CRI-O writes
// it over an annotation of the same name, so that an author cannot choose it.
func crioOrigin(a map[string]string) (origin, error) {
	// An author may add the manager "libpod" to look like podman. CRI-O overwrites it, so a
	// state with another manager was changed after CRI-O wrote it.
	if m, set := a[keyManager]; set && m != "cri-o" {
		return origin{}, contradiction(keyManager+"="+m, keyWith(a, crioPrefix))
	}
	o := origin{
		name: a["io.kubernetes.container.name"],
		pod:  hook.Pod{Sandbox: a[crioSandbox], Namespace: a[labelNamespace], Name: a[labelName]},
	}
	if o.name == "" {
		o.name = a[crioPrefix+"ContainerName"]
	}
	return o, checkPod(o.pod, keyWith(a, crioPrefix))
}

// containerdOrigin reads containerd's keys. If pod_annotations is "*", an author can add the
// keys of other engines: those of CRI-O or podman to look like their containers, and the
// kubelet's label to look like a pod of another namespace.
func containerdOrigin(a map[string]string) (origin, error) {
	own := keyWith(a, "io.kubernetes.cri.")
	if hasPrefix(a, crioPrefix) {
		return origin{}, contradiction(keyWith(a, crioPrefix), own)
	}
	if m, set := a[keyManager]; set {
		return origin{}, contradiction(keyManager+"="+m, own)
	}
	for _, both := range [][2]string{{labelNamespace, criNamespace}, {labelName, criName}} {
		label, key := both[0], both[1]
		if v, set := a[label]; set && v != a[key] {
			return origin{}, contradiction(label+"="+v, key+"="+a[key])
		}
	}
	p := hook.Pod{Sandbox: a[criSandbox], Namespace: a[criNamespace], Name: a[criName]}
	return origin{a[criContainer], p}, checkPod(p, own)
}

// checkPod returns an error if the namespace or the sandbox of a pod is missing: they decide
// which networks it may use, and which attachments are the pod's. The names become keys of the
// database. key is the annotation that shows that the container belongs to a pod.
func checkPod(p hook.Pod, key string) error {
	switch {
	case p.Namespace == "":
		return fmt.Errorf("annotation %q: it marks a pod's container, and no annotation names the Kubernetes namespace: "+
			"pods that are in no Kubernetes namespace may not attach", key)
	case p.Sandbox == "":
		return fmt.Errorf("annotation %q: it marks a pod's container, and no annotation names the sandbox: "+
			"update the container engine", key)
	}
	for _, word := range []string{p.Namespace, p.Name, p.Sandbox} {
		if len(word) > hook.MaxID || !hook.Printable(word) {
			return fmt.Errorf("annotation %q: it marks a container of pod %s: use up to %d printable characters",
				key, network.Clip(word), hook.MaxID)
		}
	}
	return nil
}

// contradiction returns the error for a state with the marks of two engines.
func contradiction(one, other string) error {
	return fmt.Errorf("annotations %s and %s contradict each other: no engine writes both: "+
		"remove the one that the pod adds", network.Clip(one), network.Clip(other))
}

// hasAny reports whether any of the keys is set, also to "".
func hasAny(a map[string]string, keys ...string) bool {
	for _, k := range keys {
		if _, set := a[k]; set {
			return true
		}
	}
	return false
}

// hasPrefix reports whether any key has the prefix.
func hasPrefix(a map[string]string, prefix string) bool { return keyWith(a, prefix) != "" }

// keyWith returns the first key in order that has the prefix, "" if none has.
func keyWith(a map[string]string, prefix string) (first string) {
	for k := range a {
		if strings.HasPrefix(k, prefix) && (first == "" || k < first) {
			first = k
		}
	}
	return first
}
