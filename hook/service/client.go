package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// Client attaches through the service that listens at Socket.
type Client struct{ Socket string }

var _ hook.Attacher = Client{}

// Attach implements [hook.Attacher]. It fills in only the fields of an attachment
// that are visible from inside the container.
func (c Client) Attach(ctx context.Context, r hook.Request) ([]hook.Attachment, error) {
	got, err := c.call(ctx, requestOf(r))
	if err != nil {
		return nil, err
	}
	all := make([]hook.Attachment, len(got.Attachments))
	for i, g := range got.Attachments {
		all[i] = g.attachment()
	}
	return all, nil
}

// Detach implements [hook.Attacher].
func (c Client) Detach(ctx context.Context, containerID string) error {
	_, err := c.call(ctx, request{Version: wire.Version, Verb: verbDetach, Container: containerID})
	return err
}

// Why returns the last failures that the service recorded for the calling user,
// oldest first.
func (c Client) Why(ctx context.Context) ([]Failure, error) {
	got, err := c.call(ctx, request{Version: wire.Version, Verb: verbWhy})
	if err != nil {
		return nil, err
	}
	return got.Failures, nil
}

// Tell records a failure for the calling user, which Why returns later: one that
// happened before the hook called the service.
func (c Client) Tell(ctx context.Context, containerID, text string) error {
	_, err := c.call(ctx, request{Version: wire.Version, Verb: verbTell, Container: sanitize(containerID),
		Error: sanitize(text)})
	return err
}

// A request that the service rejects as too early (the user has too many requests in
// progress, or has spent its budget) is sent again, every retryWait, at most maxTries
// times. That is 30 seconds, longer than the time limit of a hook.
const (
	maxTries  = 300
	retryWait = 100 * time.Millisecond
)

func (c Client) call(ctx context.Context, m request) (*reply, error) {
	for tries := 1; ; tries++ {
		b, err := c.exchange(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("service: %w", err)
		}
		switch b[0] {
		case wire.Later:
		case wire.NotMine:
			return nil, errors.New(string(b[1:]))
		default:
			return decodeReply(b)
		}
		early := errors.New(string(b[1:]))
		if tries == maxTries {
			return nil, early
		}
		select {
		case <-ctx.Done():
			return nil, early
		case <-time.After(retryWait):
		}
	}
}

func decodeReply(b []byte) (*reply, error) {
	var got reply
	if err := json.Unmarshal(b, &got); err != nil {
		return nil, fmt.Errorf("service: its reply is not valid JSON: %w", err)
	}
	if got.Error != "" {
		return nil, errors.New(got.Error)
	}
	return &got, nil
}

func (c Client) exchange(ctx context.Context, m request) ([]byte, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.explainDial(err)
	}
	defer conn.Close()
	// Closing the connection ends reads and writes when the caller's ctx ends.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	u := conn.(*net.UnixConn)
	// A service that rejects the connection replies and closes before it reads.
	serr := send(u, m)
	b, err := receiveReply(u)
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) {
		// The kernel reports first that the service did not read all that was sent, or that it
		// has closed the connection: if that happens while recvmsg(2) finds the queue empty, a
		// non-blocking call returns the end (unix_dgram_recvmsg in net/unix/af_unix.c). The
		// reply is next in the queue.
		b, err = receiveReply(u)
	}
	switch {
	case err == nil:
		return b, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case serr != nil:
		return nil, serr
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return nil, errors.New("it closed the connection before it replied: see its log (journalctl -u lanyard)")
	}
	return nil, err
}

// receiveReply receives the reply, after any signs of life.
func receiveReply(c *net.UnixConn) ([]byte, error) {
	for {
		b, err := receive(c)
		if err != nil || b[0] != wire.StillBusy {
			return b, err
		}
	}
}

// redialWait is the pause before the next attempt when the backlog is full.
const redialWait = time.Millisecond / 4

// dial connects to the service. While the backlog is full, connect(2) fails with EAGAIN
// (unix(7)), and the kernel does not signal when there is space, so dial polls.
//
// It uses DialUnix, because Dial would link the resolver of host names.
func (c Client) dial(ctx context.Context) (net.Conn, error) {
	for {
		conn, err := new(net.Dialer).DialUnix(ctx, socketType, nil, &net.UnixAddr{Name: c.Socket, Net: socketType})
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("its backlog of connections is full: try again: %w", ctx.Err())
		case <-time.After(redialWait):
		}
	}
}

// explainDial adds the remedy to an error of dial if no service listens.
func (c Client) explainDial(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w, and no service listens at %s: as root, run \"systemctl enable --now lanyard.socket\"",
			hook.ErrUnprivileged, c.Socket)
	}
	return err
}
