package hooklab

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

// criImage is the image of a Containerd's sandboxes and containers. It has busybox.
const criImage = "localhost/tiny:1"

// Containerd is a containerd in the host's namespace of a lab, with its files in a directory of the
// test. It runs only in a virtual machine with a Debian suite that has containerd.
type Containerd struct {
	lab *Lab
	Dir string
}

// StartContainerd starts a containerd and waits until it answers. The end of the test stops it.
// config is added to its configuration, which has version 2: containerd 1.7 and 2.1 both read it.
func (w *Lab) StartContainerd(config string) *Containerd {
	w.TB.Helper()
	dir, err := os.MkdirTemp("", "containerd") // the path of a socket is short
	must(w.TB, err)
	w.TB.Cleanup(func() { testenv.RemoveAll(w.TB, dir) })
	c := &Containerd{w, dir}
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\n[grpc]\naddress = %q\n"+
		"[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = %q\n%s",
		dir+"/root", dir+"/state", c.socket(), criImage, config)
	must(w.TB, os.WriteFile(dir+"/config.toml", []byte(text), 0o600))
	log, err := os.Create(dir + "/log")
	must(w.TB, err)
	defer log.Close()
	daemon := exec.Command("containerd", "--config", dir+"/config.toml")
	daemon.Stdout, daemon.Stderr = log, log
	must(w.TB, w.Host.Start(daemon))
	w.TB.Cleanup(func() {
		if w.TB.Failed() {
			w.TB.Logf("containerd says: %s", c.complaints())
		}
		_ = daemon.Process.Signal(unix.SIGTERM)
		timer := time.AfterFunc(time.Minute, func() { _ = daemon.Process.Kill() })
		defer timer.Stop()
		_ = daemon.Wait()
	})
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, err = c.Ctr("version"); err == nil {
			return c
		}
		if time.Now().After(end) {
			w.TB.Fatalf("containerd does not answer: %v", err)
		}
	}
}

