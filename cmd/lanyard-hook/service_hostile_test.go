package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/service/wire"
	"github.com/lanyard-net/lanyard/testenv"
)

// mustDialBy connects to the service as a user; the connection ends with the test. It
// retries while the service's backlog is full, as the service's client does.
func (b *brokered) mustDialBy(uid int) (c *net.UnixConn) {
	b.tb.Helper()
	testenv.Eventually(b.tb, "space in the service's backlog", func() error {
		return asUID(uid, func() (err error) {
			c, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: b.socket(), Net: "unixpacket"})
			return err
		})
	})
	b.tb.Cleanup(func() { c.Close() })
	return c
}

// ask sends bytes and gives the error that comes back, "" if the service hung up.
func (b *brokered) ask(uid int, message []byte, oob []byte) string {
	b.tb.Helper()
	c := b.mustDialBy(uid)
	must(b.tb, c.SetDeadline(time.Now().Add(20*time.Second)))
	if _, _, err := c.WriteMsgUnix(message, oob, nil); err != nil {
		return err.Error()
	}
	reply, err := readReply(c)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return ""
	}
	must(b.tb, err)
	text := errorIn(b.tb, reply)
	if text == "" {
		b.tb.Errorf("%.100q was answered with %s", message, reply)
	}
	return text
}

// readReply returns the packet that comes after any signs of life. Like the client, it reads again
// after the end: the reply may have come with it.
func readReply(c io.Reader) ([]byte, error) {
	buf := make([]byte, wire.MaxMessage)
	for ended := false; ; {
		n, err := c.Read(buf)
		switch {
		case errors.Is(err, io.EOF) && !ended:
			ended = true
		case err != nil || buf[0] != wire.StillBusy:
			return buf[:n], err
		}
	}
}

// errorIn returns the error of a reply, "" if it reports success.
func errorIn(tb testing.TB, packet []byte) string {
	tb.Helper()
	switch packet[0] {
	case wire.Failed, wire.Later, wire.NotMine:
		return string(packet[1:])
	case wire.Done:
		return ""
	}
	var r struct{ Error string }
	must(tb, json.Unmarshal(packet, &r))
	return r.Error
}

// works checks that the service serves an honest user, during or after an attack.
func (b *brokered) works(id string) {
	b.tb.Helper()
	c := testenv.NewRootless(b.tb, bob)
	b.mustAttachBy(bob, id, c.Pid, "network=web")
	must(b.tb, c.Kill())
	b.mustDetachBy(bob, id)
	c.End(b.tb)
}

// TestServiceMessages checks that malformed messages are refused in one line, and that the
// service goes on.
func TestServiceMessages(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	pid := testenv.NewRootless(t, alice).Pid
	attach := func(edit string) []byte {
		return fmt.Appendf(nil, `{"version":2,"verb":"attach","container":"c1","pid":%d,"wants":[{"network":"web"}]%s}`, pid,
			edit)
	}
	wants := func(w string) []byte {
		return fmt.Appendf(nil, `{"version":2,"verb":"attach","container":"c1","pid":%d,"wants":[%s]}`, pid, w)
	}
	for _, x := range []struct {
		what    string
		message []byte
		want    string
	}{
		{"nothing", []byte(""), ""},
		{"no JSON", []byte("\x00\xff\xfe"), "not a request in JSON"},
		{"another kind of JSON", []byte(`[1,2,3]`), "not a request in JSON"},
		{"cut short", attach("")[:40], "not a request in JSON"},
		{"two in one", append(attach(""), attach("")...), "something follows"},
		{"a field from the future", attach(`,"namespace":"/proc/1/ns/net"`), "unknown field"},
		{"another version", []byte(`{"version":3,"verb":"attach"}`), "version 3"},
		{"another verb", []byte(`{"version":2,"verb":"exec"}`), "verb"},
		{"too long", append(attach(""), make([]byte, 70<<10)...), "over 65536 bytes"},
		{"nested without end", []byte(strings.Repeat("[", 30000)), "not a request in JSON"},
		{"no container", []byte(`{"version":2,"verb":"attach","pid":1,"wants":[{"network":"web"}]}`), "container id"},
		{"NUL in the container", []byte(`{"version":2,"verb":"detach","container":"a\u0000b"}`), "container id"},
		{"lines in the container", []byte(`{"version":2,"verb":"detach","container":"a\nlevel=INFO msg=attached"}`),
			"container id"},
		{"a long container", fmt.Appendf(nil, `{"version":2,"verb":"detach","container":%q}`, strings.Repeat("x", 257)),
			"container id"},
		{"no pid", []byte(`{"version":2,"verb":"attach","container":"c1","wants":[{"network":"web"}]}`), "process id"},
		{"a negative pid", []byte(`{"version":2,"verb":"attach","container":"c1","pid":-1,"wants":[{"network":"web"}]}`),
			"process id"},
		{"no networks", fmt.Appendf(nil, `{"version":2,"verb":"attach","container":"c1","pid":%d}`, pid), "0 networks"},
		{"nine networks", wants(strings.Repeat(`{"network":"web"},`, 8) + `{"network":"web"}`), "9 networks"},
		{"a path for a network", wants(`{"network":"../../etc/shadow"}`), "network name"},
		{"a path for an interface", wants(`{"network":"web","interface":"../../x"}`), "link's name"},
		{"a numbered interface", wants(`{"network":"web","interface":"eth%d"}`), "link's name"},
		{"lo", wants(`{"network":"web","interface":"lo"}`), "loopback link"},
		{"two addresses of a family", wants(`{"network":"web","addresses":["192.168.50.8","192.168.50.9"]}`),
			"second address"},
		{"an address with a zone", wants(`{"network":"web","addresses":["fe80::1%eth0"]}`), "not an address"},
		{"an IPv4-mapped address", wants(`{"network":"web","addresses":["::ffff:192.168.50.9"]}`), "not an address"},
		{"an MTU of 1", wants(`{"network":"web","mtu":1}`), "not an MTU"},
		{"a multicast MAC", wants(`{"network":"web","mac":"01:00:5e:00:00:01"}`), "unicast"},
		{"a stage of its own", []byte(`{"version":2,"verb":"hook","stage":"exec","state":{"id":"c1"}}`), "no stage"},
		{"a state that is none", []byte(`{"version":2,"verb":"hook","stage":"poststop","state":[1]}`), "not an OCI state"},
		{"a plugin's path", []byte(`{"version":2,"verb":"cni","command":"ADD","netns":"/proc/1/ns/net","input":{}}`),
			"only root"},
		{"a plugin's request", []byte(`{"version":2,"verb":"netavark","command":"create","input":null}`), "only root"},
		{"a mode of its own", wants(`{"network":"web","verify":"never"}`), "verify mode"},
	} {
		t.Run(x.what, func(t *testing.T) {
			if got := b.on(t).ask(alice, x.message, nil); !strings.Contains(got, x.want) || x.want == "" && got != "" ||
				strings.Contains(got, "\n") {
				t.Errorf("the service says %q, want %q", got, x.want)
			}
		})
	}
	if recs := b.Records(); len(recs) > 0 {
		t.Errorf("there are records: %+v", recs)
	}
	b.works("after")
}

