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

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// TestRootElsewhereIsLimited checks that a rootful container with the socket in it has a budget, and
// that root of this host has no limit.
func TestRootElsewhereIsLimited(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "sock")
	l, err := net.ListenUnix(socketType, &net.UnixAddr{Name: socket, Net: socketType})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	s := &Server{
		AllowList: network.NewAllowList(dir), Networks: dir, RootFailures: Kept(dir), Log: slog.New(slog.DiscardHandler),
	}
	go func() { served <- s.Serve(ctx, l) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	const requests = 2 * budgetBurst
	if n := mustCount(t, socket, requests, 0); n != 0 {
		t.Errorf("%d requests of root of this host are rejected", n)
	}
	if n := mustCount(t, socket, requests, unix.CLONE_NEWNET); n == 0 || n > requests-budgetBurst {
		t.Errorf("%d of %d requests of a container are rejected, want at most %d", n, requests, requests-budgetBurst)
	}
}

// mustCount sends requests, from new namespaces if flags name any, and returns how many are rejected
// because of the rate.
func mustCount(t *testing.T, socket string, requests, flags int) (rejected int) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		if flags != 0 {
			runtime.LockOSThread() // never unlocked: the thread ends in the new namespace
			if err := unix.Unshare(flags); err != nil {
				done <- err
				return
			}
		}
		for range requests {
			reply, err := ask(socket)
			if err != nil {
				done <- err
				return
			}
			if strings.Contains(reply, "too many requests") {
				rejected++
			}
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return rejected
}

// ask sends a request that the service refuses after it has read it, and returns the reply.
func ask(socket string) (string, error) {
	c, err := net.DialUnix(socketType, nil, &net.UnixAddr{Name: socket, Net: socketType})
	if err != nil {
		return "", err
	}
	defer c.Close()
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
