package testenv

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An Etcd is a cluster of one member: a real server, in a network namespace of its own. It serves
// at a socket in the file system, which processes in all namespaces reach.
type Etcd struct {
	Endpoint string // URL for clients

	tb      testing.TB
	ns      *Namespace
	dir     string
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

// StartEtcd starts a server and waits until it answers. It ends with the test.
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
	// The path of a socket has at most 107 bytes, and the name of a test may be longer.
	dir, err := os.MkdirTemp("", "etcd")
	must(tb, err)
	tb.Cleanup(func() { os.RemoveAll(dir) })
	e := &Etcd{
		Endpoint: scheme + "://" + filepath.Join(dir, "client:0"),
		tb:       tb, ns: NewNamespace(tb, "etcd"), dir: dir, tls: files,
	}
	e.Start()
	tb.Cleanup(e.Kill)
	return e
}

// Start starts the server again, with its data, after Kill.
func (e *Etcd) Start() {
	e.tb.Helper()
	const peer = "http://127.0.0.1:2380"
	client, socket := "http://127.0.0.1:2379", "unix://client:0"
	var tls []string
	if e.tls != nil {
		client, socket = "https://127.0.0.1:2379", "unixs://client:0"
		tls = []string{"--client-cert-auth", "--trusted-ca-file", e.tls.CA, "--cert-file", e.tls.Cert,
			"--key-file", e.tls.Key}
	}
	cmd := exec.Command("etcd", append([]string{
		"--name", "one", "--data-dir", filepath.Join(e.dir, "data"),
		"--listen-client-urls", client + "," + socket, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "one=" + peer,
		"--initial-cluster-token", filepath.Base(e.dir), // no other cluster has the same id
	}, tls...)...)
	cmd.Dir = e.dir // that of the socket
	if err := os.Remove(filepath.Join(e.dir, "client:0")); err != nil && !os.IsNotExist(err) {
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
	e.wait()
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

// Pause stops the server's process without ending its connections, and Resume continues it.
func (e *Etcd) Pause() { must(e.tb, e.process.Signal(unix.SIGSTOP)) }

// Resume continues a server after Pause.
func (e *Etcd) Resume() { must(e.tb, e.process.Signal(unix.SIGCONT)) }

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
	if e.tls != nil {
		args = append([]string{"--endpoints", "https://127.0.0.1:2379", "--cacert", e.tls.CA, "--cert", e.tls.Cert,
			"--key", e.tls.Key}, args...)
	}
	return e.ns.Exec("etcdctl", args...)
}