// mustRaiseFiles raises this process's limit of files to the maximum.
func mustRaiseFiles(tb testing.TB) (limit int) {
	tb.Helper()
	var r unix.Rlimit
	must(tb, unix.Getrlimit(unix.RLIMIT_NOFILE, &r))
	r.Cur = r.Max
	must(tb, unix.Setrlimit(unix.RLIMIT_NOFILE, &r))
	return int(min(r.Cur, 1<<20))
}

// flood opens many connections as a user and sends nothing.
func (b *brokered) flood(uid, times int) {
	b.tb.Helper()
	must(b.tb, asUID(uid, func() error {
		for range times {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			b.tb.Cleanup(func() { unix.Close(fd) })
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: b.socket()}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// TestServiceFlood checks that 10,000 silent connections of one user do not block other
// users.
func TestServiceFlood(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	mustRaiseFiles(t)
	for i := range 10 {
		b.flood(mallory, 1000)
		if i%3 == 0 {
			b.works(fmt.Sprintf("during%d", i))
		}
	}
	b.works("after")
	// The connections of one user are limited; the service says so and closes more of them.
	if !strings.Contains(b.logged(), "too many requests in progress") {
		t.Error("no connection was rejected")
	}
}

// TestServiceFloodByManyUIDs checks silent connections of many uids, which a user with
// subordinate uids can open. The service closes them when there is no room.
func TestServiceFloodByManyUIDs(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	mustRaiseFiles(t)
	for i := range 15 {
		b.flood(100_000+i, 100)
	}
	b.works("after")
}

// TestServiceOutOfDescriptors checks that a service without free descriptors goes on when
// it has some again.
func TestServiceOutOfDescriptors(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	b.works("before")
	pid := b.cmd.Process.Pid
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	var was unix.Rlimit
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was))
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(fds)) + 2, Max: was.Max}, nil))
	var held []*net.UnixConn
	for range 20 {
		held = append(held, b.mustDialBy(alice))
	}
	testenv.Eventually(t, "the service to run out of descriptors", func() error {
		if !strings.Contains(b.logged(), "too many open files") {
			return errors.New("it did not")
		}
		return nil
	})
	for _, c := range held {
		c.Close()
	}
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil))
	b.works("after")
}

// TestServiceSlowCallers checks that slow callers do not delay other users.
func TestServiceSlowCallers(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	for range 132 {
		b.mustDialBy(mallory)
	}
	b.works("during")
	// Callers that do not read their answers do not delay the service.
	for range 100 {
		c := b.mustDialBy(alice)
		_, err := c.Write([]byte(`{"version":2,"verb":"why"}`))
		must(t, err)
	}
	b.works("after")
}
