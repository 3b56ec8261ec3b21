package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// docker is the name of Docker's series. They measure calls of its API, not processes.
const docker = "Docker's API, macvlan driver"

// dockerAux is the lan that Docker's container is on when it starts.
const dockerAux = "Docker's container"

// dockers measures how long Docker takes to connect a running container to a macvlan network, and
// lanyard in turn. The daemon is started by the bench: without a bridge and a packet filter, and
// with all its state on the bench's tmpfs. testenv/deps.sh unpacks Debian's package into bin/docker
// and installs nothing: an installed daemon would start, and change the machine's network.
func dockers(w *world, o options, r *results) error {
	unpacked := filepath.Join(w.packages, "docker")
	if _, err := os.Stat(filepath.Join(unpacked, "usr/sbin/dockerd")); err != nil {
		r.Missing = append(r.Missing, fmt.Sprintf("Docker's macvlan driver: %v (make deps-bench unpacks it)", err))
		return nil
	}
	runs := 40
	if o.quick {
		runs = 10
	}
	d, err := w.startDocker(unpacked)
	if err != nil {
		why := strings.ReplaceAll(err.Error(), "\n", " ")
		r.Missing = append(r.Missing, "Docker's macvlan driver: the daemon does not start here: "+why)
		return nil
	}
	defer d.stop()
	if err := w.plugIn(docker, dockerAux); err != nil {
		return err
	}
	if err := d.prepare(w); err != nil {
		return err
	}
	c := w.contenders()[0]
	made, err := w.newContainers(runs)
	defer endAll(made)
	if err != nil {
		return err
	}
	var connect, disconnect, attach []sample
	for _, one := range made {
		for _, call := range []struct {
			verb string
			took *[]sample
		}{{"connect", &connect}, {"disconnect", &disconnect}} {
			began := time.Now()
			if err := d.call("/networks/lan/"+call.verb, map[string]any{"Container": "bench"}); err != nil {
				return err
			}
			*call.took = append(*call.took, sample{wall: time.Since(began)})
		}
		s, err := c.attach(one).run()
		if err != nil {
			return err
		}
		attach = append(attach, s)
	}
	const subject = "with Docker: attach"
	r.add(subject, ours, attach)
	r.add(subject, docker, connect)
	r.add("with Docker: detach", docker, disconnect)
	return w.clear(c, made)
}

// dockerd is a daemon with a client of its API.
type dockerd struct {
	*daemon
	client *http.Client
}

func (w *world) startDocker(unpacked string) (*dockerd, error) {
	dir := filepath.Join(state, "docker")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "sock")
	cmd := exec.Command(filepath.Join(unpacked, "usr/sbin/dockerd"),
		"--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
		"--userland-proxy=false",
		"--storage-driver=vfs", "--data-root="+filepath.Join(dir, "data"), "--exec-root="+filepath.Join(dir, "exec"),
		"--pidfile="+filepath.Join(dir, "pid"), "--host=unix://"+socket)
	cmd.Env = append(os.Environ(), "PATH="+strings.Join([]string{filepath.Join(unpacked, "usr/bin"),
		filepath.Join(unpacked, "usr/sbin"), os.Getenv("PATH")}, ":"))
	d, err := startDaemon(cmd, 30*time.Second, dialed("unix", socket))
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &dockerd{d, &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: time.Minute}}, nil
}

// prepare makes an image, a network on each of Docker's trunks, and a container that runs on the
// second.
func (d *dockerd) prepare(w *world) error {
	rootfs, err := makeRootfs()
	if err != nil {
		return err
	}
	image, err := exec.Command("tar", "-C", rootfs, "-c", ".").Output()
	if err != nil {
		return fmt.Errorf("tar: %w", err)
	}
	err = d.post("/images/create?fromSrc=-&repo=tiny", "application/x-tar", image)
	for name, l := range map[string]lan{"lan": w.lans[docker], "aux": w.lans[dockerAux]} {
		pool := map[string]string{"Subnet": l.subnet.String(), "IPRange": l.at(240, 0) + "/20"}
		err = errors.Join(err, d.call("/networks/create", map[string]any{
			"Name": name, "Driver": "macvlan", "Options": map[string]string{"parent": l.trunk},
			"IPAM": map[string]any{"Config": []map[string]string{pool}},
		}))
	}
	return errors.Join(err,
		d.call("/containers/create?name=bench", map[string]any{
			"Image": "tiny", "Cmd": []string{"/bin/sleep", "600"}, "HostConfig": map[string]any{"NetworkMode": "aux"},
		}),
		d.call("/containers/bench/start", nil))
}

func (d *dockerd) call(path string, body any) error {
	return d.post(path, "application/json", mustJSON(body))
}

func (d *dockerd) post(path, kind string, body []byte) error {
	answer, err := d.client.Post("http://docker"+path, kind, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("docker %s: %s: %s", path, answer.Status, bytes.TrimSpace(text))
	}
	return err
}

// stop ends the container first, which would otherwise outlive the daemon.
func (d *dockerd) stop() {
	_ = d.call("/containers/bench/kill", nil)
	_ = d.daemon.stop()
}