// complaints returns the warnings and errors of containerd's log.
func (c *Containerd) complaints() string {
	text, _ := os.ReadFile(c.Dir + "/log")
	var lines strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "level=info") {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

func (c *Containerd) socket() string { return c.Dir + "/sock" }

// Ctr runs ctr, the client of containerd's own API.
func (c *Containerd) Ctr(args ...string) (string, error) {
	return c.lab.Host.Exec("ctr", append([]string{"--address", c.socket()}, args...)...)
}

// Rootfs makes a root file system with busybox.
func (c *Containerd) Rootfs() string {
	c.lab.TB.Helper()
	dir := c.Dir + "/rootfs"
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "run"} {
		must(c.lab.TB, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	box, err := os.ReadFile("/bin/busybox")
	must(c.lab.TB, err)
	must(c.lab.TB, os.WriteFile(dir+"/bin/busybox", box, 0o755))
	for _, tool := range []string{"sh", "ip", "ping", "sleep"} {
		must(c.lab.TB, os.Symlink("busybox", filepath.Join(dir, "bin", tool)))
	}
	return dir
}

// ImportImage imports the image of sandboxes and containers, in the format of "docker save".
func (c *Containerd) ImportImage() {
	c.lab.TB.Helper()
	dir := filepath.Join(c.Dir, "image")
	must(c.lab.TB, os.Mkdir(dir, 0o755))
	tar := func(args ...string) {
		if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
			c.lab.TB.Fatalf("tar: %v: %s", err, out)
		}
	}
	tar("-C", c.Rootfs(), "-cf", dir+"/layer.tar", ".")
	layer, err := os.ReadFile(dir + "/layer.tar")
	must(c.lab.TB, err)
	for name, content := range map[string]any{
		"config.json": map[string]any{
			"architecture": runtime.GOARCH, "os": "linux",
			"config": map[string]any{"Env": []string{"PATH=/bin"}, "Entrypoint": []string{"sleep", "3600"}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
		},
		"manifest.json": []map[string]any{
			{"Config": "config.json", "RepoTags": []string{criImage}, "Layers": []string{"layer.tar"}},
		},
	} {
		text, err := json.Marshal(content)
		must(c.lab.TB, err)
		must(c.lab.TB, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	}
	tar("-C", dir, "-cf", c.Dir+"/image.tar", "manifest.json", "config.json", "layer.tar")
	if out, err := c.Ctr("--namespace", "k8s.io", "images", "import", c.Dir+"/image.tar"); err != nil {
		c.lab.TB.Fatalf("import the image: %v: %s", err, out)
	}
}

// Crictl runs crictl, which speaks the kubelet's API, and returns its stdout without spaces around.
// "make bin/crictl" builds it.
func (c *Containerd) Crictl(args ...string) (string, error) {
	program, err := filepath.Abs("../../bin/crictl")
	if err != nil {
		return "", err
	}
	socket := "unix://" + c.socket()
	cmd := exec.Command(program, append([]string{"--runtime-endpoint", socket, "--image-endpoint", socket,
		"--timeout", "60s"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err = c.lab.Host.Run(cmd); err != nil {
		said := strings.ReplaceAll(stderr.String(), `\"`, `"`) // it logs errors in quotes
		err = fmt.Errorf("crictl %q: %w: %s", args, err, strings.TrimSpace(said))
	}
	return strings.TrimSpace(stdout.String()), err
}

func (c *Containerd) mustCrictl(args ...string) string {
	c.lab.TB.Helper()
	out, err := c.Crictl(args...)
	must(c.lab.TB, err)
	return out
}

// Pod is a pod as the kubelet configures it.
type Pod struct {
	Namespace, Name string
	Handler         string // of the RuntimeClass; "" is the default one
	HostNetwork     bool
	Annotations     map[string]string
}

// CRIPod is a pod that runs.
type CRIPod struct {
	c      *Containerd
	ID     string // of the sandbox
	config string // file
	made   int    // containers
}

// RunPod starts a pod's sandbox. The end of the test removes the pod.
func (c *Containerd) RunPod(p Pod) (*CRIPod, error) {
	c.lab.TB.Helper()
	linux := map[string]any{}
	if p.HostNetwork {
		const node = 2 // NamespaceMode of the API
		linux["security_context"] = map[string]any{"namespace_options": map[string]any{"network": node}}
	}
	config := c.write(map[string]any{
		"metadata":    map[string]any{"name": p.Name, "namespace": p.Namespace, "uid": "uid-" + p.Namespace + p.Name},
		"annotations": p.Annotations, "log_directory": c.Dir, "linux": linux,
	})
	args := []string{"runp"}
	if p.Handler != "" {
		args = append(args, "--runtime", p.Handler)
	}
	id, err := c.Crictl(append(args, config)...)
	if err != nil {
		return nil, err
	}
	c.lab.TB.Cleanup(func() { _, _ = c.Crictl("rmp", "--force", id) }) // the test may have removed it
	return &CRIPod{c: c, ID: id, config: config}, nil
}

// write writes a configuration for crictl, and returns the file's path.
func (c *Containerd) write(config map[string]any) string {
	c.lab.TB.Helper()
	f, err := os.CreateTemp(c.Dir, "*.json")
	must(c.lab.TB, err)
	must(c.lab.TB, errors.Join(json.NewEncoder(f).Encode(config), f.Close()))
	return f.Name()
}

// Start creates and starts a container of the pod, and returns its id, also if the start fails.
func (p *CRIPod) Start(name string, command ...string) (id string, err error) {
	p.c.lab.TB.Helper()
	p.made++
	config := p.c.write(map[string]any{
		"metadata": map[string]any{"name": name, "attempt": p.made}, "image": map[string]any{"image": criImage},
		"command": command, "log_path": fmt.Sprintf("%s-%d.log", name, p.made),
		"linux": map[string]any{"security_context": map[string]any{
			"capabilities": map[string]any{"add_capabilities": []string{"NET_RAW"}},
		}},
	})
	if id, err = p.c.Crictl("create", p.ID, config, p.config); err != nil {
		return "", err
	}
	_, err = p.c.Crictl("start", id)
	return id, err
}

// MustStart is Start for a container that must start.
func (p *CRIPod) MustStart(name string, command ...string) (id string) {
	p.c.lab.TB.Helper()
	id, err := p.Start(name, command...)
	must(p.c.lab.TB, err)
	return id
}

// Remove stops the pod and its containers, and removes them, as the kubelet does with a deleted pod.
func (p *CRIPod) Remove() {
	p.c.lab.TB.Helper()
	p.c.mustCrictl("rmp", "--force", p.ID)
}

// Exec runs a program in a container.
func (c *Containerd) Exec(id string, command ...string) string {
	c.lab.TB.Helper()
	return c.mustCrictl(append([]string{"exec", "--sync", id}, command...)...)
}

// AwaitExit waits until a container has exited.
func (c *Containerd) AwaitExit(id string) {
	c.lab.TB.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if c.mustCrictl("ps", "--all", "--quiet", "--state", "Exited", "--id", id) != "" {
			return
		}
		if time.Now().After(end) {
			c.lab.TB.Fatalf("container %s does not exit", id)
		}
	}
}
