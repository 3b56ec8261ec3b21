package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// call is one connection of a caller, with its request.
type call struct {
	*session
	server *Server
	conn   *net.UnixConn
	log    *slog.Logger
	// container is the id that log names; "": a plugin's request is not decoded yet.
	container string
	caller    hook.Caller
	// root is true for root itself, by its uid outside of all user namespaces: the root of a user
	// namespace is a user.
	root bool
	// elsewhere is why the service cannot attach for this caller of root: its network or pid namespace is
	// not the service's. nil: it is.
	elsewhere error
}

// open takes the socket fd. It closes fd if it returns an error.
func (c *call) open(fd int, cred *unix.Ucred) error {
	refuseRights(fd)
	f := os.NewFile(uintptr(fd), "caller")
	defer f.Close()
	var err error
	if c.caller, err = callerOf(fd, cred); err != nil {
		return err
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return err
	}
	c.conn = conn.(*net.UnixConn)
	return nil
}

// errHungUp is the cause of the end of a request after its caller has closed the connection.
var errHungUp = errors.New("the caller hung up")

// answer receives the request, carries it out and replies. It gives up as soon as the caller hangs
// up: a killed hook's container does not start, and its pid may soon be another process.
func (c *call) answer(ctx context.Context) {
	limit := workTime
	if c.root && c.elsewhere == nil {
		limit = rootTime
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	_ = c.conn.SetReadDeadline(time.Now().Add(readTime))
	b, err := receive(c.conn)
	c.server.scheduler.markActive(c.session)
	if err != nil && !errors.Is(err, errTooLong) {
		c.log.Debug("received no request", "err", err)
		return
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	go func() {
		_, _ = c.conn.Read(make([]byte, 1)) // ends with the connection
		hangUp(errHungUp)
	}()
	stop := c.giveSigns()
	reply := c.reply(ctx, b, err)
	stop()
	_ = c.conn.SetWriteDeadline(time.Now().Add(readTime))
	switch err := sendBytes(c.conn, reply); {
	case errors.Is(err, errTooLong):
		c.log.Error("cannot send the reply", "err", err)
	case err != nil:
		c.log.Warn("the caller did not wait for the reply", "err", err)
	}
}

// hungUp reports whether the caller has closed the connection. It is asked before the work begins: a
// service that was stopped for a time finds requests for containers that are gone. Their pids may
// belong to other processes.
func (c *call) hungUp() bool {
	n, err := 0, error(nil)
	raw, rerr := c.conn.SyscallConn()
	if rerr == nil {
		rerr = raw.Control(func(fd uintptr) {
			n, _, err = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		})
	}
	return rerr != nil || n <= 0 && !errors.Is(err, unix.EAGAIN)
}

// giveSigns tells the caller every wire.SignInterval that its request is in progress, until stop is
// called. A caller reads no further than the reply, so a sign that comes after it does no harm.
func (c *call) giveSigns() (stop func()) {
	tick, done := time.NewTicker(wire.SignInterval), make(chan struct{})
	go func() {
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			_ = c.conn.SetWriteDeadline(time.Now().Add(wire.SignInterval))
			if sendBytes(c.conn, []byte{wire.StillBusy}) != nil {
				return
			}
		}
	}()
	return func() { close(done) }
}

// reply waits for the user's turn, and then decodes the message b and carries it out.
// Decoding waits, too: a hundred messages of one user take time. err is the error of
// receiving b.
func (c *call) reply(ctx context.Context, b []byte, err error) []byte {
	done, late := c.server.scheduler.acquire(ctx, c.user)
	if late == nil {
		defer done()
		if c.hungUp() {
			late = errHungUp
		}
	}
	if late != nil {
		err = late
	}
	var m *request
	if err == nil {
		m, err = decode(b)
	}
	if err != nil {
		text := c.errorText(err)
		if !errors.Is(err, errHungUp) { // the hook was killed, and its container is not known
			c.keep("", text)
		}
		return append([]byte{wire.NotMine}, text...)
	}
	if m.Timeout <= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, workTime, fmt.Errorf("not done after %s", workTime))
		defer cancel()
	}
	switch m.Verb {
	case wire.VerbHook:
		return c.hook(ctx, m)
	case wire.VerbCNI, wire.VerbNetavark:
		return c.plugin(ctx, m)
	}
	c.log = c.log.With("verb", m.Verb)
	c.identify(m.Container)
	r, err := c.do(ctx, m)
	if err != nil {
		r = reply{Error: c.errorText(err)}
		c.keep(m.Container, r.Error)
	}
	r.Version = wire.Version
	return encode(r)
}

func (c *call) do(ctx context.Context, m *request) (r reply, err error) {
	switch m.Verb {
	case verbWhy:
		r.Failures = c.server.failures.forUID(c.caller.UID)
		return r, nil
	case verbTell:
		c.keep(m.Container, m.Error)
		return r, nil
	case verbDetach:
		a, err := c.attacher()
		if err == nil {
			err = a.Detach(ctx, m.Container)
		}
		return r, err
	}
	a, err := c.attacher()
	if err != nil {
		return r, err
	}
	got, err := a.Attach(ctx, m.request())
	for _, a := range got {
		r.Attachments = append(r.Attachments, grantedOf(a))
	}
	return r, err
}

// identify names the container of the request in the log.
func (c *call) identify(container string) {
	if c.container == "" {
		c.container, c.log = container, c.log.With("container", container)
	}
}

// keep keeps an error for "lanyard why". It ignores callers with elsewhere set: the ids of their containers
// may be those of containers of this host.
func (c *call) keep(container, text string) {
	if c.elsewhere != nil {
		return
	}
	if !c.root {
		c.server.failures.add(c.caller.UID, c.uid, container, text)
		return
	}
	if err := c.server.RootFailures.Add(container, text); err != nil {
		c.log.Error("cannot keep a failure for \"lanyard why\"", "err", err)
	}
}

// logFailed logs why a request failed, and the verdict if that was the reason.
func (c *call) logFailed(err error) {
	log := c.log
	var refusal *hook.Refusal
	if errors.As(err, &refusal) {
		log = log.With("verdict", refusal.Verdict.Code)
	}
	log.Warn("failed", "err", err)
}

// errorText logs why a request failed and returns the text for the caller. All refusals
// have the same text; otherwise it would reveal which networks, processes and namespaces
// of other users exist. The number in it lets the administrator find the reason in the
// log.
func (c *call) errorText(err error) string {
	if !errors.Is(err, hook.ErrRefused) {
		c.logFailed(err)
		return err.Error()
	}
	var b [4]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	number := hex.EncodeToString(b[:])
	c.log.Warn("refused", "number", number, "err", err)
	return fmt.Sprintf("refused: the network must be one that allows you, and the container your own "+
		"(reason: number %s in the service's log)", number)
}
