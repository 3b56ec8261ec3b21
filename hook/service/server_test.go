package service

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// TestRootElsewhereIsLimited checks that a rootful container with the socket in it has a budget, and
// that root of this host has no limit.
func TestRootElsewhereIsLimited(t *testing.T) {
	socket := mustServe(t)
	const requests = 2 * budgetBurst
	if n := mustCount(t, socket, requests, 0); n != 0 {
		t.Errorf("%d requests of root of this host are rejected", n)
	}
	if n := mustCount(t, socket, requests, unix.CLONE_NEWNET); n == 0 || n > requests-budgetBurst {
		t.Errorf("%d of %d requests of a container are rejected, want at most %d", n, requests, requests-budgetBurst)
	}
}

// TestRootElsewhereDoesNotWait checks that a hook in a rootful container goes on without the service while
// other such containers use up their connections.
func TestRootElsewhereDoesNotWait(t *testing.T) {
	socket := mustServe(t)
	must(t, inNew(unix.CLONE_NEWNET, func() error {
		for range maxRunning + maxQueued {
			c, err := Client{Socket: socket}.dial(t.Context())
			if err != nil {
				return err
			}
			defer c.Close()
		}
		<-time.After(time.Second / 5) // some budget is left again
		if reply, err := ask(socket); err != nil || reply != errBusy.Error() {
			return fmt.Errorf("the reply is %q (%w)", reply, err)
		}
		return nil
	}))
}

// mustServe starts a service and returns its socket.
func mustServe(t *testing.T) (socket string) {
	t.Helper()
	dir := t.TempDir()
	socket = filepath.Join(dir, "sock")
	l, err := net.ListenUnix(socketType, &net.UnixAddr{Name: socket, Net: socketType})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	s := &Server{
		AllowList: network.NewAllowList(dir), Networks: dir, RootFailures: Kept(dir), Log: slog.New(slog.DiscardHandler),
	}
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// mustCount sends requests, from new namespaces if flags name any, and returns how many are rejected
// because of the rate.
func mustCount(t *testing.T, socket string, requests, flags int) (rejected int) {
	t.Helper()
	must(t, inNew(flags, func() error {
		for range requests {
			reply, err := ask(socket)
			if err != nil {
				return err
			}
			if strings.Contains(reply, "too many requests") {
				rejected++
			}
		}
		return nil
	}))
	return rejected
}

// inNew runs f in new namespaces.
func inNew(flags int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		if flags != 0 {
			runtime.LockOSThread() // never unlocked: the thread ends in the new namespace
		}
		err := unix.Unshare(flags)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// ask sends a request that the service refuses after it has read it, and returns the reply.
func ask(socket string) (string, error) {
	conn, err := Client{Socket: socket}.dial(context.Background())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	c := conn.(*net.UnixConn)
	_ = sendBytes(c, []byte("junk")) // the service may have replied and closed before
	b, err := receiveReply(c)
	if err != nil {
		b, err = receiveReply(c) // see Client.exchange
	}
	if err != nil {
		return "", err
	}
	if b[0] != wire.NotMine {
		return "", fmt.Errorf("the reply is %q", b)
	}
	return string(b[1:]), nil
}
