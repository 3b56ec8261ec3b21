package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An Etcd is a member of a cluster: a real server, in a network namespace of its own.
type Etcd struct {
	Endpoint string // URL for clients

	tb      testing.TB
	ns      *Namespace
	dir     string
	name    string
	client  string // URL in ns
	peer    string // URL for other members
	cluster string // all members, as --initial-cluster
	token   string // of the cluster
	tls     *EtcdTLS
	log     bytes.Buffer // of the current run
	process *os.Process  // nil while it does not run
	ended   chan error
}

// etcdStart limits the time until a server answers.
const etcdStart = 30 * time.Second

// EtcdTLS are the files, in PEM form, of a server that wants a certificate of each client. The
// server and etcdctl use the same certificate.
type EtcdTLS struct{ CA, Cert, Key string }

// StartEtcd starts a cluster of one server and waits until it answers. It serves at a socket in the
// file system, which processes in all namespaces reach. It ends with the test.
func StartEtcd(tb testing.TB) *Etcd {
	tb.Helper()
	return startEtcd(tb, "unix", nil)
}

// StartEtcdTLS is StartEtcd with TLS.
func StartEtcdTLS(tb testing.TB, files EtcdTLS) *Etcd {
	tb.Helper()
	return startEtcd(tb, "unixs", &files)
}

func startEtcd(tb testing.TB, scheme string, files *EtcdTLS) *Etcd {
	tb.Helper()
	e := newEtcd(tb, NewNamespace(tb, "etcd"), "one", "127.0.0.1")
	e.Endpoint, e.tls, e.cluster = scheme+"://"+filepath.Join(e.dir, socket), files, "one="+e.peer
	e.token = filepath.Base(e.dir)
	if files != nil {
		e.client = "https://127.0.0.1:2379"
	}
	e.Start()
	return e
}

// StartEtcdCluster starts a cluster with a member on each station, at the station's address, and
// waits until all answer.
func StartEtcdCluster(tb testing.TB, stations map[string]*Station) (members []*Etcd) {
	tb.Helper()
	var all []string
	for addr, s := range stations {
		e := newEtcd(tb, s.Namespace, strings.ReplaceAll(addr, ".", "-"), addr)
		e.Endpoint = e.client
		members, all = append(members, e), append(all, e.name+"="+e.peer)
	}
	for _, e := range members {
		e.cluster, e.token = strings.Join(all, ","), filepath.Base(members[0].dir)
		e.begin() // a member answers when others do
	}
	for _, e := range members {
		e.wait()
	}
	return members
}

// socket is the name of a member's socket in its directory.
const socket = "client:0"

func newEtcd(tb testing.TB, ns *Namespace, name, addr string) *Etcd {
	tb.Helper()
	// The path of a socket has at most 107 bytes, and the name of a test may be longer. In memory: a
	// server that waits for a busy disk at each write does not answer in time.
	dir, err := os.MkdirTemp("/dev/shm", "etcd")
	must(tb, err)
	tb.Cleanup(func() { os.RemoveAll(dir) })
	e := &Etcd{tb: tb, ns: ns, dir: dir, name: name, client: "http://" + addr + ":2379", peer: "http://" + addr + ":2380"}
	tb.Cleanup(e.Kill)
	return e
}

// Start starts the server, also again with its data after Kill, and waits until it answers.
func (e *Etcd) Start() {
	e.tb.Helper()
	e.begin()
	e.wait()
}

