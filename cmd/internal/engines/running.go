package engines

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Container is a container that an engine runs now.
type Container struct {
	ID          string
	Name        string // NAMESPACE/POD for a container of a pod
	Pid         int    // 0 if the engine does not report it
	Network     string // podman's --network
	Sandbox     string // the id of the pod's sandbox, in Kubernetes
	Annotations map[string]string
}

// errNotInstalled is returned if an engine's program is not installed.
var errNotInstalled = errors.New("not installed")

// queryTime is the deadline for each query to an engine.
const queryTime = 30 * time.Second

// output runs a program and returns what it wrote to stdout. The error contains the last
// line of stderr.
func output(ctx context.Context, program string, args ...string) ([]byte, error) {
	if _, err := exec.LookPath(program); err != nil {
		return nil, errNotInstalled
	}
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = time.Second // podman leaves a process that keeps stdout open
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return out, fmt.Errorf("\"%s %s\": %w: %s", program, args[0], err, lines[len(lines)-1])
	}
	return out, nil
}

// PodmanRunning returns the running containers of the calling user's podman. The list is
// empty if podman is not installed.
func PodmanRunning(ctx context.Context) ([]Container, error) { return running(ctx, "podman") }

// running returns the running containers of podman or docker, which have the same commands.
func running(ctx context.Context, program string) (all []Container, err error) {
	// A container that ends between the two commands is an error of the second.
	for range 3 {
		if all, err = runningNow(ctx, program); err == nil {
			break
		}
	}
	if errors.Is(err, errNotInstalled) {
		return nil, nil
	}
	return all, err
}

func runningNow(ctx context.Context, program string) ([]Container, error) {
	ids, err := output(ctx, program, "ps", "--quiet", "--no-trunc",
		"--filter", "status=running", "--filter", "status=paused")
	if err != nil || len(bytes.TrimSpace(ids)) == 0 {
		return nil, err
	}
	inspect := append([]string{"inspect", "--type", "container"}, strings.Fields(string(ids))...)
	text, err := output(ctx, program, inspect...)
	if err != nil {
		return nil, err
	}
	var list []inspected
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("output of \"%s inspect\": %w", program, err)
	}
	var all []Container
	for _, c := range list {
		all = append(all, c.container())
	}
	return all, nil
}

// inspected is a container as "podman inspect" and "docker inspect" print it, and as Docker's API
// describes it.
type inspected struct {
	ID         string `json:"Id"`
	Name       string
	State      struct{ Pid int }
	Config     struct{ Annotations map[string]string } // podman
	HostConfig struct {
		NetworkMode string
		Annotations map[string]string // Docker
	}
}

func (c inspected) container() Container {
	if c.HostConfig.Annotations != nil && c.Config.Annotations == nil {
		c.Config.Annotations = c.HostConfig.Annotations
	}
	return Container{
		ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Pid: c.State.Pid, Network: c.HostConfig.NetworkMode,
		Annotations: c.Config.Annotations,
	}
}

// nameTime limits the time for the lookup of a name. An engine that hangs must not prevent a diagnosis.
const nameTime = 10 * time.Second

// ContainerID returns the id of the container with a name, or with a part of an id, in podman, or else in
// Docker, if that runs: those of the calling user. It returns "" if neither knows the container, and an
// error if one did not answer within nameTime.
func ContainerID(ctx context.Context, name string) (string, error) {
	programs := []string{"podman"}
	if HostDocker.running() || os.Getenv("DOCKER_HOST") != "" {
		programs = append(programs, "docker")
	}
	for _, program := range programs {
		soon, cancel := context.WithTimeout(ctx, nameTime)
		// "--": the name may begin with a dash.
		out, err := output(soon, program, "container", "inspect", "--format", "{{.Id}}", "--", name)
		late := soon.Err()
		cancel()
		if id := strings.TrimSpace(string(out)); err == nil && id != "" {
			return id, nil
		}
		if late != nil && ctx.Err() == nil { // the caller is not interrupted
			return "", fmt.Errorf("%s did not answer within %s", program, nameTime)
		}
	}
	return "", nil
}

// criSockets are the sockets of the engines that crictl can ask.
var criSockets = map[string]string{"CRI-O": "/run/crio/crio.sock", "containerd": "/run/containerd/containerd.sock"}

// CRIRunning returns the running containers of Kubernetes pods, with the annotations of
// their pods, by engine. The result is empty if crictl or the engines are not installed.
func CRIRunning(ctx context.Context) (map[string][]Container, error) {
	all := map[string][]Container{}
	var errs []error
	for engine, socket := range criSockets {
		if _, err := os.Stat(socket); err != nil {
			continue
		}
		found, err := criRunning(ctx, "unix://"+socket)
		if errors.Is(err, errNotInstalled) {
			return nil, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", engine, err))
			continue
		}
		all[engine] = found
	}
	return all, errors.Join(errs...)
}

func criRunning(ctx context.Context, endpoint string) ([]Container, error) {
	pods, err := output(ctx, "crictl", "--runtime-endpoint", endpoint, "pods", "--output", "json")
	if err != nil {
		return nil, err
	}
	containers, err := output(ctx, "crictl", "--runtime-endpoint", endpoint, "ps", "--output", "json")
	if err != nil {
		return nil, err
	}
	return decodeCRI(pods, containers)
}

// decodeCRI joins the output of "crictl pods" and "crictl ps". A hook sees the annotations
// of both.
func decodeCRI(pods, containers []byte) ([]Container, error) {
	type item struct {
		ID       string `json:"id"`
		Sandbox  string `json:"podSandboxId"`
		Metadata struct{ Name, Namespace string }
		// Annotations are those of the pod's author, under CRI-O also CRI-O's.
		Annotations map[string]string `json:"annotations"`
	}
	var p struct{ Items []item }
	if err := json.Unmarshal(pods, &p); err != nil {
		return nil, fmt.Errorf("output of \"crictl pods\": %w", err)
	}
	var c struct{ Containers []item }
	if err := json.Unmarshal(containers, &c); err != nil {
		return nil, fmt.Errorf("output of \"crictl ps\": %w", err)
	}
	sandboxes := map[string]item{}
	for _, s := range p.Items {
		sandboxes[s.ID] = s
	}
	var all []Container
	for _, one := range c.Containers {
		s := sandboxes[one.Sandbox]
		found := Container{ID: one.ID, Sandbox: one.Sandbox, Annotations: map[string]string{}}
		found.Name = s.Metadata.Namespace + "/" + s.Metadata.Name
		for _, from := range []map[string]string{s.Annotations, one.Annotations} {
			for k, v := range from {
				found.Annotations[k] = v
			}
		}
		all = append(all, found)
	}
	return all, nil
}
