package broker

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
)

// Client attaches through the broker that listens at Socket.
type Client struct{ Socket string }

var _ hook.Attacher = Client{}

// Attach implements [hook.Attacher]. Of an attachment only that is filled in
// which can be seen from inside the container.
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
	_, err := c.call(ctx, request{Version: version, Verb: verbDetach, Container: containerID})
	return err
}

// Why gives what the broker last answered to the calling user that was no
// success, the newest last.
func (c Client) Why(ctx context.Context) ([]Failure, error) {
	got, err := c.call(ctx, request{Version: version, Verb: verbWhy})
	if err != nil {
		return nil, err
	}
	return got.Failures, nil
}

// Tell leaves with the broker what the calling user is to find by Why: what went
// wrong before the broker was asked.
func (c Client) Tell(ctx context.Context, containerID, text string) error {
	_, err := c.call(ctx, request{Version: version, Verb: verbTell, Container: sanitize(containerID), Error: sanitize(text)})
	return err
}

// Who is turned away since others of the same user are under way, or were a moment
// ago, asks again so many times: half a minute's worth, which a hook does not have.
const (
	maxTries  = 300
	retryWait = 100 * time.Millisecond
)

func (c Client) call(ctx context.Context, m request) (*reply, error) {
	for tries := 1; ; tries++ {
		b, err := c.exchange(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("ask the broker: %w", err)
		}
		var got reply
		if err := json.Unmarshal(b, &got); err != nil {
			return nil, fmt.Errorf("ask the broker: its answer is no JSON: %w", err)
		}
		if got.Error == "" {
			return &got, nil
		}
		if !got.Later || tries == maxTries {
			return nil, errors.New(got.Error)
		}
		select {
		case <-ctx.Done():
			return nil, errors.New(got.Error)
		case <-time.After(retryWait):
		}
	}
}

func (c Client) exchange(ctx context.Context, m request) ([]byte, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.explainDial(err)
	}
	defer conn.Close()
	// Ends the reading and writing when the caller's time is over.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	u := conn.(*net.UnixConn)
	// A broker that refuses at once has answered and closed before it read.
	serr := send(u, m)
	b, err := receive(u)
	if errors.Is(err, unix.ECONNRESET) {
		// Its answer lies behind the news that it did not read all we sent.
		b, err = receive(u)
	}
	switch {
	case err == nil:
		return b, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case serr != nil:
		return nil, serr
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return nil, errors.New("it went away before it answered: see its log (journalctl -u lanyard)")
	}
	return nil, err
}

// redialWait is how long somebody who finds the line full stands aside.
const redialWait = time.Millisecond / 4

// dial waits for a place in the line, which others may fill as fast as it moves:
// the kernel answers EAGAIN then (unix(7)), and tells nobody when it has moved.
//
// It names its kind of address: a dialer for any would have a resolver of host names
// with it.
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
			return nil, fmt.Errorf("its line is full: %w", ctx.Err())
		case <-time.After(redialWait):
		}
	}
}

// explainDial says what to do where nobody listens.
func (c Client) explainDial(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w, and no broker listens at %s: as root, run \"systemctl enable --now lanyard.socket\"", hook.ErrUnprivileged, c.Socket)
	}
	return err
}