// begin starts the server's process.
func (e *Etcd) begin() {
	e.tb.Helper()
	listen := e.client
	var tls []string
	switch {
	case e.tls != nil:
		listen += ",unixs://" + socket
		tls = []string{"--client-cert-auth", "--trusted-ca-file", e.tls.CA, "--cert-file", e.tls.Cert,
			"--key-file", e.tls.Key}
	case e.Endpoint != e.client:
		listen += ",unix://" + socket
	}
	cmd := exec.Command("etcd", append([]string{
		"--name", e.name, "--data-dir", filepath.Join(e.dir, "data"),
		"--listen-client-urls", listen, "--advertise-client-urls", e.client,
		"--listen-peer-urls", e.peer, "--initial-advertise-peer-urls", e.peer, "--initial-cluster", e.cluster,
		"--initial-cluster-token", e.token, // no other cluster has the same id
	}, tls...)...)
	cmd.Dir = e.dir // that of the socket
	if err := os.Remove(filepath.Join(e.dir, socket)); err != nil && !os.IsNotExist(err) {
		e.tb.Fatal(err) // a killed server leaves it
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	e.log.Reset()
	cmd.Stdout, cmd.Stderr = &e.log, &e.log
	started, ended := make(chan error, 1), make(chan error, 1)
	// The thread that starts the process waits for it, because Pdeathsig is sent when it ends.
	go func() {
		ended <- e.ns.Do(func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
	}()
	if err := <-started; err != nil {
		e.tb.Fatalf("start etcd (package etcd-server): %v", err)
	}
	e.process, e.ended = cmd.Process, ended
}

// wait waits until the server answers.
func (e *Etcd) wait() {
	e.tb.Helper()
	fail := func(format string, args ...any) {
		e.Kill()
		e.tb.Fatalf(format+": %s", append(args, e.log.String())...)
	}
	eventually(fail, etcdStart, "etcd", func() error {
		_, err := e.ctl("endpoint", "health")
		return err
	})
}

// Kill kills the server, as a power failure does. Its data stays.
func (e *Etcd) Kill() {
	e.tb.Helper()
	if e.process == nil {
		return
	}
	if err := e.process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		must(e.tb, err)
	}
	<-e.ended
	e.process = nil
}

// Pause stops the server's process without ending its connections, and Resume continues it. Pause
// waits until all threads have stopped: the signal alone does not.
func (e *Etcd) Pause() {
	e.tb.Helper()
	must(e.tb, e.process.Signal(unix.SIGSTOP))
	Eventually(e.tb, "the stop of etcd", func() error {
		states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", e.process.Pid))
		for _, path := range states {
			// The state follows the name in parentheses (proc_pid_stat(5)).
			if text, _ := os.ReadFile(path); len(text) > 0 && !bytes.Contains(text, []byte(") T ")) {
				return fmt.Errorf("a thread is %s", text)
			}
		}
		return err
	})
}

// Resume continues a server after Pause.
func (e *Etcd) Resume() { must(e.tb, e.process.Signal(unix.SIGCONT)) }

// Backup saves a snapshot of the server's data to a file, and returns its name.
func (e *Etcd) Backup() (file string) {
	e.tb.Helper()
	file = filepath.Join(e.dir, "backup")
	e.Ctl("snapshot", "save", file)
	return file
}

// Restore replaces the server, a cluster of its own, by one with the data of a backup.
func (e *Etcd) Restore(file string) {
	e.tb.Helper()
	e.Kill()
	must(e.tb, os.RemoveAll(filepath.Join(e.dir, "data")))
	program := "etcdutl" // since etcd 3.5
	if _, err := exec.LookPath(program); err != nil {
		program = "etcdctl"
	}
	_, err := e.ns.Exec(program, "snapshot", "restore", file, "--data-dir", filepath.Join(e.dir, "data"), "--name", e.name,
		"--initial-cluster", e.cluster, "--initial-cluster-token", e.token, "--initial-advertise-peer-urls", e.peer)
	must(e.tb, err)
	e.Start()
}

// Replace replaces the server, a cluster of its own, by another cluster with the data of a backup at the
// same endpoint.
func (e *Etcd) Replace(file string) {
	e.tb.Helper()
	e.token += "-other"
	e.Restore(file)
}

// Ctl runs etcdctl and returns its output.
func (e *Etcd) Ctl(args ...string) string {
	e.tb.Helper()
	out, err := e.ctl(args...)
	if err != nil {
		e.tb.Fatal(err)
	}
	return out
}

func (e *Etcd) ctl(args ...string) (string, error) {
	args = append([]string{"--endpoints", e.client}, args...)
	if e.tls != nil {
		args = append([]string{"--cacert", e.tls.CA, "--cert", e.tls.Cert,
			"--key", e.tls.Key}, args...)
	}
	return e.ns.Exec("etcdctl", args...)
}
